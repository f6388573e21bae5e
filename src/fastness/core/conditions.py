"""Conditions on columns, ``price < 20 and colour == 'red'``: read once, held against arrays or put as SQL."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput

NUMBER, TEXT = "number", "text"
Mask = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[Any]]
"""What is known of items: numbers float64 ``[N]``, NaN where missing, or texts ``[N]``, empty where missing."""
Fragment = tuple[str, list[Any]]
"""A piece of SQL and the values of its places."""

_QUOTED = re.compile("`([^`]+)`")
_RELATIONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_HOLD: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Compared:
    """A column's value stands in a relation to another."""

    column: str
    relation: str
    value: float | str


@dataclass(frozen=True)
class Among:
    """A column's value is one of several, or none of them."""

    column: str
    values: tuple[float | str, ...]
    negated: bool


@dataclass(frozen=True)
class Joined:
    """All of several conditions hold, or any of them."""

    every: bool
    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Negated:
    """A condition does not hold."""

    part: Condition


Condition = Compared | Among | Joined | Negated


def parse(expression: str, kinds: Mapping[str, str], what: str) -> Condition:
    """Return the condition that an expression states.

    Args:
        expression: comparisons of columns with numbers and texts, ``in`` lists of them, joined by ``and``, ``or``,
            ``not`` and brackets: ``brightness < 40 and category == "shoes"``. A name that is no Python name stands
            between backticks.
        kinds: ``number`` or ``text``, by column.
        what: what the expression is for, in messages: ``slice``.

    Raises:
        BadInput: it is none, names a column that is not there, or compares one with what it does not hold.
    """
    quoted: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        quoted[f"quoted_{len(quoted)}"] = match[1]
        return f"quoted_{len(quoted) - 1}"

    try:
        tree = ast.parse(_QUOTED.sub(name, expression).strip(), mode="eval").body
        return _Reader(kinds, quoted, what).read(tree)
    except (SyntaxError, TypeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        said, why = _line(expression), _line(error.args[0] if error.args else type(error).__name__)
        raise BadInput(f"{what} '{said}': {why}; write it like: brightness < 40 and category == 'shoes'") from None


def _line(said: object) -> str:
    """Return the beginning of a text as one line."""
    return " ".join(str(said).split())[:200]


@dataclass(frozen=True)
class _Reader:
    kinds: Mapping[str, str]
    quoted: Mapping[str, str]
    what: str

    def read(self, node: ast.expr) -> Condition:
        if isinstance(node, ast.BoolOp):
            return Joined(isinstance(node.op, ast.And), tuple(self.read(value) for value in node.values))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Negated(self.read(node.operand))
        if not isinstance(node, ast.Compare):
            raise ValueError(f"'{ast.unparse(node)}' is no comparison")
        terms = [node.left, *node.comparators]
        held = [self._comparison(a, op, b) for a, op, b in zip(terms, node.ops, terms[1:], strict=False)]
        return held[0] if len(held) == 1 else Joined(True, tuple(held))

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Condition:
        if isinstance(op, ast.In | ast.NotIn):
            if not (isinstance(left, ast.Name) and isinstance(right, ast.List | ast.Tuple | ast.Set)):
                raise ValueError("'in' wants a column before it and a list behind it")
            column = self._column(left)
            values = tuple(self._literal(element, column) for element in right.elts)
            return Among(column, values, isinstance(op, ast.NotIn))
        if type(op) not in _RELATIONS:
            raise ValueError(f"'{type(op).__name__}' is no comparison that is known here")
        relation = _RELATIONS[type(op)]
        if isinstance(right, ast.Name) and not isinstance(left, ast.Name):
            column = self._column(right)
            return Compared(column, _TURNED[relation], self._literal(left, column))
        if isinstance(left, ast.Name):
            column = self._column(left)
            return Compared(column, relation, self._literal(right, column))
        raise ValueError("a comparison wants a column on one side")

    def _column(self, node: ast.Name) -> str:
        name = self.quoted.get(node.id, node.id)
        if name not in self.kinds:
            known = ", ".join(sorted(self.kinds))[:500] or "no column"
            raise BadInput(f"{self.what}: nothing is known of '{_line(name)}'; known: {known}")
        return name

    def _literal(self, node: ast.expr, column: str) -> float | str:
        """Return a number or text that a column can be compared with."""
        if isinstance(node, ast.Name):
            raise ValueError(f"'{node.id}' stands where a value is wanted; put a text in quotes")
        value = ast.literal_eval(node)
        if not isinstance(value, str if self.kinds[column] == TEXT else int | float):
            raise ValueError(f"the column holds {self.kinds[column]}s, and is compared with {value!r}")
        return value if isinstance(value, str) else float(value)


def columns_in(condition: Condition) -> set[str]:
    """Return the columns that a condition names."""
    if isinstance(condition, Negated):
        return columns_in(condition.part)
    if isinstance(condition, Joined):
        return set().union(*map(columns_in, condition.parts))
    return {condition.column}


def holds(condition: Condition, columns: Columns) -> Mask:
    """Return for which items a condition holds, bool ``[N]``; where a value is missing, no comparison does."""
    if isinstance(condition, Negated):
        return ~holds(condition.part, columns)
    if isinstance(condition, Joined):
        parts = [holds(part, columns) for part in condition.parts]
        joined: Mask = (np.logical_and if condition.every else np.logical_or).reduce(parts)
        return joined
    values = columns[condition.column]
    if isinstance(condition, Among):
        held = np.isin(values, list(condition.values)) != condition.negated
    else:
        held = _HOLD[condition.relation](values, condition.value)
    mask: Mask = held & ~missing(values)
    return mask


def sql(condition: Condition, column: Callable[[str], Fragment], place: str) -> Fragment:
    """Return a condition as SQL that holds where `holds` does; values go in places, never into the text.

    Args:
        column: the SQL of a column's value, null where it is missing.
        place: how the database writes the place of a value: ``?`` or ``%s``.
    """
    if isinstance(condition, Negated):
        text, values = sql(condition.part, column, place)
        return f"(not {text})", values
    if isinstance(condition, Joined):
        parts = [sql(part, column, place) for part in condition.parts]
        joint = " and " if condition.every else " or "
        return f"({joint.join(text for text, _ in parts)})", [value for _, values in parts for value in values]
    text, values = column(condition.column)
    if isinstance(condition, Among):
        if not condition.values:
            return (f"({text} is not null)", values) if condition.negated else ("(1 = 0)", [])
        listed = ", ".join([place] * len(condition.values))
        negated = "not " if condition.negated else ""
        return f"coalesce({text} {negated}in ({listed}), 1 = 0)", [*values, *condition.values]
    relation = {"==": "=", "!=": "<>"}.get(condition.relation, condition.relation)
    return f"coalesce({text} {relation} {place}, 1 = 0)", [*values, condition.value]


def missing(values: npt.NDArray[Any]) -> Mask:
    """Return where an array of numbers or texts has no value, bool ``[N]``."""
    mask: Mask = values == "" if values.dtype.kind in "UO" else np.isnan(values)
    return mask
