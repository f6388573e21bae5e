"""Clustering: do groups that nobody named follow the classes, and do they hold together?

Agreement with classes (ARI, NMI, AMI), silhouette and Davies-Bouldin are scikit-learn's; Dunn's index is here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastness.metrics.finite import finite

Vectors = npt.NDArray[np.floating]


def dunn(vectors: Vectors, clusters: npt.ArrayLike) -> float:
    """Return Dunn's index: least distance between items of two clusters over the largest within one (Dunn 1974).

    Higher is better; infinite if every cluster is one point, NaN if they are all the same point or there are fewer than
    two clusters. Exact: all pairs are compared, a block at a time; time grows with N², memory does not.

    Args:
        vectors: ``[N, D]``.
        clusters: of each item ``[N]``.
    """
    from scipy.spatial.distance import cdist

    x, y = finite(vectors, "vectors"), np.asarray(clusters)
    if len(np.unique(y)) < 2:
        return float("nan")
    between, within = np.inf, 0.0
    block = max(1, 4_000_000 // max(1, len(x)))
    for start in range(0, len(x), block):
        distance = cdist(x[start : start + block], x[start:])
        same = y[start : start + block, None] == y[None, start:]
        within = max(within, float(distance[same].max(initial=0.0)))
        between = min(between, float(distance[~same].min(initial=np.inf)))
    if within == 0:
        return float("inf") if between > 0 else float("nan")
    return between / within
