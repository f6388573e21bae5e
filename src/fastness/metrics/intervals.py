"""Intervals: how far a number would move with other items, draws or seeds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_AT_ONCE = 4_000_000  # drawn places whose values are held in memory


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


def paired_shares(wins: npt.ArrayLike, losses: npt.ArrayLike, n: npt.ArrayLike, level: float = 0.95) -> Floats:
    """Return the score interval of the difference of two shares of the same items (Tango 1998).

    Unlike a bootstrap it has a width where no item changed: 50 that stayed right do not show that none would be lost.

    Args:
        wins, losses: how many items became right, and wrong, int ``[...]``.
        n: how many items there are.

    Returns:
        low and high ends of the share of wins less that of losses, float64 ``[2, ...]``.
    """
    from scipy.stats import norm

    b, c, total = (np.asarray(x, np.float64) for x in (wins, losses, n))
    z, here = float(norm.ppf(0.5 + level / 2)), (b - c) / total

    def score(d: Floats) -> Floats:
        half = (2 * total - b + c) * d - b - c
        other = (np.sqrt(np.maximum(half**2 + 8 * total * c * d * (1 - d), 0)) - half) / (4 * total)
        spread = np.sqrt(np.maximum(total * (2 * other + d * (1 - d)), 1e-300))
        found: Floats = (b - c - total * d) / spread
        return found

    ends = []
    for outer in (-1.0, 1.0):
        inner, outer_end = here.copy(), np.full_like(here, outer)
        for _ in range(60):  # halving: the score falls as the difference grows
            middle = (inner + outer_end) / 2
            beyond = np.abs(score(middle)) > z
            outer_end, inner = np.where(beyond, middle, outer_end), np.where(beyond, inner, middle)
        ends.append(outer_end)
    return np.stack(ends)


def student(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean and Student's interval of a few independent values (seeds, draws)."""
    from scipy.stats import t

    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return mean, float("-inf"), float("inf")
    half = float(t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return mean, mean - half, mean + half


def bootstrap_means(values: npt.ArrayLike, seed: int, draws: int = 2000) -> Floats:
    """Return the means of ``draws`` samples with replacement (Efron 1979).

    Columns are drawn together, so that differences of columns are those of pairs.

    Args:
        values: one number an item ``[N]``, or several ``[N, K]``; of a column those that are NaN are passed over.

    Returns:
        float64 ``[draws]`` or ``[draws, K]``, NaN for a sample with no number; the same seed and N draw the same items.
    """
    x = np.asarray(values, np.float64)
    table = x.reshape(len(x), -1)
    there = ~np.isnan(table)
    whole, known = bool(there.all()), np.where(there, table, 0.0)
    generator = np.random.default_rng(seed)
    n, at_once = len(x), max(1, _AT_ONCE // len(x))
    found = np.empty((draws, table.shape[1]))
    for start in range(0, draws, at_once):
        size = min(draws - start, at_once)
        places = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        # How often each item was drawn: all columns are then one product of matrices.
        often = np.bincount(places.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        numbers = float(n) if whole else often @ there
        with np.errstate(invalid="ignore"):
            found[start : start + size] = (often @ known) / numbers
    return found.reshape(draws, *x.shape[1:])


def bootstrap(statistic: Callable[[npt.NDArray[np.int64]], float], n: int, seed: int, draws: int = 500) -> Floats:
    """Return a statistic of ``draws`` samples with replacement of ``n`` items, float64 ``[draws]``.

    Args:
        statistic: given the places of the drawn items, int64 ``[n]``; what it calls NaN is left out.
    """
    generator = np.random.default_rng(seed)
    found = np.array([statistic(generator.integers(n, size=n)) for _ in range(draws)], np.float64)
    return found[~np.isnan(found)]


def quantiles(samples: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Return the interval that holds the middle ``level`` of the samples; unbounded if there are none."""
    x = np.asarray(samples, np.float64)
    if not len(x):
        return float("-inf"), float("inf")
    low, high = np.quantile(x, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def chance_of_drop(differences: npt.ArrayLike) -> float:
    """Return how likely paired differences so low, or lower, were if nothing had changed: a one-sided p value.

    Of outcomes that are right or wrong, whose differences are -1, 0 and 1, by the exact sign test (McNemar 1947);
    of others by Student's t, but never less than if each of them had fallen by chance: two equal drops prove little.

    Args:
        differences: after less before, float64 ``[N]``.
    """
    from scipy.stats import binom, t

    x = np.asarray(differences, np.float64)
    if np.isin(x, (-1, 0, 1)).all():
        wins, losses = int((x > 0).sum()), int((x < 0).sum())
        return float(binom.cdf(wins, wins + losses, 0.5))
    by_chance = 0.5 ** int((x != 0).sum())
    error = x.std(ddof=1) / math.sqrt(len(x)) if len(x) > 1 else math.inf
    if error == 0:
        return by_chance if x[0] < 0 else 1.0
    return max(by_chance, float(t.cdf(x.mean() / error, len(x) - 1))) if math.isfinite(error) else 0.5


def holm(p: npt.ArrayLike) -> Floats:
    """Return p values corrected for their number, float64 ``[M]`` (Holm 1979): no more than 5% err if below .05."""
    x = np.asarray(p, np.float64)
    order = np.argsort(x, kind="stable")
    raised = np.minimum(1, x[order] * np.arange(len(x), 0, -1))
    out = np.empty_like(x)
    out[order] = np.maximum.accumulate(raised)
    return out
