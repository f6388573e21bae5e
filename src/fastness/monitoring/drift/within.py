"""Within: are the items of a slice like those that were in it?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastness.evaluation.slices import Slice
from fastness.monitoring.drift.pooled import DRIFT, Labels, Member, Numbers, Pooled, Test
from fastness.monitoring.drift.spectral import RIDGES, distances, told_apart

_LEAST = 5  # items of a slice, of each window


@DRIFT.register("within")
class Within(Test):
    """As `mean`, of the items of a slice: how many of them each window has does not matter."""

    floor = 0.52

    def members(self, pooled: Pooled) -> Iterator[Member]:
        """Compare each slice that is asked for and has items enough."""
        for part in pooled.slices:
            if part.mask.sum() >= 2 * _LEAST:
                yield _member(part, pooled)


def _member(part: Slice, pooled: Pooled) -> Member:
    rows = np.flatnonzero(part.mask)
    n, of_reference = len(rows), int((rows < pooled.n).sum())
    pairs = max(of_reference * (n - of_reference), n - 1)
    vectors = pooled.vectors[rows]
    measure = distances(vectors - vectors.mean(0))

    def statistics(labels: Labels) -> Numbers:
        # Means of few items lie further apart by chance. Permutations divide the slice as all items are divided, which
        # is not how it is divided if its share has changed: so each distance is taken by what chance gives.
        inside = labels[:, rows]
        ones = inside.sum(1, dtype=np.float64)
        found: Numbers = measure(inside) * (np.maximum(ones * (n - ones), n - 1) / n)
        # Of so few items on one side chance can make anything, which larger parts by permutations do not show.
        return np.where(np.minimum(ones, n - ones) < _LEAST, 0.0, found)

    auroc = told_apart(pairs / n**2)
    return Member(
        part.name, "slice", statistics, lambda excess: auroc(excess * n / pairs), "AUROC", tuple(RIDGES.values())
    )
