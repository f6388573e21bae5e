"""What the world does to inputs: corruptions in five severities, batched and seeded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from fastness.core.errors import BadInput
from fastness.core.registry import Registry
from fastness.data import Dataset
from fastness.data.items import Items, Positions

if TYPE_CHECKING:
    import torch

SEVERITIES = (1, 2, 3, 4, 5)
T = TypeVar("T")


def at_severity(amounts: Sequence[T], severity: int) -> T:
    """Return the amount at a severity.

    Raises:
        BadInput: no such severity.
    """
    if severity not in SEVERITIES:
        raise BadInput(f"severity {severity}: severities are 1 to 5")
    return amounts[severity - 1]


class World(ABC):
    """What may happen to the items of one modality.

    Attributes:
        names: of all its corruptions.
        common: of those over which means are taken.
        source: where their definitions come from, for protocols.
    """

    names: tuple[str, ...]
    common: tuple[str, ...]
    source: str

    @abstractmethod
    def corrupted(
        self,
        items: Items,
        name: str,
        severity: int,
        seed: int,
        *,
        known: Items,
        prepare: Callable[[Dataset], Items],
        device: torch.device,
    ) -> Iterator[tuple[Positions, torch.Tensor]]:
        """Yield all items, corrupted, as batches with their positions; what is no longer readable is left out.

        The same arguments give the same, whatever was corrupted before.

        Args:
            known: training items, for the scales of what happens.
            prepare: makes a data set of the same kind ready.
            device: where batches are wanted.

        Raises:
            BadInput: no such corruption or severity.
        """

    @abstractmethod
    def hidden(
        self, items: Items, position: int, *, prepare: Callable[[Dataset], Items], device: torch.device
    ) -> tuple[list[str], Iterator[tuple[Positions, torch.Tensor]]]:
        """Return the names of an item's parts, and the item as often as it has parts, each time without one of them.

        A part is a cell of an 8 × 8 grid of a picture, row by row; a word; a cell of a table's row that is there.

        Args:
            items: among which the item is.
            position: of the item.
            prepare, device: see `corrupted`.
        """


WORLDS: Registry[World] = Registry(
    "world of corruptions", "fastness.corruptions", {"image": "image", "text": "text", "table": "table"}
)
"""By modality."""
