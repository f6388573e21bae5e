"""Slices: parts of the items that something is known of, by a column's value or by an expression."""

from __future__ import annotations

import ast
import keyword
import operator
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastness.core.errors import BadInput
from fastness.data import Dataset
from fastness.data.items import Items

Columns = Mapping[str, npt.NDArray[Any]]
"""What is known of the items: numbers float64 ``[N]``, NaN where missing, or texts ``[N]``, empty where missing."""
Mask = npt.NDArray[np.bool_]

LABEL = "label"
_VALUES = 20  # a column of more texts than these names no slices of itself
_CLASSES = 100
_CELL = 100  # characters of a cell that are kept
_USUAL = 200  # slices that nobody asked for
_MOST = 1000  # values of a column that was asked for
_TAIL = 0.2  # share of the items with the lowest, and with the highest values of a number
_WORD = re.compile(r"\w{2,}")
_QUOTED = re.compile("`([^`]+)`")
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


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
        values = _typed(cells)  # of all items, so that every part of them has the same type
        if values is not None:
            found[name] = values[dataset.rows]
    if dataset.labels is not None:
        found[LABEL] = np.array([*dataset.class_names, ""], np.str_)[dataset.labels]
    return found


def _typed(cells: Any) -> npt.NDArray[Any] | None:
    """Return an Arrow array of texts as numbers if all that are there are numbers; ``None`` if it is free text."""
    trimmed = pc.utf8_trim_whitespace(cells)
    trimmed = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
    try:
        numbers = pc.cast(trimmed, pa.float64())
    except pa.ArrowInvalid:
        numbers = None
    if numbers is None or numbers.null_count == len(numbers):
        cut = pc.utf8_slice_codeunits(trimmed.fill_null(""), 0, _CELL)
        return np.array(cut.to_pylist(), np.str_) if pc.count_distinct(cut).as_py() <= _MOST else None
    return np.asarray(numbers.to_numpy(zero_copy_only=False), np.float64)


def usual(columns: Columns) -> list[Slice]:
    """Return the slices that nobody needs to ask for.

    Of every column of texts with 2 to 20 different ones (of the label up to 100) one for each; of every column of
    numbers with few different ones the same, else the fifth of the items with the lowest and with the highest.
    """
    found: list[Slice] = []
    for name, values in columns.items():
        there = values[~_missing(values)]
        different = len(np.unique(there))
        if 2 <= different <= (_CLASSES if name == LABEL else _VALUES if values.dtype.kind == "U" else 10):
            found += by_value(name, columns)
        elif values.dtype.kind == "f" and different > 10:
            # Rounded, and the slice with it, so that its name selects what it holds.
            low, high = (float(f"{cut:.4g}") for cut in np.quantile(there, [_TAIL, 1 - _TAIL]))
            found += [
                Slice(f"{_named(name)} <= {_said(low)}", values <= low),
                Slice(f"{_named(name)} >= {_said(high)}", values >= high),
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
        said.append("words: " + ", ".join(_telling_words([t for t, i in zip(texts, inside, strict=True) if i], texts)))
    return "; ".join(said) or "nothing that is known tells them from the others"


def _telling_words(inside: Sequence[str], every: Sequence[str], most: int = 5) -> list[str]:
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
    if (different := len(np.unique(values[~_missing(values)]))) > _MOST:
        raise BadInput(f"slice: '{name}' has {different:,} different values; give an expression: {_named(name)} < 1")
    number = values.dtype.kind == "f"
    return [
        Slice(f"{_named(name)} == {_said(float(value) if number else str(value))}", values == value)
        for value in np.unique(values[~_missing(values)])
    ]


def _said(value: float | str) -> str:
    """Return a value as an expression has it, with all digits that it needs."""
    return repr(value).removesuffix(".0")


def asked(wanted: Sequence[str], columns: Columns) -> list[Slice]:
    """Return slices by name: of a column one for each value, of anything else that expression's."""
    found: list[Slice] = []
    for text in wanted:
        found += by_value(text, columns) if text in columns else [where(text, columns)]
    return found


def where(expression: str, columns: Columns) -> Slice:
    """Return the slice of the items for which an expression holds.

    Args:
        expression: comparisons of columns with numbers and texts, ``in`` lists of them, joined by ``and``, ``or``,
            ``not`` and brackets: ``brightness < 40 and category == "shoes"``. A name that is no Python name stands
            between backticks. Where a value is missing, no comparison holds.

    Raises:
        BadInput: it is none, or names a column that is not there.
    """
    quoted: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        quoted[f"quoted_{len(quoted)}"] = match[1]
        return f"quoted_{len(quoted) - 1}"

    try:
        tree = ast.parse(_QUOTED.sub(name, expression).strip(), mode="eval").body
        more = {new: _column(old, columns) for new, old in quoted.items()}
        return Slice(expression, _holds(tree, {**columns, **more}))
    except (SyntaxError, TypeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        why = error.args[0] if error.args else type(error).__name__
        raise BadInput(
            f"slice '{expression[:200]}': {why}; write it like: brightness < 40 and category == 'shoes'"
        ) from None


def _holds(node: ast.expr, columns: Columns) -> Mask:
    if isinstance(node, ast.BoolOp):
        parts = [_holds(value, columns) for value in node.values]
        joined: Mask = (np.logical_and if isinstance(node.op, ast.And) else np.logical_or).reduce(parts)
        return joined
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_holds(node.operand, columns)
    if not isinstance(node, ast.Compare):
        raise ValueError(f"'{ast.unparse(node)}' is no comparison")
    terms = [node.left, *node.comparators]
    held = [_compared(a, op, b, columns) for a, op, b in zip(terms, node.ops, terms[1:], strict=False)]
    both: Mask = np.logical_and.reduce(held)
    return both


def _compared(left: ast.expr, op: ast.cmpop, right: ast.expr, columns: Columns) -> Mask:
    if isinstance(op, ast.In | ast.NotIn):
        if not (isinstance(left, ast.Name) and isinstance(right, ast.List | ast.Tuple | ast.Set)):
            raise ValueError("'in' wants a column before it and a list behind it")
        values = _column(left.id, columns)
        among = np.isin(values, [_literal(element, values) for element in right.elts])
        return (among if isinstance(op, ast.In) else ~among) & ~_missing(values)
    if type(op) not in _COMPARED:
        raise ValueError(f"'{type(op).__name__}' is no comparison that slices know")
    if isinstance(right, ast.Name) and not isinstance(left, ast.Name):
        values, other = _column(right.id, columns), left
        held = _COMPARED[type(op)](_literal(other, values), values)
    elif isinstance(left, ast.Name):
        values = _column(left.id, columns)
        held = _COMPARED[type(op)](values, _literal(right, values))
    else:
        raise ValueError("a comparison wants a column on one side")
    mask: Mask = held & ~_missing(values)
    return mask


def _literal(node: ast.expr, values: npt.NDArray[Any]) -> Any:
    """Return a number or text that a column can be compared with."""
    if isinstance(node, ast.Name):
        raise ValueError(f"'{node.id}' stands where a value is wanted; put a text in quotes")
    value = ast.literal_eval(node)
    if isinstance(value, str) != (values.dtype.kind == "U"):
        kind = "texts" if values.dtype.kind == "U" else "numbers"
        raise ValueError(f"the column holds {kind}, and is compared with {value!r}")
    return value


def _column(name: str, columns: Columns) -> npt.NDArray[Any]:
    if name not in columns:
        raise BadInput(f"slice: nothing is known of '{name}'; known: {', '.join(sorted(columns))[:500]}")
    return columns[name]


def _named(name: str) -> str:
    plain = name.isidentifier() and not keyword.iskeyword(name) and unicodedata.normalize("NFKC", name) == name
    return name if plain else f"`{name}`"


def _missing(values: npt.NDArray[Any]) -> Mask:
    mask: Mask = values == "" if values.dtype.kind == "U" else np.isnan(values)
    return mask
