"""Classifier: can a model that learns from some items tell of which window the others are?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastness.monitoring.drift.pooled import DRIFT, Array, Floats, Labels, Member, Numbers, Pooled, Test
from fastness.monitoring.drift.spectral import told_apart
from fastness.monitoring.drift.verdict import EMBEDDINGS

_FOLDS = 5
_RIDGE = 0.01  # of all variance, added to each direction's


@DRIFT.register("classifier")
class Classifier(Test):
    """Correlation of a ridge regression's out-of-fold scores with the labels (Lopez-Paz and Oquab 2017, 1610.06545).

    Not usual: `mean` looks along the same directions and leaves no items out of learning, so it sees more.
    """

    floor = 0.51
    usual = False

    def members(self, pooled: Pooled) -> Iterator[Member]:
        """Compare the embeddings; folds are decided by the items alone."""
        folds = np.empty(len(pooled.vectors), np.int64)
        folds[pooled.drawn()] = np.arange(len(folds)) % _FOLDS
        added = _RIDGE * float(np.square(pooled.vectors).sum()) or 1.0  # all items are the same: any number will do
        ridge = added * np.eye(pooled.vectors.shape[1])
        parts = []
        for fold in range(_FOLDS):
            learnt, judged = _around_mean(pooled.vectors, folds != fold), _around_mean(pooled.vectors, folds == fold)
            solved = np.linalg.inv(learnt.T @ learnt + ridge)
            parts.append((learnt, judged, solved.astype(np.float32), judged.T @ judged))

        def statistics(labels: Labels) -> Numbers:
            together, squares = np.zeros(len(labels)), np.zeros(len(labels))
            for learnt, judged, solved, gram in parts:
                direction = labels @ learnt @ solved
                together += np.sum(direction * (labels @ judged), 1)
                squares += np.sum((direction @ gram) * direction, 1)
            spread = len(pooled.vectors) * pooled.evenness
            return (together / np.sqrt(np.maximum(squares * spread, 1e-30)))[None]

        def auroc(excess: float) -> float:
            return told_apart(pooled.evenness)(float(np.sign(excess)) * excess**2 / pooled.evenness)

        yield Member(EMBEDDINGS, EMBEDDINGS, statistics, auroc, "AUROC")


def _around_mean(vectors: Floats, mask: Array) -> Floats:
    """Return some of the vectors around their mean, and zeros in the place of the others."""
    found: Floats = vectors - vectors[mask].mean(0)
    found[~mask] = 0
    return found
