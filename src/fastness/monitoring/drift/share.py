"""Share: is a slice as large a part of the items as it was?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastness.evaluation.slices import Slice
from fastness.monitoring.drift.pooled import DRIFT, Labels, Member, Numbers, Pooled, Test, root


@DRIFT.register("share")
class Share(Test):
    """The squared difference of a slice's shares."""

    floor = 0.01

    def members(self, pooled: Pooled) -> Iterator[Member]:
        """Compare each slice that is asked for."""
        for part in pooled.slices:
            yield _member(part, pooled)


def _member(part: Slice, pooled: Pooled) -> Member:
    inside = part.mask.astype(np.float32)

    def statistics(labels: Labels) -> Numbers:
        counts = (labels @ inside).astype(np.float64)
        found: Numbers = np.square(counts / pooled.n - (inside.sum() - counts) / pooled.m)[None]
        return found

    return Member(part.name, "slice", statistics, root, "share")
