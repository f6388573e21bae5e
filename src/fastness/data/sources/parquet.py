"""Parquet in the Hugging Face image layout: a column of ``{bytes, path}`` or of bytes, and columns beside it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastness.core.errors import BadInput
from fastness.core.hardware import cores
from fastness.data.dataset import Dataset
from fastness.data.frame import Cells, holds_bytes, read_frame
from fastness.data.manifest import Manifest, hash_items
from fastness.data.sources import SOURCES, Columns
from fastness.data.sources.arrays import encode_labels
from fastness.data.splits import canonical, is_split

MAX_KEPT = 1 << 30
"""Bytes of pictures that are kept between reads; the two row groups last read are kept whatever their size."""

_LABELS = ("label", "labels", "class", "target", "fine_label")


@dataclass
class ParquetPayloads:
    """Reads encoded pictures by row; keeps the row groups last read: readers go in order, one a core at most."""

    files: list[Path]
    column: str
    starts: npt.NDArray[np.int64]  # first row of each row group over all files
    groups: list[tuple[int, int]]  # (file, row group)
    _recent: dict[int, list[bytes]] = field(default_factory=dict)
    _held: dict[int, int] = field(default_factory=dict)  # bytes of each of these
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, row: int) -> bytes:
        """Return the encoded bytes of ``row``; a missing value is empty bytes."""
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        with self._lock:
            if group in self._recent:
                self._recent[group] = items = self._recent.pop(group)  # the last read stands last
            else:
                items = self._load(group)
                self._keep(group, items)
        return items[row - int(self.starts[group])]

    def _keep(self, group: int, items: list[bytes]) -> None:
        self._recent[group] = items
        self._held[group] = sum(map(len, items))
        most = 2 * cores() + 1  # a block of rows that is decoded ends in another group than it begins in
        while len(self._recent) > 2 and (len(self._recent) > most or sum(self._held.values()) > MAX_KEPT):
            oldest = next(iter(self._recent))
            del self._recent[oldest], self._held[oldest]

    def _load(self, group: int) -> list[bytes]:
        import pyarrow.parquet as pq

        file, number = self.groups[group]
        values = pq.ParquetFile(self.files[file]).read_row_group(number, columns=[self.column])[self.column]
        return [_bytes(value) for value in values.to_pylist()]


@SOURCES.register("parquet")
class ParquetSource:
    """Opens a Parquet file or a folder of them; files named after a split are that split, as is a column ``split``."""

    def accepts(self, data: Any, columns: Columns) -> bool:
        """A ``.parquet`` file, or a folder with such files of pictures at its top."""
        if not isinstance(data, Path):
            return False
        return (data.suffix == ".parquet" and data.is_file()) or (data.is_dir() and any(map(_promising, _files(data))))

    def open(self, data: Any, columns: Columns) -> Dataset:
        """Hash every picture's bytes, a row group at a time."""
        try:
            return self._open(data, columns)
        except (pa.ArrowException, OSError, LookupError, ValueError) as error:
            raise BadInput(f"{data}: not readable as Parquet ({(str(error).splitlines() or [''])[0]})") from None

    def _open(self, data: Path, columns: Columns) -> Dataset:
        import pyarrow.parquet as pq

        files = _files(data) if data.is_dir() else [data]
        files, opened = _alike(files, [pq.ParquetFile(file) for file in files])
        schema = opened[0].schema_arrow
        image = _image_column(schema, columns.image, data)
        label = _named(schema, columns.label, _LABELS, data)
        split = columns.split or _split_column(data, files, opened, columns)
        rows = [(f, g, o.metadata.row_group(g).num_rows) for f, o in enumerate(opened) for g in range(o.num_row_groups)]
        lengths = np.array([n for _, _, n in rows], np.int64)
        payloads = ParquetPayloads(files, image, np.cumsum(lengths) - lengths, [(f, g) for f, g, _ in rows])
        total = int(lengths.sum())
        hashes = hash_items(payloads.read(row) for row in range(total))
        numbers, names = _labels(opened, schema, label, total, str(data))
        manifest = Manifest(
            names=[f"{files[f].name} row {i}" for f, o in enumerate(opened) for i in range(o.metadata.num_rows)],
            hashes=hashes,
            labels=numbers,
            class_names=names,
            splits=_splits(files, opened, split),
            groups=_texts(opened, _named(schema, columns.group, (), data)),
            source=str(data),
            facts=_facts(files, {image, label, split}),
        )
        return Dataset.of(manifest, payloads)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def _alike(files: list[Path], opened: list[Any]) -> tuple[list[Path], list[Any]]:
    """Keep the set apart from strangers: files without pictures, and beside files named after splits any other."""
    named = [i for i, file in enumerate(files) if is_split(file.stem.split("-")[0])]
    keep = named or [i for i, file in enumerate(opened) if picture_columns(file.schema_arrow)] or range(len(files))
    return [files[i] for i in keep], [opened[i] for i in keep]


def _promising(file: Path) -> bool:
    """Whether a file holds pictures, or is damaged, which is for ``open`` to say."""
    import pyarrow.parquet as pq

    try:
        return bool(picture_columns(pq.read_schema(file)))
    except (pa.ArrowException, OSError):
        return True


def picture_columns(schema: Any) -> list[str]:
    """Return the columns of a Parquet file's schema that may hold encoded pictures."""
    return [field.name for field in schema if holds_bytes(field.type)]


def _image_column(schema: Any, wanted: str | None, path: Path) -> str:
    found = picture_columns(schema)
    if wanted is not None and wanted in found:
        return wanted
    if wanted is not None or not found:
        there = ", ".join(schema.names)
        missing = (
            f"column '{wanted}' holds no pictures" if wanted else "no column holds pictures (bytes, or {bytes, path})"
        )
        raise BadInput(f"{path}: {missing}; columns: {there}")
    return next((name for name in ("image", "img") if name in found), found[0])


def _named(schema: Any, wanted: str | None, usual: tuple[str, ...], path: Path) -> str | None:
    if wanted == "none":
        return None
    if wanted is not None and wanted not in schema.names:
        raise BadInput(f"{path}: no column '{wanted}'; columns: {', '.join(schema.names)}")
    return wanted or next((name for name in usual if name in schema.names), None)


def _column(opened: list[Any], name: str) -> list[Any]:
    return [value for file in opened for value in file.read(columns=[name])[name].to_pylist()]


def _facts(files: list[Path], taken: set[str | None]) -> dict[str, Cells]:
    """Return the columns that all files have and that mean nothing else, as texts."""
    frames = [read_frame(file).columns for file in files]
    shared = [name for name in frames[0] if name not in taken and all(name in columns for columns in frames)]
    return {name: pa.concat_arrays([columns[name] for columns in frames]) for name in shared}


def _texts(opened: list[Any], name: str | None) -> npt.NDArray[np.str_] | None:
    return None if name is None else np.array(_plain(_column(opened, name)), np.str_)


def _plain(values: list[Any]) -> list[str]:
    """Return values as texts, empty where there is none."""
    return ["" if value is None else str(value) for value in values]


def _labels(
    opened: list[Any], schema: Any, label: str | None, n: int, source: str
) -> tuple[npt.NDArray[np.int64] | None, tuple[str, ...]]:
    """Return class numbers and names; names from Hugging Face's metadata or a ``class_name`` column."""
    if label is None:
        return None, ()
    values = _column(opened, label)
    numbers, names = encode_labels(values, n, source)
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = described.get("info", {}).get("features", {}).get(label, {})
    called = tuple(feature.get("names") or ()) if isinstance(feature, dict) else ()
    if called and all(v is None or (isinstance(v, int) and v < len(called)) for v in values):
        return np.array([-1 if v is None else max(v, -1) for v in values], np.int64), called
    if "class_name" in schema.names and numbers is not None:
        title = dict(zip(numbers.tolist(), _column(opened, "class_name"), strict=True))
        return numbers, tuple(str(title.get(i, name)) for i, name in enumerate(names))
    return numbers, names


def _split_column(data: Path, files: list[Path], opened: list[Any], columns: Columns) -> str | None:
    """Return the column ``split`` if it holds nothing but names of splits, and no files of a folder say it instead."""
    if data.is_dir() and any(is_split(file.stem.split("-")[0]) for file in files):
        return None
    spoken_for = {columns.group, *columns.beside}
    usual = (name for name in opened[0].schema_arrow.names if name.lower() == "split" and name not in spoken_for)
    name = next(usual, None)
    if name is None or any(name not in file.schema_arrow.names for file in opened):
        return None
    values = set(map(str, _column(opened, name)))
    return name if values and all(map(is_split, values)) else None


def _splits(files: list[Path], opened: list[Any], column: str | None) -> npt.NDArray[np.str_] | None:
    if column not in (None, "none"):
        assert column is not None
        if any(column not in file.schema_arrow.names for file in opened):
            raise BadInput(f"{files[0]}: no column '{column}'; columns: {', '.join(opened[0].schema_arrow.names)}")
        return np.array([canonical(v) for v in _plain(_column(opened, column))], np.str_)
    stems = [file.stem.split("-")[0] for file in files]
    if column == "none" or not any(is_split(stem) for stem in stems):
        return None
    rows = [file.metadata.num_rows for file in opened]
    return np.array([canonical(stem) for stem, n in zip(stems, rows, strict=True) for _ in range(n)], np.str_)


def _bytes(value: Any) -> bytes:
    inner = value.get("bytes") if isinstance(value, dict) else value
    return inner if isinstance(inner, bytes) else b""
