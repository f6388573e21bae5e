"""A reservoir: of a stream of unknown length every item is kept with the same chance."""

from __future__ import annotations

import math
import random

from fastness.core.seeds import derive


class Reservoir:
    """Says which items are kept, and in whose place; Algorithm L of Li 1994, ACM TOMS 20(4), 481-493.

    It knows in advance which item is taken next, so that those between cost a comparison together.

    Args:
        most: items that are kept.
        seed: of every random choice.

    Attributes:
        passed: items that have come by.
    """

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.passed = most, 0
        self._random = random.Random(derive(seed, "reservoir"))
        self._next, self._share = 0, 1.0

    def taken(self, n: int) -> list[tuple[int, int]]:
        """Let n items come by; return the position of each that is taken and the place that it gets, in order.

        A place that is filled, or is said twice, is the last one's.
        """
        start, found = self.passed, []
        self.passed += n
        while self._next < self.passed:
            found.append((self._next - start, self._place()))
        return found

    def _place(self) -> int:
        """Return the place of the next item, and find out which is taken after it."""
        place = self._next if self._next < self.most else self._random.randrange(self.most)
        self._next += 1
        if self._next >= self.most:
            self._share *= math.exp(self._log() / self.most)
            self._next += math.floor(self._log() / math.log1p(-min(self._share, 1 - 1e-12)))
        return place

    def _log(self) -> float:
        """Return the logarithm of a number that is uniform in (0, 1]."""
        return math.log(1 - self._random.random())
