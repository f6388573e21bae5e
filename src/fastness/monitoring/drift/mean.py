"""Mean: do the windows' mean vectors differ, in the directions in which items differ little as well?"""

from __future__ import annotations

from collections.abc import Iterator

from fastness.monitoring.drift.pooled import DRIFT, Member, Pooled, Test
from fastness.monitoring.drift.spectral import RIDGES, distances, told_apart
from fastness.monitoring.drift.verdict import EMBEDDINGS


@DRIFT.register("mean")
class Mean(Test):
    """Squared Mahalanobis distance of means with ridges; in units of how well its direction tells the items apart."""

    floor = 0.51  # what two items in a hundred make that are wholly new

    def members(self, pooled: Pooled) -> Iterator[Member]:
        """Compare the embeddings."""
        apart = told_apart(pooled.evenness)
        yield Member(EMBEDDINGS, EMBEDDINGS, distances(pooled.vectors), apart, "AUROC", tuple(RIDGES.values()))
