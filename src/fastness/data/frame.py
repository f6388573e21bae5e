"""The frame: columns of texts as a file or object has them, whatever its form, before anything is made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastness.core.errors import BadInput
from fastness.data.dataset import Quarantined
from fastness.data.delimited import read_rows, unique_names
from fastness.data.textfile import read_lines

Cells: TypeAlias = Any  # a pyarrow array of strings; null where there is no cell

_DELIMITED = (".csv", ".tsv", ".tab", ".txt")
_JSON_LINES = (".jsonl", ".ndjson")
BROKEN = "\uffff"
"""Stands in a cell for half of a surrogate pair; Unicode promises never to make it a character."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Frame:
    """Rows of cells.

    Attributes:
        columns: the cells of each column by its name, in order; all are equally long.
        names: of the rows: where each stands in its source.
        quarantine: rows that could not be read.
        source: the address or kind of the source, for messages.
    """

    columns: dict[str, Cells]
    names: list[str]
    quarantine: tuple[Quarantined, ...] = ()
    source: str = "table"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, column: str) -> Cells:
        """Return the cells of a column.

        Raises:
            BadInput: there is none of that name; lists those there are.
        """
        if column not in self.columns:
            raise BadInput(f"{self.source}: no column '{column}'; columns: {', '.join(self.columns)[:500]}")
        return self.columns[column]

    def texts(self, column: str) -> list[str | None]:
        """Return the cells of a column as Python texts."""
        found: list[str | None] = self[column].to_pylist()
        return found

    def take(self, rows: npt.NDArray[np.int64]) -> Frame:
        """Return the rows at these positions."""
        chosen = pa.array(rows)
        columns = {name: cells.take(chosen) for name, cells in self.columns.items()}
        return replace(self, columns=columns, names=[self.names[row] for row in rows])

    def only(self, names: Iterable[str]) -> Frame:
        """Return some of the columns."""
        return replace(self, columns={name: self[name] for name in names})


def file_kind(path: Path) -> str | None:
    """Return how a file is to be read, by its name: ``delimited``, ``lines of JSON``, ``parquet`` or ``None``."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(_DELIMITED):
        return "delimited"
    if name.endswith(_JSON_LINES):
        return "lines of JSON"
    return "parquet" if path.suffix.lower() == ".parquet" else None


def read_frame(path: str | Path) -> Frame:
    """Read a file of rows.

    Args:
        path: ``.csv``, ``.tsv``, ``.txt`` with a delimiter, ``.jsonl``, each also with ``.gz``, or ``.parquet``, whose
            columns of bytes are passed over. What separates cells, the encoding and whether the first row names the
            columns is found out; columns without a name are ``c0``, ``c1``, ….

    Returns:
        the rows; a row of which nothing can be made is in the quarantine with its line.

    Raises:
        BadInput: there is no such file, it is of another kind, damaged, or has no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    kind = file_kind(path)
    if kind is None:
        raise BadInput(f"{path}: is no table; give a .csv, .tsv, .txt, .jsonl (each also .gz) or .parquet file")
    read = {"delimited": _read_delimited, "lines of JSON": _read_json_lines, "parquet": _read_parquet}[kind]
    return read(path)


def frame_of(data: Any) -> Frame:
    """Return the frame of an object in memory.

    Args:
        data: a pandas or polars data frame, a ``pyarrow.Table``, a dict of columns, a list of dicts, or a numeric
            array ``[N, C]``.

    Raises:
        BadInput: it is none of these, or its columns differ in length.
    """
    if isinstance(data, Frame):
        return data
    if hasattr(data, "to_arrow"):
        data = data.to_arrow()
    if isinstance(data, pa.Table):
        return _of_table(data, "table")
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        names = [str(name) for name in data.columns]
        return _of_lists(names, [data.iloc[:, i].tolist() for i in range(len(names))])
    if isinstance(data, Mapping):
        return _of_lists([str(name) for name in data], [_listed(column) for column in data.values()])
    if isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        return _of_records(data, [f"row {i}" for i in range(len(data))], "rows")
    array = np.asarray(data)
    if array.ndim == 2 and array.dtype.kind in "uifb":
        table = pa.table({f"c{i}": np.ascontiguousarray(array[:, i]) for i in range(array.shape[1])})
        return _of_table(table, "array")
    raise BadInput(
        f"a {type(data).__name__} is no table; give a data frame, a dict of columns, a list of dicts or an array [N, C]"
    )


def joined(frames: Sequence[Frame], source: str) -> Frame:
    """Return the rows of several frames one after the other.

    Raises:
        BadInput: they have different columns.
    """
    for frame in frames[1:]:
        if set(frame.columns) != set(frames[0].columns):
            odd = ", ".join(sorted(set(frame.columns) ^ set(frames[0].columns)))
            raise BadInput(f"{frame.source}: its columns differ from those of {frames[0].source} in {odd[:300]}")
    columns = {name: pa.concat_arrays([frame[name] for frame in frames]) for name in frames[0].columns}
    names = [name for frame in frames for name in frame.names]
    return Frame(columns, names, tuple(q for frame in frames for q in frame.quarantine), source)


def holds_bytes(kind: Any) -> bool:
    """Whether a column of this Arrow type holds files: bytes, or a structure of them and a path."""
    types = pa.types
    inner = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return bool(inner or types.is_binary(kind) or types.is_large_binary(kind))


def _read_delimited(path: Path) -> Frame:
    rows = read_rows(read_lines(path), str(path))
    parts: list[list[Cells]] = [[] for _ in rows.layout.names]
    names: list[str] = []
    for lines, block in rows.blocks():
        names += [f"line {line}" for line in lines]
        for part, column in zip(parts, zip(*block, strict=True), strict=bool(block)):
            part.append(pa.array(column, pa.large_string()))
    columns = {
        name: pa.concat_arrays(part) if part else _nothing()
        for name, part in zip(rows.layout.names, parts, strict=True)
    }
    return Frame(columns, names, tuple(rows.quarantine), str(path))


def _read_json_lines(path: Path) -> Frame:
    records, names, quarantine = [], [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            quarantine.append(Quarantined(f"line {number}", f"is no JSON ({type(error).__name__})"))
            continue
        if not isinstance(record, dict):
            quarantine.append(Quarantined(f"line {number}", "is no JSON object with columns as fields"))
            continue
        records.append(record)
        names.append(f"line {number}")
    return replace(_of_records(records, names, str(path)), quarantine=tuple(quarantine))


def _read_parquet(path: Path) -> Frame:
    import pyarrow.parquet as pq

    try:
        names = [field.name for field in pq.read_schema(path) if not holds_bytes(field.type)]
        return _of_table(pq.read_table(path, columns=names), str(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{path}: not readable as Parquet ({(str(error).splitlines() or [''])[0]})") from None


def _of_records(records: Sequence[Mapping[str, Any]], names: list[str], source: str) -> Frame:
    keys = list(dict.fromkeys(key for record in records for key in record))
    columns = unique_names([_SURROGATE.sub(BROKEN, str(key)) for key in keys])
    cells = {name: _strings([record.get(key) for record in records]) for name, key in zip(columns, keys, strict=True)}
    return Frame(cells, names, source=source)


def _of_lists(names: Sequence[str], columns: Sequence[list[Any]]) -> Frame:
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        odd = ", ".join(f"{name}: {length}" for name, length in list(lengths.items())[:8])
        raise BadInput(f"the columns differ in length ({odd}); give as many cells in each")
    rows = len(columns[0]) if columns else 0
    cells = {name: _strings(column) for name, column in zip(unique_names(names), columns, strict=True)}
    return Frame(cells, [f"row {i}" for i in range(rows)])


def _of_table(table: pa.Table, source: str) -> Frame:
    names = unique_names(table.column_names)
    columns = {name: _cast(table.column(i)) for i, name in enumerate(names)}
    return Frame(columns, [f"row {i}" for i in range(table.num_rows)], source=source)


def _cast(column: pa.ChunkedArray) -> Cells:
    """Return a column as texts: numbers, times and flags as they are printed, lists and structures as JSON."""
    if pa.types.is_nested(column.type) or holds_bytes(column.type):
        return _strings(column.to_pylist())
    try:
        return pc.replace_substring(pc.cast(column, pa.large_string()).combine_chunks(), "\0", "")
    except pa.ArrowNotImplementedError:
        return _strings(column.to_pylist())


def _listed(column: Any) -> list[Any]:
    """Return a column as a list of Python values."""
    if hasattr(column, "tolist"):
        column = column.tolist()
    if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
        raise BadInput(f"a column is a {type(column).__name__}; give a list with one cell a row")
    return list(column)


def _strings(values: Sequence[Any]) -> Cells:
    """Return values of any kind as texts; half a surrogate pair, which is no text, becomes `BROKEN`."""
    texts = list(map(_text, values))
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        return pa.array([text and _SURROGATE.sub(BROKEN, text) for text in texts], pa.large_string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value.replace("\0", "") if value and "\0" in value else value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"  # as Arrow writes flags
    if isinstance(value, float):
        return None if value != value else repr(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").replace("\0", "")
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' missing values, which are no floats
        return None
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value)


_nothing = partial(pa.array, [], pa.large_string())
