"""Items made ready for an encoder: numbers in memory or mapped from disk, nothing left to be read or decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from fastness.data.dataset import Dataset

if TYPE_CHECKING:
    import torch

Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (items done, items in all) now and then."""


class Items(ABC):
    """What an encoder and its views take their batches from; every modality has its own.

    A batch is one tensor whose first dimension is the item: pixels uint8 ``[B, 3, S, S]``, tokens int32 ``[B, L]``
    with -1 behind the end, cells float32 ``[B, C]`` with NaN where missing. Of things with several sides it is a
    tuple, one batch a side.

    Attributes:
        dataset: the items that can be used; the others are in its quarantine.
    """

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    @abstractmethod
    def batch(self, positions: Positions) -> torch.Tensor:
        """Return the items at ``positions`` of the dataset as one batch."""

    def batches(self, size: int) -> Iterator[tuple[Positions, torch.Tensor]]:
        """Yield every item once with its position, about ``size`` a batch: in order, or whatever is quicker."""
        for start in range(0, len(self), size):
            positions = np.arange(start, min(start + size, len(self)))
            yield positions, self.batch(positions)

    @abstractmethod
    def select(self, rows: npt.NDArray[np.generic]) -> Self:
        """Return the items at ``rows`` (positions or a mask)."""

    def on(self, device: torch.device) -> Self:
        """Return the same items, kept on an accelerator if that is worth it."""
        return self

    @abstractmethod
    def plain(self, known: Self) -> Floats:
        """Return what a model without any encoder would look at, float32 ``[N, K]``.

        Args:
            known: items by which scales and vocabularies are chosen.
        """

    @abstractmethod
    def traits(self) -> dict[str, Floats]:
        """Return what can be told of each item by looking, float32 ``[N]`` by name: brightness, words …"""
