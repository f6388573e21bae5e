"""Slices: parts of the items that something is known of, by a column's value or by an expression."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from fastness.core.conditions import NUMBER, TEXT, Columns, Mask, columns_in, holds, missing, parse
from fastness.core.errors import BadInput
from fastness.data import Dataset
from fastness.data.facts import typed
from fastness.data.items import Items

LABEL = "label"
_VALUES = 20  # a column of more texts than these names no slices of itself
_CLASSES = 100
_CELL = 100  # characters of a cell that are kept
_USUAL = 200  # slices that nobody asked for
_MOST = 1000  # values of a column that was asked for
_TAIL = 0.2  # share of the items with the lowest, and with the highest values of a number
_WORD = re.compile(r"\w{2,}")


@dataclass(frozen=True)
class Slice:
    """A named part of the items.

    Attributes:
        name: ``all``, ``label == 'cat'``, or the expression.
        mask: bool ``[N]``, which items are in it.
    """

    name: str
    mask: Mask


def known_of(dataset: Dataset, items: Items | None = None) -> dict[str, npt.NDArray[Any]]:
    """Return what is known of a data set's items: their label, the source's facts, and what can be told by looking.

    Facts that are free text, with more than a thousand different cells, are left out; long cells are cut.

    Args:
        items: the same items made ready, to look at.
    """
    traits = {} if items is None else items.traits()
    found: dict[str, npt.NDArray[Any]] = {name: values.astype(np.float64) for name, values in traits.items()}
    for name, cells in dataset.whole.facts.items():
        values = typed(cells)  # of all items, so that every part of them has the same type
        if not isinstance(values, np.ndarray):
            cut = pc.utf8_slice_codeunits(values, 0, _CELL)
            if pc.count_distinct(cut).as_py() > _MOST:
                continue
            values = np.array(cut.to_pylist(), np.str_)
        found[name] = values[dataset.rows]
    if dataset.labels is not None:
        found[LABEL] = np.array([*dataset.class_names, ""], np.str_)[dataset.labels]
    return found


def usual(columns: Columns) -> list[Slice]:
    """Return the slices that nobody needs to ask for.

    Of every column of texts with 2 to 20 different ones (of the label up to 100) one for each; of every column of
    numbers with few different ones the same, else the fifth of the items with the lowest and with the highest.
    """
    found: list[Slice] = []
    for name, values in columns.items():
        there = values[~missing(values)]
        different = len(np.unique(there))
        if 2 <= different <= (_CLASSES if name == LABEL else _VALUES if values.dtype.kind == "U" else 10):
            found += by_value(name, columns)
        elif values.dtype.kind == "f" and different > 10:
            # Rounded, and the slice with it, so that its name selects what it holds.
            low, high = (float(f"{cut:.4g}") for cut in np.quantile(there, [_TAIL, 1 - _TAIL]))
            found += [
                Slice(f"{named(name)} <= {said(low)}", values <= low),
                Slice(f"{named(name)} >= {said(high)}", values >= high),
            ]
    return found[:_USUAL]


def described(inside: Mask, columns: Columns, texts: Sequence[str] = ()) -> str:
    """Say what tells some items from the others: slices that hold for most of them, and words that they share.

    Args:
        inside: bool ``[N]``, which items are to be described.
        texts: of all items, if they are texts.
    """
    shares = [(part.name, float(part.mask[inside].mean()), float(part.mask[~inside].mean())) for part in usual(columns)]
    telling = sorted((s for s in shares if s[1] >= 0.5 and s[1] - s[2] >= 0.2), key=lambda s: s[2] - s[1])
    said = [f"{name} ({most:.0%} of them, {few:.0%} of the others)" for name, most, few in telling[:2]]
    if texts:
        said.append("words: " + ", ".join(telling_words([t for t, i in zip(texts, inside, strict=True) if i], texts)))
    return "; ".join(said) or "nothing that is known tells them from the others"


def telling_words(inside: Sequence[str], every: Sequence[str], most: int = 5) -> list[str]:
    """Return the words that many of the texts inside have and few of all: share inside times log of the ratio."""
    counted = [
        Counter(word for text in texts for word in set(_WORD.findall(text.lower()))) for texts in (inside, every)
    ]

    def telling(word: str) -> float:
        share, usual_share = counted[0][word] / len(inside), counted[1][word] / len(every)
        return share * float(np.log(share / usual_share))

    return sorted(counted[0], key=lambda word: (-telling(word), word))[:most]


def by_value(name: str, columns: Columns) -> list[Slice]:
    """Return a slice for each value of a column.

    Raises:
        BadInput: there is no such column, or it has more than a thousand values.
    """
    values = _column(name, columns)
    if (different := len(np.unique(values[~missing(values)]))) > _MOST:
        raise BadInput(f"slice: '{name}' has {different:,} different values; give an expression: {named(name)} < 1")
    number = values.dtype.kind == "f"
    return [
        Slice(f"{named(name)} == {said(float(value) if number else str(value))}", values == value)
        for value in np.unique(values[~missing(values)])
    ]


def said(value: float | str) -> str:
    """Return a value as an expression has it, with all digits that it needs."""
    return repr(value).removesuffix(".0")


def asked(wanted: Sequence[str], columns: Columns) -> list[Slice]:
    """Return slices by name: of a column one for each value, of anything else that expression's."""
    found: list[Slice] = []
    for text in wanted:
        found += by_value(text, columns) if text in columns else [where(text, columns)]
    return found


def columns_of(wanted: Sequence[str], columns: Columns) -> set[str]:
    """Return the columns that slices are told by, which are given as to `asked`."""
    kinds, found = _kinds(columns), set()
    for text in wanted:
        found |= {text} if text in columns else columns_in(parse(text, kinds, "slice"))
    return found


def where(expression: str, columns: Columns) -> Slice:
    """Return the slice of the items for which an expression holds; see `conditions.parse`.

    Raises:
        BadInput: it is none, or names a column that is not there.
    """
    return Slice(expression, holds(parse(expression, _kinds(columns), "slice"), columns))


def _kinds(columns: Columns) -> dict[str, str]:
    return {name: TEXT if values.dtype.kind == "U" else NUMBER for name, values in columns.items()}


def _column(name: str, columns: Columns) -> npt.NDArray[Any]:
    if name not in columns:
        raise BadInput(f"slice: nothing is known of '{name}'; known: {', '.join(sorted(columns))[:500]}")
    return columns[name]


def named(name: str) -> str:
    """Return a column's name as an expression has it."""
    plain = name.isidentifier() and not keyword.iskeyword(name) and unicodedata.normalize("NFKC", name) == name
    return name if plain else f"`{name}`"
