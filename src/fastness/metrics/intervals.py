"""Intervals: how far a number would move with other items, draws or seeds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def wilson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share ``hits / n`` over items (Wilson 1927)."""
    from scipy.stats import norm

    if n == 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.5 + level / 2))
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def student(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean and Student's interval of a few independent values (seeds, draws)."""
    from scipy.stats import t

    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return mean, float("-inf"), float("inf")
    half = float(t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return mean, mean - half, mean + half
