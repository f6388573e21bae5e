"""Things with several sides: two or more columns of one file that describe the same thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.data.dataset import Dataset
from fastness.data.items import Floats, Items, Positions
from fastness.data.manifest import Manifest, hash_items

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SideItems(Items):
    """Things made ready side by side: item i of each side is a side of thing i."""

    dataset: Dataset
    sides: dict[str, Items]

    def batch(self, positions: Positions) -> Any:
        """Return one batch a side."""
        return tuple(side.batch(positions) for side in self.sides.values())

    def select(self, rows: npt.NDArray[np.generic]) -> SideItems:
        """Return the things at ``rows`` (positions or a mask)."""
        return SideItems(self.dataset.select(rows), {name: side.select(rows) for name, side in self.sides.items()})

    def on(self, device: torch.device) -> SideItems:
        """See `Items.on`."""
        return SideItems(self.dataset, {name: side.on(device) for name, side in self.sides.items()})

    def plain(self, known: SideItems) -> Floats:
        """Return the sides' plain vectors one after the other."""
        return np.concatenate([side.plain(known.sides[name]) for name, side in self.sides.items()], 1)

    def traits(self) -> dict[str, Floats]:
        """Return the traits of every side, under its name."""
        found = {name: side.traits() for name, side in self.sides.items()}
        return {f"{name}_{trait}": values for name, traits in found.items() for trait, values in traits.items()}


def side_by_side(dataset: Dataset, prepare: Mapping[str, Callable[[Dataset], Items]]) -> SideItems:
    """Make each side ready and keep the things of which every side can be used.

    Args:
        dataset: things with sides.
        prepare: what makes each side ready.
    """
    sides = sides_of(dataset)
    made = {name: make(sides[name]) for name, make in prepare.items()}
    usable = np.ones(len(dataset), np.bool_)
    for items in made.values():
        usable &= np.isin(dataset.rows, items.dataset.rows)
    read = [dataset, *(items.dataset for items in made.values())]
    quarantine = tuple(dict.fromkeys(chain.from_iterable(side.quarantine for side in read)))
    kept = dataset.rows[usable]
    chosen = {name: items.select(np.isin(items.dataset.rows, kept)) for name, items in made.items()}
    handled = dict(chain.from_iterable(side.handled.items() for side in read))
    return SideItems(replace(dataset, rows=kept, quarantine=quarantine, handled=handled), chosen)


def sides_of(dataset: Dataset) -> dict[str, Dataset]:
    """Return the sides of a data set of things with several, by name; a data set of items is its own only side."""
    found: dict[str, Dataset] = getattr(dataset.payloads, "sides", {dataset.modality: dataset})
    return {name: replace(side, rows=dataset.rows) for name, side in found.items()}


Right = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
"""Says of asking things at positions ``[B]`` which things ``[N]`` answer them, bool ``[B, N]``."""


def right_answers(things: Dataset, asking: str, answering: str) -> Right:
    """Return what says whose side ``answering`` is a right answer to whose side ``asking``.

    It is if the two stand in one thing, or in two of one group. Sides with the same bytes are the same side: a question
    that stands there twice has two right answers. Nothing is concluded further: that two questions have an answer in
    common does not make the one's other answers right for the other.
    """
    from scipy.sparse import coo_matrix

    sides, number = sides_of(things), len(things)
    groups = np.arange(number)
    if things.manifest.groups is not None:
        names, named = np.unique(things.manifest.groups, return_inverse=True)
        groups = np.where(names[named] == "", len(names) + groups, named)

    def distinct(name: str) -> tuple[npt.NDArray[np.int64], Any]:
        """Return which distinct item each thing has on a side, and in which groups each of these stands."""
        hashes = sides[name].manifest.hashes
        items = np.unique(hashes, axis=0, return_inverse=True)[1].reshape(-1)
        shape = (int(items.max(initial=-1)) + 1, int(groups.max(initial=-1)) + 1)
        return items, coo_matrix((np.ones(number, np.int32), (items, groups)), shape=shape).tocsr()

    questions, asked = distinct(asking)
    answers, told = distinct(answering)
    told = told.T.tocsr()

    def right(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = (asked[questions[positions]] @ told).toarray()[:, answers] > 0
        return found

    return right


@dataclass(frozen=True)
class StackedPayloads:
    """The items of all sides, those of the first side first."""

    parts: tuple[Dataset, ...]

    def read(self, row: int) -> Any:
        """Return item ``row`` of all."""
        part, own = divmod(row, len(self.parts[0].whole))
        return self.parts[part].payloads.read(own)


def stacked(dataset: Dataset) -> Dataset:
    """Return the items of all sides, which are of one modality, as one data set without labels."""
    sides = tuple(sides_of(dataset).values())
    number = len(dataset.whole)
    manifest = Manifest(
        [name for side in sides for name in side.whole.names],
        np.concatenate([side.whole.hashes for side in sides]),
        source=dataset.whole.source,
    )
    rows = np.concatenate([dataset.rows + i * number for i in range(len(sides))])
    return Dataset(manifest, StackedPayloads(sides), rows, dataset.quarantine, modality=sides[0].modality)


@dataclass(frozen=True)
class SidePayloads:
    """The sides of each item, each a data set of its own whose rows are in step with the others'."""

    sides: dict[str, Dataset]

    def read(self, row: int) -> dict[str, Any]:
        """Return what each side reads for item ``row``."""
        return {name: side.payloads.read(row) for name, side in self.sides.items()}


def joined(opened: Sequence[Dataset], names: Sequence[str]) -> Dataset:
    """Return the data set of things whose sides are the items of ``opened``.

    Args:
        opened: data sets of the same file, item by item.
        names: of the sides, all different.

    Raises:
        BadInput: they differ in length.
    """
    first = opened[0]
    if any(len(side.whole) != len(first.whole) for side in opened):
        counts = ", ".join(f"{name}: {len(side.whole)}" for name, side in zip(names, opened, strict=True))
        raise BadInput(f"{first.whole.source}: the sides have different numbers of items ({counts})")
    hashes = hash_items(
        b"".join(hash_.tobytes() for hash_ in row) for row in zip(*(s.whole.hashes for s in opened), strict=True)
    )
    sides = dict(zip(names, opened, strict=True))
    rows = first.rows
    for side in opened[1:]:
        rows = rows[np.isin(rows, side.rows)]
    quarantine = tuple(dict.fromkeys(q for side in opened for q in side.quarantine))
    facts = {name: cells for name, cells in first.whole.facts.items() if name not in sides}
    whole = replace(first.whole, hashes=hashes, facts=facts)
    return Dataset(whole, SidePayloads(sides), rows, quarantine, modality="sides")
