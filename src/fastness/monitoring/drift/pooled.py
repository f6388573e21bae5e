"""What a drift test is: it names what it compares in the items of both windows, and the statistics that do it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastness.core.registry import Registry
from fastness.core.seeds import numpy_generator
from fastness.evaluation.slices import Slice

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
Labels = Floats
"""Which items are of the reference, 1 or 0 ``[P, N]``: each row an assignment, each of n ones."""

SHARES = {"embeddings": 0.5, "column": 0.25, "slice": 0.25}
"""What part of the level each kind of thing has, together; what is not there leaves its part to the others."""


@dataclass(frozen=True)
class Pooled:
    """The items of both windows together.

    Attributes:
        vectors: ``[N, D]``, around their mean.
        columns: known of both windows' items, float64 ``[N]`` or texts ``[N]``.
        slices: those asked for.
        n, m: items of the reference, and of the window; N = n + m.
        seed: of what is drawn.
    """

    vectors: Floats
    columns: Mapping[str, Array]
    slices: Sequence[Slice]
    n: int
    m: int
    seed: int

    @property
    def evenness(self) -> float:
        """Share of the reference times share of the window."""
        return self.n * self.m / (self.n + self.m) ** 2

    def drawn(self) -> Ints:
        """Return the items in an order ``[N]`` that looks random, and depends on their vectors alone.

        So it is the same whichever items are called the reference, as a permutation test wants it of all that is drawn.
        Items of one vector follow each other in an order that is drawn, not in that of the windows.
        """
        bits = np.ascontiguousarray(self.vectors).view(np.uint32)
        factors = numpy_generator(self.seed, "drawn").integers(0, 2**63, bits.shape[1], np.uint64) * 2 + 1
        keys = np.zeros(len(bits), np.uint64)
        for column, factor in zip(bits.T, factors, strict=True):
            keys += column * factor  # wraps round, as multiplicative hashing wants it
        lots = numpy_generator(self.seed, "ties").permutation(len(bits))
        return lots[np.argsort(keys[lots] >> np.uint64(16), kind="stable")].astype(np.int64)


@dataclass(frozen=True)
class Member:
    """One thing that a test compares.

    Attributes:
        what: ``embeddings``, a column, or a slice's expression.
        kind: of `SHARES`.
        statistics: from labels ``[P, N]`` to ``[S, P]``, larger = more different, by S settings.
        effect: from a statistic less its mean under permutations, to ``unit``; grows.
        unit: of the effect.
        weights: what each of the S settings counts.
    """

    what: str
    kind: str
    statistics: Callable[[Labels], Numbers]
    effect: Callable[[float], float]
    unit: str
    weights: Sequence[float] = (1.0,)


class Test(ABC):
    """Compares one aspect of the items.

    Attributes:
        floor: the smallest effect that counts unless another is asked for.
        usual: runs unless tests are named.
    """

    floor: ClassVar[float]
    usual: ClassVar[bool] = True

    @abstractmethod
    def members(self, pooled: Pooled) -> Iterable[Member]:
        """Return what is compared; nothing, if nothing of it is there."""


DRIFT: Registry[type[Test]] = Registry(
    "drift test",
    "fastness.monitoring.drift",
    {
        "mean": "mean",
        "mmd": "mmd",
        "classifier": "classifier",
        "numbers": "numbers",
        "categories": "categories",
        "share": "share",
        "within": "within",
    },
)


def root(excess: float) -> float:
    """Return an effect of its square less what that is by chance; negative if it is less than by chance."""
    return float(np.sign(excess) * np.sqrt(abs(excess)))
