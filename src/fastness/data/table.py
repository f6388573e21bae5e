"""Tables: rows as their source has them, and as numbers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastness.data.dataset import Dataset
from fastness.data.frame import Frame
from fastness.data.items import Floats, Items, Positions
from fastness.data.schema import Category, Schema

if TYPE_CHECKING:
    import torch

_WORTH_SAYING = (10, 0.05)  # cells of a column, and share of them
_FAR = 10.0  # standard deviations


@dataclass(frozen=True)
class TablePayloads:
    """The columns of a table that are features."""

    frame: Frame

    def read(self, row: int) -> dict[str, str]:
        """Return the cells of a row by column; columns without one are left out."""
        cells = ((name, cells[row].as_py()) for name, cells in self.frame.columns.items())
        return {name: text for name, text in cells if text is not None}


@dataclass(frozen=True)
class TableItems(Items):
    """A data set's rows as numbers; see `Coded`.

    Attributes:
        dataset: the rows.
        schema: by which they were coded.
        cells: float32 ``[N, C]``, NaN where missing.
    """

    dataset: Dataset
    schema: Schema
    cells: npt.NDArray[np.float32]
    resident: torch.Tensor | None = None  # the same, on an accelerator

    def batch(self, positions: Positions) -> torch.Tensor:
        """Return the rows at ``positions`` of the dataset, float32 ``[B, C]``."""
        import torch

        if self.resident is not None:
            return self.resident[torch.from_numpy(positions).to(self.resident.device)]
        return torch.from_numpy(self.cells[positions])

    def select(self, rows: npt.NDArray[np.generic]) -> TableItems:
        """Return the rows at ``rows`` (positions or a mask)."""
        return TableItems(self.dataset.select(rows), self.schema, self.cells[rows])

    def on(self, device: torch.device) -> TableItems:
        """See `Items.on`."""
        import torch

        return self if device.type == "cpu" else replace(self, resident=torch.from_numpy(self.cells).to(device))

    def plain(self, known: TableItems) -> Floats:
        """Return numbers and dates standardised by ``known``, and a column for each value of each category.

        A missing number is the mean, and has a further column that says so if ``known`` misses some too. A missing
        category is none of its values; one that is not listed has a column of its own.
        """
        parts: list[Floats] = []
        for place, column in enumerate(self.schema.used.values()):
            mine, theirs = self.cells[:, place], known.cells[:, place]
            if isinstance(column, Category):
                parts.append((mine[:, None] == np.arange(len(column.values) + 1)).astype(np.float32))
                continue
            seen = theirs[~np.isnan(theirs)].astype(np.float64)
            mean, scale = (float(seen.mean()), float(seen.std())) if len(seen) else (0.0, 0.0)
            standard = np.clip((mine - mean) / (scale or 1.0), -_FAR, _FAR)
            parts.append(np.nan_to_num(standard, nan=0.0).astype(np.float32)[:, None])
            if len(seen) < len(theirs):
                parts.append(np.isnan(mine).astype(np.float32)[:, None])
        return np.concatenate(parts, 1)

    def traits(self) -> dict[str, Floats]:
        """Return ``missing``, how many cells of a row are not there."""
        return {"missing": np.isnan(self.cells).sum(1).astype(np.float32)}


def frame_of_rows(dataset: Dataset) -> Frame:
    """Return the frame of a data set's own rows, in order."""
    assert isinstance(dataset.payloads, TablePayloads)
    frame = dataset.payloads.frame
    whole = len(dataset.rows) == len(frame) and bool((np.diff(dataset.rows) == 1).all())
    return frame if whole else frame.take(dataset.rows)


def coded(dataset: Dataset, schema: Schema) -> TableItems:
    """Return a data set's rows as numbers; cells that are strange to the schema are counted in its ``handled``.

    Says in a line where more than 5% of a column's cells are.

    Raises:
        BadInput: a column that the schema uses is not there.
    """
    found = schema.code(frame_of_rows(dataset))
    kinds = {
        "values that training did not list": found.unseen,
        "values beyond those of training": found.outside,
        "cells that cannot be read": found.unreadable,
    }
    counted = [(name, what, count) for what, counts in kinds.items() for name, count in counts.items()]
    strange = [
        f"column '{name}' has {count / len(dataset):.0%} {what}"
        for name, what, count in counted
        if count >= _WORTH_SAYING[0]
        and count / len(dataset) > _WORTH_SAYING[1] + getattr(schema.used[name], "others", 0.0)
    ]
    if strange:
        logging.getLogger("fastness").warning("%s: %s", dataset.whole.source, "; ".join(strange[:5]))
    handled = {**dataset.handled, **{f"column '{name}': {what}": count for name, what, count in counted}}
    return TableItems(replace(dataset, handled=handled), schema, found.cells)
