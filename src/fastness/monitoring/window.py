"""A window: items that belong together, of a stretch of time or a reference, as they were embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Window:
    """Items, and what is known of each; nothing of what they looked like.

    Attributes:
        vectors: float32 ``[N, D]``, finite.
        columns: by name float64 ``[N]``, NaN where missing, or texts ``[N]`` (objects), empty where missing. What a
            head answered stands in ``label``, ``confidence``, ``novelty`` and ``abstained``.
        ids: ``[N]``, as clients gave them, empty where they gave none; none at all: nobody was asked.
        at: int64 ``[N]``, microseconds since 1970 (UTC); none at all: unknown.

    Raises:
        BadInput: shapes do not fit each other, or a number is none; names the row.
    """

    vectors: Floats
    columns: Mapping[str, Array] = field(default_factory=dict)
    ids: Sequence[str] = ()
    at: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2:
            raise BadInput(f"vectors: have shape {self.vectors.shape}; give one row an item, [N, D]")
        lengths = {"ids": len(self.ids), "at": len(self.at)}
        for name, length in {k: v for k, v in lengths.items() if v}.items():
            if length != len(self):
                raise BadInput(f"{name}: {length} values for {len(self)} items; give one each")
        for name, column in self.columns.items():
            if column.shape != (len(self),):
                raise BadInput(f"column '{name}': has shape {column.shape} for {len(self)} items; give one value each")
        wrong = ~np.isfinite(self.vectors).all(1)
        if wrong.any():
            raise BadInput(f"vectors: row {int(wrong.argmax())} holds a number that is none; leave it out")

    def __len__(self) -> int:
        return len(self.vectors)

    def select(self, rows: Array) -> Window:
        """Return some of the items: positions ``[M]``, or a mask ``[N]``."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        ids = [self.ids[int(i)] for i in rows] if len(self.ids) else []
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Window(self.vectors[rows], columns, ids, self.at[rows] if len(self.at) else self.at)
