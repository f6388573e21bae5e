"""Percentiles that the number of calls can bear."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(values: Sequence[float], share: int) -> float | None:
    """Return the smallest measured value that at least ``share`` percent of the values do not exceed (nearest rank).

    Args:
        values: measured, in any order.
        share: in [1, 99].

    Returns:
        ``None`` where not even one value is expected above it: the 99th wants 100 values, the 95th 20, the median 2.
    """
    n = len(values)
    if n * (100 - share) < 100:
        return None
    return sorted(values)[-(-share * n // 100) - 1]
