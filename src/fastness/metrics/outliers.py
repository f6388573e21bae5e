"""Out of distribution: scores that are high for what training has not seen, and how well they tell.

What is out of distribution is the positive class throughout; papers differ, and FPR95 with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastness.metrics.finite import finite, must_be_finite

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
FIGURES = ("auroc", "aupr", "fpr95")
_AT_ONCE = 4_000_000  # counts of scores that are held in memory


def knn_distance(bank: Vectors, queries: Vectors, k: int = 50) -> Floats:
    """Return the distance to the k-th nearest of the bank, both scaled to length 1 (Sun et al. 2022, arXiv 2204.06507).

    Args:
        bank, queries: ``[N, D]``, ``[M, D]``.
        k: at most N are used.

    Returns:
        Euclidean distances in [0, 2], ``[M]``.
    """
    known, asked = _unit(bank), _unit(queries)
    # Around the bank's mean, as float32 would lose the small distances of vectors that all point one way.
    middle = known.mean(0)
    known, asked = known - middle, asked - middle
    lengths, k, out = np.square(known).sum(1), min(k, len(known)), np.empty(len(asked))
    block = max(1, 20_000_000 // max(1, len(known)))
    for start in range(0, len(asked), block):
        some = asked[start : start + block]
        squares = np.square(some).sum(1)[:, None] + lengths - 2 * some @ known.T
        out[start : start + block] = np.sqrt(np.maximum(0, np.partition(squares, k - 1, axis=1)[:, k - 1]))
    return out


def mahalanobis(bank: Vectors, queries: Vectors, labels: npt.ArrayLike | None = None) -> Floats:
    """Return the squared Mahalanobis distance to the nearest class mean, one covariance for all.

    Lee et al. 2018 (arXiv 1807.03888); without labels there is one cluster, SSD: Sehwag et al. 2021 (arXiv 2103.12051).
    Vectors are scaled to length 1; the covariance is shrunk (Ledoit and Wolf 2004), so it can be inverted.

    Args:
        bank, queries: ``[N, D]``, ``[M, D]``.
        labels: class of each bank item, or ``None``.
    """
    found: Floats = Clusters.fitted(bank, labels).distances(queries).min(1)
    return found


@dataclass(frozen=True)
class Clusters:
    """Class means and the one covariance around them, of vectors scaled to length 1.

    Attributes:
        means: float64 ``[K, D]``, in the order of the classes' numbers.
        precision: inverse of the covariance, float64 ``[D, D]``; shrunk (Ledoit and Wolf 2004), so that it exists.
    """

    means: Floats
    precision: Floats

    @classmethod
    def fitted(cls, bank: Vectors, labels: npt.ArrayLike | None = None) -> Clusters:
        """Fit them to ``[N, D]`` of classes ``[N]``, or of one."""
        from sklearn.covariance import LedoitWolf

        known = _unit(bank).astype(np.float64)
        y = np.zeros(len(known), np.int64) if labels is None else np.asarray(labels)
        classes, place = np.unique(y, return_inverse=True)
        means = np.stack([known[place == c].mean(0) for c in range(len(classes))])
        fitted = LedoitWolf(assume_centered=True, store_precision=True).fit(known - means[place])
        return cls(means, fitted.precision_)

    def distances(self, queries: Vectors) -> Floats:
        """Return the squared Mahalanobis distance of each of ``[M, D]`` to each mean, float64 ``[M, K]``."""
        asked = _unit(queries).astype(np.float64)
        # (q - m)' P (q - m) by its three terms: no [M, K, D] is made.
        moved = self.means @ self.precision
        square = np.einsum("md,md->m", asked @ self.precision, asked)[:, None]
        distance = square - 2 * asked @ moved.T + np.einsum("kd,kd->k", moved, self.means)
        found: Floats = np.maximum(distance, 0)
        return found


def max_probability(logits: npt.ArrayLike) -> Floats:
    """Return 1 - the largest probability (Hendrycks and Gimpel 2017, arXiv 1610.02136)."""
    from scipy.special import softmax

    p = softmax(finite(logits, "logits"), axis=1)
    # The sum of the others: 1 - p would be the same 0 for all that are very sure.
    np.put_along_axis(p, p.argmax(1)[:, None], 0, 1)
    found: Floats = p.sum(1)
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
    low, high = finite(inside, "scores inside"), finite(outside, "scores outside")
    if not len(low) or not len(high):
        return dict.fromkeys(FIGURES, float("nan"))
    values, places = np.unique(np.concatenate([low, high]), return_inverse=True)
    n_in, n_out = (np.bincount(part, minlength=len(values))[None] for part in np.split(places, [len(low)]))
    return {name: float(column[0]) for name, column in _figures(n_in, n_out, level).items()}


def detection_drawn(
    inside: npt.ArrayLike, outside: npt.ArrayLike, seed: int, draws: int = 200, level: float = 0.95
) -> dict[str, Floats]:
    """Return the figures of `detection` for ``draws`` samples with replacement of both sides, each ``[draws]``."""
    low, high = finite(inside, "scores inside"), finite(outside, "scores outside")
    if not len(low) or not len(high):
        return {name: np.full(draws, np.nan) for name in FIGURES}
    # One sorting serves all samples: each is how often the sorted scores were drawn.
    values, places = np.unique(np.concatenate([low, high]), return_inverse=True)
    generator, at_once = np.random.default_rng(seed), max(1, _AT_ONCE // len(places))

    def drawn(part: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
        chosen = part[generator.integers(len(part), size=(size, len(part)))]
        flat = (chosen + len(values) * np.arange(size)[:, None]).ravel()
        return np.bincount(flat, minlength=size * len(values)).reshape(size, -1)

    found = []
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        found.append(_figures(drawn(places[: len(low)], size), drawn(places[len(low) :], size), level))
    return {name: np.concatenate([part[name] for part in found]) for name in FIGURES}


def _figures(inside: npt.NDArray[np.int64], outside: npt.NDArray[np.int64], level: float) -> dict[str, Floats]:
    """Return `detection`'s figures of how many items have each of the ascending scores, int64 ``[samples, scores]``."""
    n_in, n_out = inside.sum(1), outside.sum(1)
    below = np.cumsum(inside, 1) - inside
    # From the highest score downwards: how many stand at it or above.
    said_in, said_out = (np.cumsum(counts[:, ::-1], 1) for counts in (inside, outside))
    precision = said_out / np.maximum(said_in + said_out, 1)
    enough = (said_out >= np.ceil(level * n_out - 1e-9)[:, None]).argmax(1)
    found_in = np.take_along_axis(said_in, enough[:, None], 1)[:, 0]
    return {
        "auroc": (outside * (below + inside / 2)).sum(1) / (n_in * n_out),
        "aupr": (outside[:, ::-1] * precision).sum(1) / n_out,
        "fpr95": found_in / n_in,
    }


def _unit(x: Vectors) -> Vectors:
    must_be_finite(x, "vectors")
    found: Vectors = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return found
