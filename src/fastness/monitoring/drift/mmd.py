"""MMD: do the windows' distributions differ, in whatever a Gaussian kernel sees?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastness.monitoring.drift.pooled import DRIFT, Floats, Labels, Member, Numbers, Pooled, Test
from fastness.monitoring.drift.spectral import RIDGES, distances, told_apart
from fastness.monitoring.drift.verdict import EMBEDDINGS

BANDWIDTHS = (0.25, 1.0)  # squared, of the median squared distance: near neighbours, and the whole
_LANDMARKS = 200
_RANK = 1e-6  # of the kernel between landmarks


@DRIFT.register("mmd")
class MMD(Test):
    """Distances of the windows' means in the spaces of Gaussian kernels, by ridges from MMD to kernel Fisher.

    Gretton et al. 2012 (JMLR 13); the kernels are approximated through landmarks (Williams and Seeger 2000), so that a
    permutation costs as many products as there are landmarks and items, and no matrix of all pairs is made. Several
    bandwidths are fused, since none suits every change.
    """

    floor = 0.51

    def members(self, pooled: Pooled) -> Iterator[Member]:
        """Compare the embeddings."""
        landmarks = _distinct(pooled.vectors[pooled.drawn()])[:_LANDMARKS]
        squares = _squared_distances(landmarks, landmarks)
        apart = squares[np.triu_indices(len(landmarks), 1)]
        median = (float(np.median(apart)) if len(apart) else 0.0) or 1.0
        to_items = _squared_distances(pooled.vectors, landmarks)
        parts = [_features(to_items, squares, -1 / (width * median)) for width in BANDWIDTHS]
        measures = [distances(features, half) for features, half in parts]

        def statistics(labels: Labels) -> Numbers:
            return np.concatenate([measure(labels) for measure in measures])

        weights = tuple(RIDGES.values()) * len(measures)
        yield Member(EMBEDDINGS, EMBEDDINGS, statistics, told_apart(pooled.evenness), "AUROC", weights)


def _features(to_items: Floats, squares: Floats, rate: float) -> tuple[Floats, Numbers]:
    """Return kernels of items with landmarks around their mean ``[N, L]``, and what makes coordinates of them."""
    values, axes = np.linalg.eigh(np.exp(squares.astype(np.float64) * rate))
    kept = values > _RANK * values[-1]
    kernel = np.exp(to_items * np.float32(rate))
    kernel -= kernel.mean(0, dtype=np.float64).astype(np.float32)
    return kernel, axes[:, kept] / np.sqrt(values[kept])


def _distinct(vectors: Floats) -> Floats:
    """Return each vector once, of vectors of which equal ones follow each other."""
    found: Floats = vectors[np.concatenate([[True], np.any(vectors[1:] != vectors[:-1], 1)])]
    return found


def _squared_distances(a: Floats, b: Floats) -> Floats:
    found: Floats = a @ (-2 * b.T)
    found += np.square(a).sum(1)[:, None]
    found += np.square(b).sum(1)
    np.maximum(found, 0, out=found)
    return found
