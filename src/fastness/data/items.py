"""Items made ready for an encoder: numbers in memory or mapped from disk, nothing left to be read or decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import numpy.typing as npt

from fastness.data.dataset import Dataset

if TYPE_CHECKING:
    import torch

Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (items done, items in all) now and then."""


class Items(Protocol):
    """What an encoder and its views take their batches from; every modality has its own.

    A batch is one tensor whose first dimension is the item: pixels uint8 ``[B, 3, S, S]``, tokens int32 ``[B, L]``
    with -1 behind the end, cells float32 ``[B, C]`` with NaN where missing. Of things with several sides it is a
    tuple, one batch a side.
    """

    @property
    def dataset(self) -> Dataset:
        """The items that can be used; the others are in its quarantine."""
        ...

    def __len__(self) -> int: ...

    def batch(self, positions: Positions) -> torch.Tensor:
        """Return the items at ``positions`` of the dataset as one batch."""
        ...

    def batches(self, size: int) -> Iterator[tuple[Positions, torch.Tensor]]:
        """Yield every item once, in whatever order is quickest, with its position; about ``size`` a batch."""
        ...

    def select(self, rows: npt.NDArray[np.generic]) -> Self:
        """Return the items at ``rows`` (positions or a mask)."""
        ...

    def on(self, device: torch.device) -> Self:
        """Return the same items, kept on an accelerator if there is room for them."""
        ...

    def plain(self, known: Self) -> Floats:
        """Return what a model without any encoder would look at, float32 ``[N, K]``.

        Args:
            known: items by which scales and vocabularies are chosen.
        """
        ...

    def traits(self) -> dict[str, Floats]:
        """Return what can be told of each item by looking, float32 ``[N]`` by name: brightness, words …"""
        ...
