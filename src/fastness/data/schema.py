"""The schema: what each column of a table is, in a form that a person can read and correct, and cells by it as numbers.

Everything in it was learnt from the training rows; see `fastness.data.learn`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastness.core.errors import BadInput
from fastness.core.files import write_text
from fastness.core.recipe import read_mapping
from fastness.data.frame import Cells, Frame
from fastness.data.manifest import printable
from fastness.data.values import DateOrder, Decimal, days, is_missing, number

LARGEST = 1e37
"""Numbers beyond are cut to this: differences and squares of small multiples stay finite in float32."""

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measured(_Base):
    """What numbers and dates have in common.

    Attributes:
        median, low, high: of the training rows.
        points: pairs of a value less the origin, rising, and where it lies among the training rows' as a normal
            score. Values between two are placed on the line between, values beyond the ends at the ends. Empty: not
            learnt yet.
        origin: what coded values are less, where float32 would lose the differences otherwise.
        missing: share of the training rows without a value.
    """

    median: Finite = 0.0
    low: Finite = 0.0
    high: Finite = 0.0
    points: tuple[tuple[Finite, Finite], ...] = ()
    origin: Finite = 0.0
    missing: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _rising(self) -> Measured:
        values = [value for value, _ in self.points]
        if any(b <= a for a, b in pairwise(values)) or len(values) == 1:
            raise ValueError("points are two or more, and their values rise")
        return self

    @property
    def learnt(self) -> bool:
        """Whether all that is needed to code a cell is there."""
        return bool(self.points)


class Number(Measured):
    """A quantity; ``decimal`` is what stands before the fraction."""

    kind: Literal["number"] = "number"
    decimal: Decimal = "."

    def value(self, text: str) -> float | None:
        """Return what a cell is, or ``None`` if it is no number."""
        return number(text, self.decimal)


class Date(Measured):
    """A day, or with ``time`` a moment, counted in days from 1970-01-01; ``order`` is that of year, month and day."""

    kind: Literal["date"] = "date"
    order: DateOrder = "ymd"
    time: bool = False

    def value(self, text: str) -> float | None:
        """Return what a cell is, or ``None`` if it is no such date."""
        return days(text, self.order)


class Category(_Base):
    """One of several values, coded by their place; one that is not listed is coded as the last place but missing.

    Attributes:
        values: by falling frequency. Empty: not learnt yet.
        others: share of the training rows whose value is not listed.
        missing: share of the training rows without a value.
    """

    kind: Literal["category"] = "category"
    values: tuple[str, ...] = ()
    others: Annotated[float, Field(ge=0, le=1)] = 0.0
    missing: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _different(self) -> Category:
        if len(set(self.values)) < len(self.values):
            raise ValueError("a value is listed twice")
        return self

    @property
    def learnt(self) -> bool:
        """Whether all that is needed to code a cell is there."""
        return bool(self.values)


class Ignored(_Base):
    """A column of which nothing is made, and why."""

    kind: Literal["ignore"] = "ignore"
    reason: str = "as asked"
    learnt: Literal[True] = Field(True, exclude=True)


Column = Number | Date | Category | Ignored


class _File(_Base):
    format: Literal[1] = 1
    columns: dict[str, Annotated[Column, Field(discriminator="kind")]]


@dataclass(frozen=True)
class Coded:
    """Cells as numbers, and what could not be taken as it is, as numbers of cells by column.

    Attributes:
        cells: float32 ``[N, C]``, a column a feature: a number or date less its ``origin``, or the place of a
            category's value (their number for a value that is not listed); NaN where missing or unreadable.
        unseen: values of categories that are not listed.
        outside: numbers and dates beyond the training rows' range.
        unreadable: cells that hold something else than the column's kind; counted as missing.
    """

    cells: npt.NDArray[np.float32]
    unseen: dict[str, int]
    outside: dict[str, int]
    unreadable: dict[str, int]


@dataclass(frozen=True)
class Schema:
    """What each column of a table is, by name, in order."""

    columns: dict[str, Column]

    @cached_property
    def used(self) -> dict[str, Number | Date | Category]:
        """The columns that are features, in the order of the coded cells."""
        return {name: column for name, column in self.columns.items() if not isinstance(column, Ignored)}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        dumped = {name: {"kind": c.kind, **c.model_dump(mode="json")} for name, c in self.columns.items()}
        return {**_File(columns={}).model_dump(), "columns": dumped}

    def to_bytes(self) -> bytes:
        """Return a JSON file."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_dict(cls, values: Any, where: str = "schema") -> Schema:
        """Read what `to_dict` gave.

        Raises:
            BadInput: in one line, which column of ``where`` is wrong and what is allowed.
        """
        try:
            return cls(_File.model_validate(values).columns)
        except ValidationError as error:
            first = error.errors()[0]
            place = " ".join(str(part) for part in first["loc"] if part != "columns")
            said = str(first["msg"]).removeprefix("Value error, ")
            raise BadInput(f"{where}: {place or 'file'}: {said}") from None

    @classmethod
    def from_bytes(cls, content: bytes, where: str = "schema.json") -> Schema:
        """Read what `to_bytes` gave; see `from_dict`."""
        try:
            return cls.from_dict(json.loads(content), where)
        except ValueError as error:
            raise BadInput(f"{where}: not readable as JSON ({error})") from None

    def write(self, path: Path) -> None:
        """Write all that is known as a YAML file, which `read` reads."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        write_text(path, text)

    def sketch(self) -> str:
        """Return what each column is as YAML, a line each, which a person corrects and `read` reads.

        It holds what can be decided by looking at a column; `learn` completes it. What was learnt stands in comments.
        """
        lines = ["# Correct the kinds: number, date, category or ignore. What stands behind # was found in the data."]
        lines.append("columns:")
        for name, column in self.columns.items():
            said = {"kind": column.kind, **column.model_dump(include={"decimal", "order", "reason"})}
            lines.append(f"  {_in_yaml(name)}: {_in_yaml(said)}{_remark(column)}")
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, path: Path) -> Schema:
        """Read a YAML or JSON file.

        A column that says only its ``kind`` is completed by `learn`.

        Raises:
            BadInput: no such file, or a column in it is wrong; names it.
        """
        return cls.from_dict(read_mapping(path), str(path))

    def code(self, frame: Frame) -> Coded:
        """Return the cells of a frame as numbers; columns that the schema does not have are passed over.

        Raises:
            BadInput: a column is not there, or not learnt.
        """
        gone = [name for name in self.used if name not in frame.columns]
        if gone:
            named = ", ".join(f"'{name}'" for name in gone)
            raise BadInput(
                f"{frame.source}: no column {named[:300]}, from which was learnt; add it, its cells may be empty"
            )
        cells = np.empty((len(frame), len(self.used)), np.float32)
        unseen, outside, unreadable = {}, {}, {}
        for place, (name, column) in enumerate(self.used.items()):
            if not column.learnt:
                raise BadInput(f"schema: column '{name}' says only its kind; complete it with learn(frame, schema)")
            if isinstance(column, Category):
                cells[:, place], unseen[name] = _code_category(column, frame[name])
            else:
                cells[:, place], outside[name], unreadable[name] = _code_measured(column, frame[name])
        return Coded(cells, *(({k: v for k, v in d.items() if v}) for d in (unseen, outside, unreadable)))


def _in_yaml(value: Any) -> str:
    """Return a value on one line, quoted where it must be."""
    dumped = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=1 << 30)
    return dumped.strip()[1:-1]


def _remark(column: Column) -> str:
    """Return a comment with what was learnt of a column."""
    if isinstance(column, Ignored) or not column.learnt:
        return ""
    if isinstance(column, Category):
        said = f"{len(column.values):,} values: {', '.join(v[:20] for v in column.values[:4])}"
        said += ", …" if len(column.values) > 4 else ""
    elif isinstance(column, Date):
        said = " to ".join(str(np.datetime64("1970-01-01") + int(day)) for day in (column.low, column.high))
    else:
        said = f"{column.low:g} to {column.high:g}, median {column.median:g}"
    missing = f"; {column.missing:.1%} missing" if column.missing else ""
    return "  # " + printable(said) + missing


def distinct(cells: Cells) -> tuple[list[str | None], npt.NDArray[np.int64]]:
    """Return the different cells, trimmed, ``None`` for all that are missing, and for each cell which it is."""
    encoded = pc.utf8_trim_whitespace(cells).dictionary_encode()
    texts = [None if is_missing(text) else text for text in encoded.dictionary.to_pylist()]
    places = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).astype(np.int64)
    return [*texts, None], places


def _code_category(column: Category, cells: Cells) -> tuple[npt.NDArray[np.float32], int]:
    texts, places = distinct(cells)
    unseen = len(column.values)
    place = {value: i for i, value in enumerate(column.values)}
    # Flags are written as Arrow writes them; where the training rows wrote them as Python does, they are those.
    place = {flag.lower(): place[flag] for flag in ("True", "False") if flag in place} | place
    codes = np.array([math.nan if t is None else place.get(t, unseen) for t in texts], np.float32)
    found = codes[places]
    return found, int((found == unseen).sum())


def _code_measured(column: Number | Date, cells: Cells) -> tuple[npt.NDArray[np.float32], int, int]:
    texts, places = distinct(cells)
    read = measured(column, texts)
    unread = np.array([text is not None for text in texts]) & np.isnan(read)
    values = read[places]
    outside = (values < column.low) | (values > column.high)
    return (values - column.origin).astype(np.float32), int(outside.sum()), int(unread[places].sum())


def measured(column: Number | Date, texts: Sequence[str | None]) -> npt.NDArray[np.float64]:
    """Return what texts mean by a column's way of writing, cut to `LARGEST`; NaN where they mean nothing."""
    found = [None if text is None else column.value(text) for text in texts]
    values = np.array([math.nan if value is None else value for value in found], np.float64)
    return np.clip(values, -LARGEST, LARGEST)
