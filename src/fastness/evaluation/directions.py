"""Directions: what do the strongest directions of the embeddings tell apart?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.evaluation.subject import Subject

_TELLING = 0.3  # correlation or share below which nothing is said
_VALUES = 100  # different texts that a column may have


@dataclass(frozen=True)
class Direction:
    """One principal direction of the held-out embeddings.

    Attributes:
        share: of the variance.
        low, high: positions of the items at its two ends.
        follows: which known columns it follows, in words; empty if none.
    """

    share: float
    low: list[int]
    high: list[int]
    follows: str


def directions(subject: Subject, count: int = 4, ends: int = 6) -> list[Direction]:
    """Return the strongest directions with what they follow: Spearman's correlation with numbers, and of texts which
    share of the variance of ranks the groups explain.
    """
    from scipy.stats import rankdata
    from sklearn.decomposition import PCA

    z = subject.test_vectors
    count = min(count, z.shape[1], len(z) // (2 * ends))
    if count < 1 or np.ptp(z) == 0:
        return []
    model = PCA(count, random_state=0).fit(z)
    places, known = model.transform(z), subject.held_out_known
    found = []
    for i in range(count):
        order, ranks = np.argsort(places[:, i], kind="stable"), rankdata(places[:, i])
        said = {name: _follows(ranks, values) for name, values in known.items()}
        best = sorted((name for name in said if abs(said[name]) >= _TELLING), key=lambda name: -abs(said[name]))[:2]
        shown = {name: f"{said[name]:+.2f}" if known[name].dtype.kind == "f" else f"{said[name]:.0%}" for name in best}
        words = ", ".join(f"{name} ({how})" for name, how in shown.items())
        found.append(
            Direction(float(model.explained_variance_ratio_[i]), order[:ends].tolist(), order[-ends:].tolist(), words)
        )
    return found


def _follows(ranks: npt.NDArray[np.float64], values: npt.NDArray[Any]) -> float:
    """Return the rank correlation with numbers, or for texts the share of the ranks' variance between groups."""
    from scipy.stats import spearmanr

    if values.dtype.kind == "f":
        there = ~np.isnan(values)
        if there.sum() < 3 or np.ptp(values[there]) == 0:
            return 0.0
        return float(spearmanr(ranks[there], values[there]).statistic)
    names, group = np.unique(values, return_inverse=True)
    if not 1 < len(names) <= min(_VALUES, len(values) // 2):
        return 0.0
    sizes = np.bincount(group)
    means = np.bincount(group, ranks) / sizes
    share = (sizes * (means - ranks.mean()) ** 2).sum() / ((ranks - ranks.mean()) ** 2).sum()
    # Less what as many groups would explain by chance.
    return float(1 - (1 - share) * (len(values) - 1) / (len(values) - len(names)))
