"""Tests that may be looked at after every request: their level holds at all times together, whenever one stops.

Each is a bet against what is to be refuted. One starts with a capital of 1 and stakes part of it on every observation
at odds that are fair, or worse, as long as the refuted holds; then the capital is a non-negative supermartingale, and
the chance that it ever reaches 1/a is at most a (Ville 1939). How much was won is the evidence, here its logarithm.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

_STAKES = tuple(0.9 * 0.5**power for power in range(8))  # shares of the largest stake that can never ruin
_LEFT = 4  # times as many outcomes as are bet on at once may be left over
_PARTS = tuple(9 / 8 / (k * (k + 1)) for k in range(1, 9))  # of the capital that each begins with: bold ones find early


class Kept:
    """What is told by JSON, and goes on from it as if it had never stopped."""

    def state(self) -> dict[str, Any]:
        """Return all there is to know, as JSON values."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def resumed(cls, state: dict[str, Any]) -> Self:
        """Return one that goes on where another was."""
        return cls(**state)


@dataclass
class Bet(Kept):
    """Evidence that the mean of a bounded quantity lies beyond a limit (Waudby-Smith & Ramdas 2023).

    The capital is divided among several stakes, so that no stake has to be known beforehand; that costs at most the
    logarithm of the best one's part.

    Args:
        side: ``above``: refutes that every observation, given those before, has a mean of at most its limit; ``below``:
            of at least its limit.
        low, high: what an observation can be.
        capitals: logarithms of how much each part has grown, by stake.
        most: the most evidence that ever was.
    """

    side: Literal["above", "below"]
    low: float
    high: float
    capitals: list[float] = field(default_factory=lambda: [0.0] * len(_STAKES))
    most: float = 0.0

    def add(self, value: float, limit: float) -> None:
        """Take an observation in ``[low, high]``, and the limit, which may hang on those before but not on this one."""
        if self.side == "above":
            room, gain = limit - self.low, value - limit
        else:
            room, gain = self.high - limit, limit - value
        if room <= 0:  # no mean can be on the refuted side of such a limit, and nothing is shown by that
            return
        share = gain / room  # -1 at worst
        self.capitals = [c + math.log1p(stake * share) for c, stake in zip(self.capitals, _STAKES, strict=True)]
        self.most = max(self.most, _log_sum(self.capitals))


@dataclass
class Rates(Kept):
    """Evidence on how often one of two fails more than the other, from outcomes of each in turn.

    What the candidate did, ``x``, and what production did, ``y_1 … y_m``, all 0 or 1, are bet on together:
    ``(1 + g (x - c)) (1 - g (y_1 - c) / m) … (1 - g (y_m - c) / m)``. As ``1 + z <= exp(z)``, its mean is at most
    ``exp(g d)`` where the rates differ by ``d``, whatever ``c`` is; divided by ``exp(g limit)`` it is a fair bet
    against all pairs of rates on the refuted side of a limit. Negative ``g`` bet on the other side. That production
    answers many more requests makes large ``g`` possible, which is what finds rare failures.

    Args:
        side: ``above``: refutes that the candidate's rate is at most production's and the limit; ``below``: at least.
        limit: difference of the rates.
        capitals: logarithms of how much each part has grown, by stake.
        most: the most evidence that ever was.
        seen, counted, missed: production's outcomes so far, how many of them are left no more, and failures in those.
        failures: places of failures among those that are left.
        outcomes: of the candidate.
    """

    side: Literal["above", "below"]
    limit: float
    capitals: list[float] = field(default_factory=lambda: [0.0] * len(_STAKES))
    most: float = 0.0
    seen: int = 0
    counted: int = 0
    missed: int = 0
    failures: list[int] = field(default_factory=list)
    outcomes: int = 0

    @property
    def rate(self) -> float:
        """Of production's failures so far."""
        return (self.missed + len(self.failures)) / max(self.seen, 1)

    def before(self, failed: bool) -> None:
        """Take an outcome of production."""
        if failed:
            self.failures.append(self.seen)
        self.seen += 1

    def add(self, failed: bool) -> None:
        """Take an outcome of the candidate."""
        self.outcomes += 1
        # A little less than there are of them for each, so that there are always some left: short blocks win little.
        others = min(self.seen - self.counted, max(1, int(0.8 * self.seen / self.outcomes)))
        if not others:
            return
        # What is left over must not grow old: what both stand on may fail more often today than an hour ago.
        self._take(self.seen - self.counted - _LEFT * others)
        centre = min(0.5, (self.missed + 0.5) / (self.counted + 100.0))  # known before both
        failures = self._take(others)
        if self.side == "above":
            largest = min(1 / centre, others / (1 - centre))
        else:
            largest = -min(1 / (1 - centre), others / centre)
        self.capitals = [
            capital + _won(stake * largest, centre, failed, failures, others) - stake * largest * self.limit
            for capital, stake in zip(self.capitals, _STAKES, strict=True)
        ]
        self.most = max(self.most, _log_sum(self.capitals))

    def _take(self, outcomes: int) -> int:
        """Return how many of production's oldest outcomes that are left are failures; they are left no more."""
        self.counted += max(0, outcomes)
        failures = sum(place < self.counted for place in self.failures)
        self.failures, self.missed = self.failures[failures:], self.missed + failures
        return failures


@dataclass
class Bounds(Kept):
    """A confidence sequence: an interval of the mean that holds at all times together.

    By empirical Bernstein bounds with predictable weights (Waudby-Smith & Ramdas 2023, theorem 2): it shrinks with what
    the values were seen to vary.

    Args:
        low, high: what a value can be.
        level: chance that the interval ever misses the mean.
        n, total, squares: of values, scaled to [0, 1], their number, their sum, and squares about the mean before each.
        weights, weighted, spent: sums over values: of weights, of weighted values, of what the bound costs.
    """

    low: float
    high: float
    level: float = 0.05
    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    weights: float = 0.0
    weighted: float = 0.0
    spent: float = 0.0

    def add(self, value: float) -> None:
        """Take a value in ``[low, high]``."""
        x = (value - self.low) / (self.high - self.low)
        mean, variance = (0.5 + self.total) / (self.n + 1), (0.25 + self.squares) / (self.n + 1)
        self.n += 1
        budget = 2 * math.log(2 / self.level)
        weight = min(0.5, math.sqrt(budget / (variance * self.n * math.log(1 + self.n))))
        self.weights += weight
        self.weighted += weight * x
        self.spent += (x - mean) ** 2 * (-math.log1p(-weight) - weight)
        self.total += x
        self.squares += (x - (0.5 + self.total) / (self.n + 1)) ** 2

    @property
    def mean(self) -> float:
        """Of the values so far; without any the middle of what it can be."""
        return self.low + (self.high - self.low) * (self.total / self.n if self.n else 0.5)

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends."""
        if not self.n:
            return self.low, self.high
        centre, half = self.weighted / self.weights, (math.log(2 / self.level) + self.spent) / self.weights
        scale = self.high - self.low
        return self.low + scale * max(0.0, centre - half), self.low + scale * min(1.0, centre + half)


def _log_sum(capitals: list[float]) -> float:
    """Return the logarithm of all capital, from those of how much each part has grown."""
    top = max(capitals)
    return top + math.log(sum(part * math.exp(c - top) for part, c in zip(_PARTS, capitals, strict=True)))


def _won(stake: float, centre: float, failed: bool, failures: int, others: int) -> float:
    """Return the logarithm of what a stake on the candidate's outcome, and against production's, became."""
    against = stake / others
    lost = failures * math.log1p(-against * (1 - centre)) + (others - failures) * math.log1p(against * centre)
    return math.log1p(stake * (failed - centre)) + lost
