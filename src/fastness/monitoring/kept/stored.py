"""Windows as files: a Parquet with a row an item, of ours or of any other model's embeddings."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastness.core.errors import BadInput
from fastness.core.files import atomic_path
from fastness.monitoring.window import Array, Floats, Window

_ID, _AT, _VECTOR = "id", "at", "vector"
_KNOWN = "known."  # before the names of columns, which are clients' own and may be called "id" as well


def columns_of(known: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Return what is known of items as columns; see `Window.columns`.

    A column is numbers if all that is there are numbers (true is 1), else texts.

    Args:
        known: of each item values by name; what it has no value for is missing.
    """
    names = dict.fromkeys(name for values in known for name, value in values.items() if value is not None)
    return {name: column([values.get(name) for values in known]) for name in names}


def column(values: Sequence[Any]) -> Array:
    """Return values as float64 ``[N]``, NaN where there is none, or as texts ``[N]``, empty where there is none."""
    try:
        if not any(isinstance(value, str) for value in values):
            return np.array([np.nan if value is None else float(value) for value in values], np.float64)
    except (TypeError, ValueError, OverflowError):
        pass  # neither numbers nor texts, or beyond all numbers: said as texts
    return np.array(["" if value is None else str(value) for value in values], object)


def write(path: Path, window: Window) -> None:
    """Write a window to a Parquet file atomically: ``id``, ``at``, ``vector`` (float16), and what is known.

    Args:
        path: of the file.
        window: at least one item.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    N, D = window.vectors.shape
    halves = pa.array(window.vectors.astype(np.float16).reshape(-1))
    table: dict[str, Any] = {
        _ID: pa.array(window.ids if len(window.ids) else [""] * N, pa.string()),
        _AT: pa.array(window.at if len(window.at) else np.zeros(N, np.int64), pa.int64()),
        _VECTOR: pa.FixedSizeListArray.from_arrays(halves, D),
    }
    for name, values in window.columns.items():
        kind = pa.float64() if values.dtype.kind == "f" else pa.string()
        table[_KNOWN + name] = pa.array(values, kind)
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(table), temporary, compression="zstd")


def read(path: Path) -> Window:
    """Read a window: a file that `write` wrote, or a Parquet or npz file of embeddings that are not ours.

    Args:
        path: ``.parquet`` with a list of numbers in ``vector``, or ``.npz`` with an array ``vectors`` ``[N, D]``. Of
            both ``id`` (npz: ``ids``) and ``at`` (microseconds since 1970, or times) may be left out; what else there
            is with one value an item is a column.

    Returns:
        the window, its vectors scaled to length 1.

    Raises:
        BadInput: it is neither, or cannot be read; says what is missing.
    """
    if path.suffix not in {".parquet", ".npz"}:
        raise BadInput(f"{path}: give a file that ends in .parquet or .npz")
    try:
        found = _from_npz(path) if path.suffix == ".npz" else _from_parquet(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:  # also Arrow's
        said = " ".join(str(error).split())[:200]
        raise BadInput(f"{path}: cannot be read ({type(error).__name__}: {said}); get an intact copy") from None
    return found


def _from_npz(path: Path) -> Window:
    with np.load(path, allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    vectors = arrays.pop("vectors", arrays.pop("embeddings", None))
    if vectors is None:
        raise BadInput(f"{path}: has no array 'vectors'; it has: {', '.join(arrays)[:300]}")
    ids, at = arrays.pop("ids", np.zeros(0)), arrays.pop("at", np.zeros(0, np.int64))
    columns = {name: _array(values) for name, values in arrays.items() if values.ndim == 1}
    return Window(_unit(vectors, path), columns, [str(value) for value in ids], _moments(at))


def _from_parquet(path: Path) -> Window:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    vector = next((name for name in (_VECTOR, "embedding") if name in table.column_names), None)
    if vector is None:
        raise BadInput(f"{path}: has no column '{_VECTOR}'; it has: {', '.join(table.column_names)[:300]}")
    cells = table[vector].combine_chunks()
    flat = cells.flatten().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(cells).to_numpy(zero_copy_only=False)
    if not len(table) or (differ := np.flatnonzero(lengths != lengths[0])).size or lengths[0] != lengths[0]:
        where = f", row {int(differ[0]) + 1}" if len(table) and len(differ) else ""
        raise BadInput(f"{path}{where}: '{vector}' is to have a list of as many numbers in each row")
    ids = [value or "" for value in table[_ID].cast("string").to_pylist()] if _ID in table.column_names else []
    at = _moments(table[_AT].to_numpy()) if _AT in table.column_names else np.zeros(0, np.int64)
    plain = [f.name for f in table.schema if f.name not in (vector, _ID, _AT) and not f.type.num_fields]
    columns = {name.removeprefix(_KNOWN): column(table[name].to_pylist()) for name in plain}
    return Window(_unit(flat.reshape(len(table), -1), path), columns, ids, at)


def _array(values: Array) -> Array:
    return values.astype(np.float64) if values.dtype.kind in "fiub" else values.astype(str).astype(object)


def _moments(values: Array) -> Array:
    """Return moments as microseconds since 1970."""
    return values.astype("datetime64[us]").astype(np.int64) if values.dtype.kind == "M" else values.astype(np.int64)


def _unit(vectors: Array, path: Path) -> Floats:
    """Return vectors scaled to length 1."""
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise BadInput(f"{path}: its vectors are {vectors.dtype} {vectors.shape}; give numbers [N, D]")
    wide = vectors.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(lengths > 0, lengths, 1)).astype(np.float32)
