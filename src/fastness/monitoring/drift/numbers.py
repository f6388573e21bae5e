"""Numbers: is a column of numbers distributed as it was?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastness.monitoring.drift.pooled import DRIFT, Array, Labels, Member, Numbers, Pooled, Test, root


@DRIFT.register("numbers")
class KolmogorovSmirnov(Test):
    """The largest difference of the distribution functions, squared (Kolmogorov and Smirnov); a gap is a value too."""

    floor = 0.03

    def members(self, pooled: Pooled) -> Iterator[Member]:
        """Compare each column of numbers in which there are two different ones."""
        for name, values in pooled.columns.items():
            if values.dtype.kind == "f" and len(np.unique(values)) > 1:
                yield _member(name, values, pooled)


def _member(name: str, values: Array, pooled: Pooled) -> Member:
    order = np.argsort(values, kind="stable")  # gaps, which are NaN, last
    ordered = values[order]
    last = np.flatnonzero(ordered[1:] != ordered[:-1])  # of each value but the largest; a gap differs from a gap,
    last = last[last < np.sum(~np.isnan(values))]  # so of gaps only the border counts
    below = (last + 1).astype(np.float32)

    def statistics(labels: Labels) -> Numbers:
        counts = labels[:, order].cumsum(1)[:, last]
        gap = np.abs(counts / pooled.n - (below - counts) / pooled.m).max(1)
        found: Numbers = np.square(gap, dtype=np.float64)[None]
        return found

    return Member(name, "column", statistics, root, "KS distance")
