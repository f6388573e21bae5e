"""What the world does to inputs: corruptions in five severities, batched and seeded.

A corruption is a function with the amounts of its severities, registered by its name; a `World` applies those of a
modality to a `Scene`. The same seed gives the same bytes in any process (a GPU draws other numbers than a CPU). A world
also hides the parts of an item one after the other, by which the report explains similarities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fastness.core.errors import BadInput
from fastness.core.registry import Registry
from fastness.data import Dataset
from fastness.data.items import Items, Positions

if TYPE_CHECKING:
    import torch

SEVERITIES = (1, 2, 3, 4, 5)
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Batches = Iterator[tuple[Positions, "torch.Tensor"]]


def at_severity(amounts: Sequence[T], severity: int) -> T:
    """Return the amount at a severity.

    Raises:
        BadInput: no such severity.
    """
    if severity not in SEVERITIES:
        raise BadInput(f"severity {severity}: severities are 1 to 5")
    return amounts[severity - 1]


def corruption_of(
    registry: Registry[T], kind: Callable[[str, F, tuple[Any, ...]], T]
) -> Callable[..., Callable[[F], F]]:
    """Return what makes decorators: ``@corruption(name, *amounts)`` registers a function as the corruption ``name``.

    Args:
        registry: of the corruptions of one modality.
        kind: makes a corruption of a name, a function and the amounts.
    """

    def corruption(name: str, *amounts: Any) -> Callable[[F], F]:
        def enter(function: F) -> F:
            registry.register(name)(kind(name, function, amounts))
            return function

        return enter

    return corruption


@dataclass(frozen=True)
class Scene:
    """Items to which something happens.

    Attributes:
        items: the items.
        known: training items, for the scales of what happens.
        prepare: makes a data set of the same kind ready.
        device: where batches are wanted.
    """

    items: Items
    known: Items
    prepare: Callable[[Dataset], Items]
    device: torch.device


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
    def corrupted(self, scene: Scene, name: str, severity: int, seed: int) -> Batches:
        """Yield all items, corrupted, as batches with their positions; what is no longer readable is left out.

        The same arguments give the same, whatever was corrupted before.

        Raises:
            BadInput: no such corruption or severity.
        """

    @abstractmethod
    def hidden(self, scene: Scene, position: int) -> tuple[list[str], Batches]:
        """Return the names of an item's parts, and the item as often as it has parts, each time without one of them.

        A part is a cell of an 8 × 8 grid of a picture, row by row; a word; a cell of a table's row that is there.

        Args:
            position: of the item among those of the scene.
        """


WORLDS: Registry[World] = Registry(
    "world of corruptions", "fastness.corruptions", {"image": "image", "text": "text", "table": "table"}
)
"""By modality."""
