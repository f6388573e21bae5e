"""Out of distribution: scores that are high for what training has not seen, and how well they tell.

What is out of distribution is the positive class throughout; papers differ, and FPR95 with them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastness.metrics.finite import finite

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]


def knn_distance(bank: Vectors, queries: Vectors, k: int = 50) -> Floats:
    """Return the distance to the k-th nearest of the bank, both scaled to length 1 (Sun et al. 2022, arXiv 2204.06507).

    Args:
        bank, queries: ``[N, D]``, ``[M, D]``.
        k: at most N are used.

    Returns:
        Euclidean distances in [0, 2], ``[M]``.
    """
    known, asked = _unit(bank), _unit(queries)
    k, out = min(k, len(known)), np.empty(len(asked))
    block = max(1, 20_000_000 // max(1, len(known)))
    for start in range(0, len(asked), block):
        similar = asked[start : start + block] @ known.T
        kth = -np.partition(-similar, k - 1, axis=1)[:, k - 1]
        out[start : start + block] = np.sqrt(np.maximum(0, 2 - 2 * kth.astype(np.float64)))
    return out


def mahalanobis(bank: Vectors, queries: Vectors, labels: npt.ArrayLike | None = None) -> Floats:
    """Return the squared Mahalanobis distance to the nearest class mean, one covariance for all.

    Lee et al. 2018 (arXiv 1807.03888); without labels there is one cluster, SSD: Sehwag et al. 2021 (arXiv 2103.12051).
    Vectors are scaled to length 1; the covariance is shrunk (Ledoit and Wolf 2004), so it can be inverted.

    Args:
        bank, queries: ``[N, D]``, ``[M, D]``.
        labels: class of each bank item, or ``None``.
    """
    from sklearn.covariance import LedoitWolf

    known, asked = _unit(bank).astype(np.float64), _unit(queries).astype(np.float64)
    y = np.zeros(len(known), np.int64) if labels is None else np.asarray(labels)
    classes = np.unique(y)
    means = np.stack([known[y == c].mean(0) for c in classes])
    centred = known - means[np.searchsorted(classes, y)]
    precision = LedoitWolf(assume_centered=True, store_precision=True).fit(centred).precision_
    # (q - m)' P (q - m) by its three terms: no [M, K, D] is made.
    moved = means @ precision
    square = np.einsum("md,md->m", asked @ precision, asked)[:, None]
    distance = square - 2 * asked @ moved.T + np.einsum("kd,kd->k", moved, means)
    found: Floats = np.maximum(distance, 0).min(1)
    return found


def max_probability(logits: npt.ArrayLike) -> Floats:
    """Return 1 - the largest probability (Hendrycks and Gimpel 2017, arXiv 1610.02136)."""
    from scipy.special import softmax

    found: Floats = 1 - softmax(finite(logits, "logits"), axis=1).max(1)
    return found


def energy(logits: npt.ArrayLike) -> Floats:
    """Return the free energy, -log Σ exp of the logits (Liu et al. 2020, arXiv 2010.03759)."""
    from scipy.special import logsumexp

    found: Floats = -logsumexp(finite(logits, "logits"), axis=1)
    return found


def detection(inside: npt.ArrayLike, outside: npt.ArrayLike, level: float = 0.95) -> dict[str, float]:
    """Return how well scores tell ``outside`` (positive, high) from ``inside``.

    Returns:
        ``auroc``: chance that an outside item scores higher, ties count half. ``aupr``: mean precision over recall.
        ``fpr95``: the least share of inside items above a threshold that finds 95% of the outside ones; ties count as
        found, inside and outside. All NaN if one side is empty.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    low, high = finite(inside, "scores inside"), finite(outside, "scores outside")
    if not len(low) or not len(high):
        return dict.fromkeys(("auroc", "aupr", "fpr95"), float("nan"))
    scores, truth = np.concatenate([low, high]), np.repeat([0, 1], [len(low), len(high)])
    threshold = np.sort(high)[len(high) - int(np.ceil(level * len(high) - 1e-9))]
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "aupr": float(average_precision_score(truth, scores)),
        "fpr95": float((low >= threshold).mean()),
    }


def _unit(x: Vectors) -> Vectors:
    finite(x, "vectors")
    found: Vectors = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return found
