"""Categories: has a column of texts the same values as often as it had?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastness.monitoring.drift.pooled import DRIFT, Array, Labels, Member, Numbers, Pooled, Test, root
from fastness.monitoring.explain.parts import divided


@DRIFT.register("categories")
class Categories(Test):
    """Pearson's chi-squared of values by windows, an item; a gap is a value; what is rare is one value together."""

    floor = 0.03

    def members(self, pooled: Pooled) -> Iterator[Member]:
        """Compare each column of texts in which there are two different values, not too rare."""
        for name, values in pooled.columns.items():
            numbers = np.unique(divided(values), return_inverse=True)[1] if values.dtype.kind != "f" else np.zeros(1)
            if numbers.max() > 0:
                yield _member(name, numbers, pooled)


def _member(name: str, numbers: Array, pooled: Pooled) -> Member:
    bins = np.arange(numbers.max() + 1)
    counts = np.bincount(numbers).astype(np.float64)
    expected = counts * pooled.n / (pooled.n + pooled.m)

    def statistics(labels: Labels) -> Numbers:
        ones = (numbers[:, None] == bins).astype(np.float32)  # not held: there may be a thousand columns
        squares = np.square((labels @ ones).astype(np.float64) - expected)
        found: Numbers = (squares / counts).sum(1)[None] / (pooled.n + pooled.m) / pooled.evenness
        return found

    return Member(name, "column", statistics, root, "Cohen's w")
