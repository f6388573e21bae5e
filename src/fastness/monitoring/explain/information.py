"""How much a part of the items tells of where an item comes from, and how much it tells once other parts are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def shuffled(assigned: Mask, strata: Ints, permutations: int, rng: np.random.Generator) -> Mask:
    """Return the assignment ``[N]`` and behind it permutations of it within each stratum, bool ``[N, P + 1]``."""
    found = np.repeat(assigned[:, None], permutations + 1, 1)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        found[rows, 1:] = rng.permuted(found[rows, 1:], axis=0)
    return found


def gains(masks: Mask, assigned: Mask, strata: Ints) -> Numbers:
    """Return what belonging to a part tells of the assignment where the stratum is known, in nats an item.

    The conditional mutual information I(part; assignment | stratum) of the counts; N times twice of it is the G
    statistic (Woolf 1957). Of all that can be told of an item nothing tells more than a sufficient statistic (data
    processing inequality), so the part in whose share alone two sets differ has more of it than any wider or
    narrower one.

    Args:
        masks: which items each part has, ``[N, C]``.
        assigned: which set each item is of, bool ``[N, P]``; within a stratum all columns have as many.
        strata: ``[N]``, whole numbers.

    Returns:
        float64 ``[C, P]``, not negative.
    """
    total = np.zeros((masks.shape[1], assigned.shape[1]))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        inside = masks[rows].astype(np.float32)
        both = (inside.T @ assigned[rows].astype(np.float32)).astype(np.float64)  # whole numbers, exact below 2 ** 24
        part, window, n = inside.sum(0, dtype=np.float64)[:, None], float(assigned[rows, 0].sum()), float(len(rows))
        cells = (both, part - both, window - both, n - part - window + both)
        total += sum(map(_xlogx, cells)) + _xlogx(np.array(n))
        total -= _xlogx(part) + _xlogx(n - part) + _xlogx(np.array(window)) + _xlogx(np.array(n - window))
    return np.maximum(total, 0) / len(masks)


def told(values: Ints, assigned: Mask, strata: Ints) -> float:
    """Return what a whole number of each item tells of the assignment where the stratum is known, in nats an item.

    Less what as many values tell by chance (Miller 1955), so that a finer division is not preferred for being finer.

    Args:
        values: ``[N]``, from 0.
        assigned: bool ``[N]``.
        strata: ``[N]``, whole numbers.
    """
    total, free = 0.0, 0
    for stratum in np.unique(strata):
        rows = strata == stratum
        table = np.zeros((2, int(values.max()) + 1))
        np.add.at(table, (assigned[rows].astype(int), values[rows]), 1)
        total += float(_xlogx(table).sum() + _xlogx(table.sum()))
        total -= float(_xlogx(table.sum(0)).sum() + _xlogx(table.sum(1)).sum())
        free += max(0, int((table.sum(0) > 0).sum()) - 1)
    return (total - free / 2) / len(values)


def together(strata: Ints, values: Ints) -> Ints:
    """Return strata that are divided further by another whole number of each item."""
    return np.unique(np.stack([strata, values], 1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _xlogx(x: Numbers) -> Numbers:
    found: Numbers = x * np.log(np.maximum(x, 1.0))  # counts: from 0, where it is 0, as it is at 1
    return found
