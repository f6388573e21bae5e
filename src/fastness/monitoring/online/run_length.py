"""How long a detector runs until it alarms though nothing changed, simulated; the threshold that makes it so long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.seeds import derive, numpy_generator
from fastness.metrics.intervals import bootstrap_means

Array = npt.NDArray[Any]
_STEPS = 500_000  # simulated in all
_ITEMS = 8_000_000  # simulated in all: large batches leave fewer steps
_LONGEST = 1_000  # steps of a run that are simulated; what lies beyond follows from how often it alarms until then
_AT_ONCE = 4_000_000  # numbers that are held for the runs of one go
_TAIL = 0.02  # share of the values whose tail is fitted
_ENOUGH = 300  # alarms that say by themselves how often there are some


@dataclass(frozen=True)
class Tails:
    """How rare values are where nothing changes, by their generalised Pareto tails (Pickands 1975).

    Attributes:
        start: values that one in fifty is above, ``[statistics]``.
        spread, shape: of what they are above it by; a shape of 0 is an exponential tail.
    """

    start: Array
    spread: Array
    shape: Array

    @classmethod
    def of(cls, values: Array) -> Tails:
        """Fit them by probability-weighted moments (Hosking and Wallis 1987).

        Args:
            values: ``[statistics, N]``, NaN where there is none, 0 or above.
        """
        found = []
        for row in values:
            there = row[np.isfinite(row)].astype(np.float64)
            start = np.quantile(there, 1 - _TAIL)
            above = np.sort(there[there > start] - start)
            if not len(above):  # all are alike
                found.append((max(start, 1e-9), max(1e-3 * start, 1e-9), 0.0))
                continue
            first = above.mean()
            second = (above * (len(above) - np.arange(1, len(above) + 1)) / max(1, len(above) - 1)).mean()
            shape = float(np.clip(2 - first / max(first - 2 * second, 1e-9 * first), 0, 0.5))
            found.append((start, first * (1 - shape), shape))
        return cls(*np.array(found).T)

    def surprise(self, values: Array) -> Array:
        """Return minus the logarithm of the chance of values so large or larger, of ``[statistics, ...]``.

        What one in fifty is above is as the logarithm of that; what is below is in proportion.
        """
        start, spread, shape = (x.reshape(-1, *(1,) * (values.ndim - 1)) for x in (self.start, self.spread, self.shape))
        above = np.maximum(values - start, 0) / spread
        curved = np.log1p(shape * above) / np.where(shape > 0, shape, 1)
        found: Array = np.where(shape > 0, curved, above) - np.log(_TAIL) * np.minimum(values / start, 1)
        return found


def calibrated(
    rows: Array, parts: Sequence[slice], windows: Sequence[int], run_time: float, batch: int, seed: int
) -> tuple[Tails, float]:
    """Return the tails of the squared differences, and the threshold of surprise for a mean run length.

    Each simulated run is a world of its own: the items of its stream are the rows in random order, again and again, and
    what its detector knows is their mean, as far off as a mean of so many items is (the bootstrap). So what a reference
    does not know of its world, which makes some detectors alarm more often than others, is in the mean. No item stands
    twice in a window: of many dimensions it would be nearer to itself than any new item can be.

    Args:
        rows: features of reference items that had no part in choosing the features, float32 ``[N, K]``.
        parts: which features are summed, each giving a statistic of its own for each window.
        windows: lengths in batches, ascending.
        run_time: the mean run length that is asked for, in batches.
        batch: items of a step.
        seed: decides all that is drawn.
    """
    steps = int(np.clip(6 * run_time, 4 * windows[-1], max(_LONGEST, 4 * windows[-1])))
    runs = max(100, min(1_000, _STEPS // steps, _ITEMS // (batch * steps)))
    squares = _simulated(rows, parts, windows, (runs, steps, batch), seed)
    tails = Tails.of(squares.reshape(len(squares), -1))
    largest = np.full((runs, steps), -np.inf, np.float32)
    for number, square in enumerate(squares):  # one after the other: all at once would be held twice
        one = Tails(*(x[number : number + 1] for x in (tails.start, tails.spread, tails.shape)))
        np.fmax(largest, one.surprise(square[None])[0], out=largest)
    return tails, threshold(largest, run_time, windows[-1])


def _simulated(
    rows: Array, parts: Sequence[slice], windows: Sequence[int], size: tuple[int, int, int], seed: int
) -> Array:
    """Return the squared differences of simulated streams, float32 ``[parts * windows, runs, steps]``."""
    runs, steps, batch = size
    known = bootstrap_means(rows, derive(seed, "reference"), runs).astype(np.float32)
    closer = bootstrap_means(rows, derive(seed, "closer"), runs) - rows.mean(0, dtype=np.float64)
    generator, at_once = numpy_generator(seed, "streams"), max(1, _AT_ONCE // (steps * rows.shape[1]))
    order = np.arange(len(rows))[None].repeat(-(-steps * batch // len(rows)), 0)
    found = np.empty((len(parts) * len(windows), runs, steps), np.float32)
    for start in range(0, runs, at_once):
        mine = slice(start, min(runs, start + at_once))
        orders = (generator.permuted(order, axis=1).ravel()[: steps * batch] for _ in range(mine.start, mine.stop))
        drawn = np.stack([*orders]).reshape(-1, steps, batch)
        means = rows[drawn[..., 0]]
        for item in range(1, batch):
            means += rows[drawn[..., item]]
        means /= np.float32(batch)
        means -= known[mine, None]
        found[:, mine] = squares(means, parts, windows, closer[mine].astype(np.float32), batch)
    return found


def squares(means: Array, parts: Sequence[slice], windows: Sequence[int], closer: Array, batch: int) -> Array:
    """Return the squared lengths of the sums of the last batches' means, over how many they are.

    Args:
        means: of batches, less the reference's, float32 ``[runs, steps, K]``.
        parts: of the K.
        windows: how many batches are the last.
        closer: a mean of as many items as there are, less what is expected of it, float32 ``[runs, K]``. The mean of m
            different ones of n items lies nearer to that of all than a mean of m new ones would, by a variance of
            1 - 1/m times that of a mean of n: by so much of it windows are put off. (Not by all: of a single item
            nothing is missing, and where many are equally far what is rare would be nothing but that.)
        batch: items of a step.

    Returns:
        ``[parts * windows, runs, steps]``, NaN where there were not so many batches yet.
    """
    runs, steps, _ = means.shape
    found = np.full((len(parts), len(windows), runs, steps), np.nan, np.float32)
    for place, part in enumerate(parts):
        sums = np.concatenate([np.zeros((runs, 1, part.stop - part.start), np.float32), means[..., part]], 1)
        np.cumsum(sums, 1, out=sums)
        lengths, off = np.einsum("rsk,rsk->rs", sums, sums), closer[:, part]
        along, far = np.einsum("rsk,rk->rs", sums, off), np.einsum("rk,rk->r", off, off)[:, None]
        for number, w in enumerate(w for w in windows if w <= steps):
            both = np.einsum("rsk,rsk->rs", sums[:, w:], sums[:, :-w])
            put_off = w * math.sqrt(1 - 1 / (w * batch))
            square = lengths[:, w:] + lengths[:, :-w] - 2 * both
            square += put_off * (put_off * far - 2 * (along[:, w:] - along[:, :-w]))
            found[place, number, :, w - 1 :] = np.maximum(square, 0) / w
    return found.reshape(-1, runs, steps)


def threshold(values: Array, run_time: float, warm: int) -> float:
    """Return the threshold that values exceed for the first time after ``run_time`` steps in the mean.

    Args:
        values: of runs without change ``[runs, steps]``, in nats of surprise.
        run_time: steps.
        warm: steps from which on values are as they will always be.
    """
    highest = np.maximum.accumulate(values, 1)
    low, high = 0.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_run_length(highest, middle, warm) < run_time else (low, middle)
    return high


def mean_run_length(highest: Array, limit: float, warm: int) -> float:
    """Return the mean number of steps up to the first value above a limit.

    Runs that are left when the simulation ends go on to alarm as often as runs did since they were warm. What is too
    rare to be counted follows from what is not: the logarithm of the rate falls with the surprise in a straight line.

    Args:
        highest: value of each run so far ``[runs, steps]``.
        limit: in nats of surprise.
        warm: steps.
    """
    begun = max(1, min(warm, highest.shape[1] // 2))
    alive = (highest[:, :begun] <= limit).mean(0)
    return float(1 + alive[:-1].sum() + alive[-1] * np.exp(-_log_rate(highest, limit, begun)))


def _log_rate(highest: Array, limit: float, begun: int) -> float:
    """Return the logarithm of the share of runs that alarm in a step, of those that have not yet."""
    rate, alarms = _rate(highest, limit, begun)
    if alarms >= _ENOUGH:
        return float(np.log(rate))
    last = np.sort(highest[:, -1])
    limits = [float(last[max(0, len(last) - 1 - n)]) for n in (_ENOUGH // 10, _ENOUGH // 5, _ENOUGH // 2, _ENOUGH)]
    counted = [(x, *_rate(highest, x, begun)) for x in limits]
    there = np.array([(x, np.log(found), n) for x, found, n in counted if n > 0] or [(limit, np.log(rate), 1)])
    x, y, weight = there.T
    middle, height = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = float((weight * (x - middle) ** 2).sum())
    # One nat rarer is alarming e times as seldom, if tails are what they were fitted as.
    slope = float((weight * (x - middle) * (y - height)).sum()) / spread if spread > 0 else -1.0
    return float(height + np.clip(slope, -2.0, -0.5) * (limit - middle))


def _rate(highest: Array, limit: float, begun: int) -> tuple[float, int]:
    """Return alarms a step of the runs that had none before, and their number, since the beginning."""
    free = highest[:, begun - 1 :] <= limit
    alarms, exposed = int(free[:, 0].sum() - free[:, -1].sum()), int(free[:, :-1].sum())
    return max(alarms, 0.5) / max(exposed, 1), alarms
