"""How far two windows' means lie apart, in units of the spread of the items, in a space of features.

The squared Mahalanobis distance of means, its covariance regularised in several strengths. In the space of the
vectors it is Hotelling's test as ridge regression has it; in that of a kernel it is the kernel Fisher discriminant
(Harchaoui, Bach and Moulines 2008, arXiv 0804.1026), of which the MMD is the strongly regularised end. What drifts in
embeddings is often small along directions in which all items differ much, and large along others: a distance of plain
means, or an MMD, hardly sees it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr

from fastness.monitoring.drift.pooled import Floats, Labels, Numbers

RIDGES = {np.inf: 0.45, 0.03: 0.275, 0.003: 0.275}
"""What is added to each direction's share of the variance, and what the setting counts; infinite: as directions vary.

Measured on pictures, texts and rows: one window's items of some class more often move along the strongest directions,
another vendor's drawings along weak ones; with these three, no single ridge is more than a few points better anywhere.
"""
_RANK = 1e-6  # of the largest variance: directions below are rounding
_LEAST = 1e-20


def distances(features: Floats, half: Numbers | None = None) -> Callable[[Labels], Numbers]:
    """Return the statistics of features ``[N, F]`` around their mean: squared distances ``[S, P]``, one a ridge.

    Each is a lower bound of the squared Mahalanobis distance between the means, by the covariance of all items.

    Args:
        half: ``[F, R]``, if the space's coordinates are ``features @ half``.
    """
    n = len(features)
    gram = (features.T @ features).astype(np.float64)
    variances, axes = np.linalg.eigh(gram if half is None else half.T @ gram @ half)
    kept = variances > _RANK * max(variances[-1], _LEAST)
    if not kept.any():  # all items are the same
        return lambda labels: np.zeros((len(RIDGES), len(labels)))
    variances, axes = variances[kept], axes[:, kept] if half is None else half @ axes[:, kept]
    shares = variances / variances.sum()
    weights = np.stack([_weights(shares, ridge) for ridge in RIDGES], 1).astype(np.float32)  # [R, S]
    axes = (axes / np.sqrt(variances)).astype(np.float32)

    def statistics(labels: Labels) -> Numbers:
        ones = labels.sum(1, dtype=np.float64)
        pairs = np.maximum(ones * (n - ones), n - 1)  # where one window has no item all squares are zero
        found: Numbers = (np.square((labels @ features) @ axes) @ weights).T * (n**3 / pairs**2)
        return found

    return statistics


def told_apart(evenness: float) -> Callable[[float], float]:
    """Return what makes an AUROC of a squared distance: how well its direction tells the windows' items apart.

    For normal items of equal covariance; half where there is nothing, below where it is less than by chance.

    Args:
        evenness: product of the windows' shares: distances by the covariance of all items are at most one by it.
    """

    def auroc(excess: float) -> float:
        within = abs(excess) / max(1 - evenness * abs(excess), 1e-9)
        return float(ndtr(np.sign(excess) * np.sqrt(within / 2)))

    return auroc


def _weights(shares: Numbers, ridge: float) -> Numbers:
    """Return what each direction counts, the strongest one 1."""
    found = shares if np.isinf(ridge) else shares / (shares + ridge)
    return np.asarray(found / found[-1])
