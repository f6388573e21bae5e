"""Rows as people hand them to a runtime: mappings from column to number, date or text."""

from __future__ import annotations

import datetime
import math
from typing import Any

from fastness.data.schema import Category
from fastness.data.table import TableItems

_EPOCH = datetime.datetime(1970, 1, 1)


def as_mappings(items: TableItems) -> list[dict[str, Any]]:
    """Return rows as mappings from column to number, date (ISO 8601) or text as it stands, ``None`` where missing."""
    columns = list(items.schema.used.items())
    found = []
    for row, cells in zip(items.dataset.rows, items.cells, strict=True):
        texts = items.dataset.payloads.read(int(row))
        found.append(
            {
                name: _value(column, float(cell), texts.get(name))
                for (name, column), cell in zip(columns, cells, strict=True)
            }
        )
    return found


def _value(column: Any, cell: float, text: str | None) -> Any:
    if math.isnan(cell):
        return None
    if isinstance(column, Category):
        return text
    value = cell + column.origin
    return (_EPOCH + datetime.timedelta(days=value)).isoformat() if column.kind == "date" else value
