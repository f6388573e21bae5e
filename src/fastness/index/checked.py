"""Ids and metadata as every index takes them: checked, missing values told, one type a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastness.core.conditions import NUMBER, TEXT
from fastness.core.errors import BadInput

Value = float | str | None


def checked_ids(ids: Sequence[str]) -> list[str]:
    """Return ids as a list.

    Raises:
        BadInput: one is no text that a database can keep, or comes twice.
    """
    for name in ids:
        if not isinstance(name, str) or not name or not _kept(name):
            raise BadInput(f"id {name!r:.100}: must be a text that is not empty, of valid Unicode without NUL")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BadInput(f"id '{twice[:100]}' comes twice in one call; give each item once")
    return list(ids)


def checked_columns(
    ids: list[str], metadata: Mapping[str, Sequence[Any]], known: Mapping[str, str]
) -> tuple[dict[str, list[Value]], dict[str, str]]:
    """Return columns with ``None`` where a value is missing, and which kind each is.

    Raises:
        BadInput: a column has another length, or numbers and texts in one; names the item.
    """
    columns: dict[str, list[Value]] = {}
    kinds: dict[str, str] = {}
    for name, values in metadata.items():
        if len(values) != len(ids):
            raise BadInput(f"column '{name}' has {len(values)} values for {len(ids)} items")
        if not name or not _kept(name):
            raise BadInput(f"column {name!r:.100}: must be a text that is not empty, of valid Unicode without NUL")
        cells = columns[name] = [_value(value, name, ids[i]) for i, value in enumerate(values)]
        kind = known.get(name)
        for i, value in enumerate(cells):
            own = kind if value is None else TEXT if isinstance(value, str) else NUMBER
            if kind is not None and own != kind:
                raise BadInput(f"column '{name}' holds {kind}s; item '{ids[i][:100]}' has {value!r:.100}")
            kind = own
        if kind is None:
            del columns[name]  # nothing is said of any item
        else:
            kinds[name] = kind
    return columns, kinds


def _value(value: Any, column: str, item: str) -> Value:
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, str) and _kept(value):
        return str(value)
    if isinstance(value, int | float | np.number | np.bool_) and np.isfinite(number := float(value)):
        return number
    raise BadInput(f"column '{column}', item '{item[:100]}': {value!r:.100} is no finite number and no text")


def _kept(text: str) -> bool:
    """Whether a database can keep a text: no NUL, no half of a surrogate pair."""
    return "\0" not in text and (text.isascii() or text.encode("utf-8", "ignore").decode() == text)
