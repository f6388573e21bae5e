"""Corruptions of tables' rows: missing cells, noise, mistaken units, exchanged columns; in five severities.

They act on coded cells, float32 ``[N, C]`` with NaN where missing (see `data.schema`), so that what follows meets them
as it meets a real row: a missing cell as missing, a number beyond those of training as such.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fastness.core.registry import Registry
from fastness.core.seeds import numpy_generator
from fastness.corruptions import WORLDS, Batches, Scene, World, at_severity, corruption_of
from fastness.data.schema import Category, Schema
from fastness.data.table import TableItems

_UNITS = (0.001, 0.01, 0.1, 10.0, 100.0, 1000.0)

Cells = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """What is known of the columns.

    Attributes:
        known: coded training rows ``[M, C]``, from which other values are drawn.
        numbers, categories: places of the measured columns (numbers and dates) and of the others.
        origin: of each column, what its coded zero stands for.
        values: of each column, the values of its codes; none of a measured one.
    """

    known: Cells
    numbers: Places
    categories: Places
    origin: npt.NDArray[np.float64]
    values: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, schema: Schema, known: Cells) -> Columns:
        """Return the columns of a schema."""
        used = list(schema.used.values())
        listed = np.array([isinstance(column, Category) for column in used], bool)
        origin = np.array([getattr(column, "origin", 0.0) for column in used], np.float64)
        values = tuple(getattr(column, "values", ()) for column in used)
        return cls(known, np.flatnonzero(~listed), np.flatnonzero(listed), origin, values)

    def moved(self, code: float, place: int, other: int) -> float:
        """Return how a cell of one column is coded in another of its kind: a value that is unknown there as such."""
        if np.isnan(code) or place in self.numbers:
            return float(code + self.origin[place] - self.origin[other])
        mine, theirs = self.values[place], self.values[other]
        value = mine[int(code)] if code < len(mine) else None
        return float(theirs.index(value)) if value in theirs else float(len(theirs))


Function = Callable[[Cells, Columns, float, np.random.Generator], None]


@dataclass(frozen=True)
class TableCorruption:
    """One kind of corruption.

    Attributes:
        name: its name, which is part of the seed.
        function: changes cells in place, given what is known of the columns, an amount and a generator.
        amounts: at severities 1 to 5.
    """

    name: str
    function: Function
    amounts: tuple[float, ...]

    def __call__(self, cells: Cells, columns: Columns, severity: int, seed: int) -> Cells:
        """Return corrupted cells, float32 ``[N, C]``.

        Raises:
            BadInput: no such severity.
        """
        amount = at_severity(self.amounts, severity)
        out = cells.copy()
        self.function(out, columns, amount, numpy_generator(seed, self.name, severity))
        return out


TABLE_CORRUPTIONS: Registry[TableCorruption] = Registry("corruption of tables", "fastness.corruptions", {})


corruption = corruption_of(TABLE_CORRUPTIONS, TableCorruption)


@corruption("missing", 0.05, 0.1, 0.2, 0.35, 0.5)
def missing(cells: Cells, columns: Columns, share: float, generator: np.random.Generator) -> None:
    """Empty a share of all cells."""
    cells[generator.random(cells.shape) < share] = np.nan


@corruption("noise", 0.1, 0.2, 0.4, 0.7, 1.0)
def noise(cells: Cells, columns: Columns, amount: float, generator: np.random.Generator) -> None:
    """Add normal noise of so many standard deviations to numbers; a third of that share of categories is drawn anew."""
    for place in columns.numbers:
        seen = columns.known[:, place]
        seen = seen[~np.isnan(seen)].astype(np.float64)
        if len(seen):
            cells[:, place] += (amount * seen.std() * generator.normal(size=len(cells))).astype(np.float32)
    for place in columns.categories:
        drawn = columns.known[generator.integers(len(columns.known), size=len(cells)), place]
        chosen = generator.random(len(cells)) < amount / 3
        cells[chosen, place] = drawn[chosen]


@corruption("unit_mistake", 0.05, 0.1, 0.2, 0.35, 0.5)
def unit_mistake(cells: Cells, columns: Columns, share: float, generator: np.random.Generator) -> None:
    """Multiply one number in a share of the rows by a thousandth to a thousand."""
    if not len(columns.numbers):
        return
    rows = np.flatnonzero(generator.random(len(cells)) < share)
    lots = generator.random((len(rows), len(columns.numbers)))
    lots[np.isnan(cells[np.ix_(rows, columns.numbers)])] = -1  # a missing cell has no unit
    places = columns.numbers[lots.argmax(1)]
    factors = np.array(_UNITS)[generator.integers(len(_UNITS), size=len(rows))]
    whole = cells[rows, places].astype(np.float64) + columns.origin[places]
    limit = float(np.finfo(np.float32).max)
    cells[rows, places] = np.clip(whole * factors - columns.origin[places], -limit, limit).astype(np.float32)


@corruption("column_swap", 0.05, 0.1, 0.2, 0.35, 0.5)
def column_swap(cells: Cells, columns: Columns, share: float, generator: np.random.Generator) -> None:
    """Exchange two cells of one kind in a share of the rows: numbers, or categories where there are more of them."""
    places = max(columns.numbers, columns.categories, key=len)
    if len(places) < 2:
        return
    rows = np.flatnonzero(generator.random(len(cells)) < share)
    two = places[generator.random((len(rows), len(places))).argsort(1)[:, :2]]
    for row, (one, other) in zip(rows, two, strict=True):
        cells[row, [one, other]] = (
            columns.moved(cells[row, other], other, one),
            columns.moved(cells[row, one], one, other),
        )


class TableWorld(World):
    """Corruptions of rows' cells."""

    names = tuple(TABLE_CORRUPTIONS)
    common = names
    source = "missing cells, noise, mistaken units, exchanged columns"

    def corrupted(self, scene: Scene, name: str, severity: int, seed: int) -> Batches:
        """See `World.corrupted`."""
        items, known = scene.items, scene.known
        assert isinstance(items, TableItems) and isinstance(known, TableItems)
        columns = Columns.of(items.schema, known.cells)
        cells = torch.from_numpy(TABLE_CORRUPTIONS.get(name)(items.cells, columns, severity, seed))
        for start in range(0, len(cells), 1024):
            batch = cells[start : start + 1024]
            yield np.arange(start, start + len(batch)), batch.to(scene.device)

    def hidden(self, scene: Scene, position: int) -> tuple[list[str], Batches]:
        """See `World.hidden`; a hidden cell is missing."""
        items = scene.items
        assert isinstance(items, TableItems)
        row = items.cells[position]
        there = np.flatnonzero(~np.isnan(row))
        without = np.tile(row, (len(there), 1))
        without[np.arange(len(there)), there] = np.nan
        columns = list(items.schema.used)
        shown = items.dataset.payloads.read(int(items.dataset.rows[position]))
        names = [f"{columns[place]}: {shown.get(columns[place], '')}" for place in there]
        return names, iter([(np.arange(len(there)), torch.from_numpy(without).to(scene.device))])


WORLDS.register("table")(TableWorld())
