"""Files and objects of rows and columns: a data set of tables' rows, or of the texts in one column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastness.core.errors import BadInput
from fastness.data.dataset import Dataset, Quarantined
from fastness.data.frame import BROKEN, Cells, Frame, file_kind, frame_of, joined, read_frame
from fastness.data.manifest import HashArray, Manifest, hash_items
from fastness.data.sources import SOURCES, Columns
from fastness.data.sources.arrays import encode_labels
from fastness.data.sources.lines import is_table
from fastness.data.splits import canonical, is_split
from fastness.data.table import TablePayloads
from fastness.data.text import TextPayloads, damage
from fastness.data.values import is_missing, number

_LABELS = ("label", "labels", "class", "target")
_TEXTS = ("text", "sentence")


@dataclass(frozen=True)
class _Roles:
    """Which column is what; ``None`` where there is none."""

    label: str | None
    split: str | None
    group: str | None
    score: str | None

    @property
    def taken(self) -> set[str]:
        """The columns that are no features."""
        return {name for name in vars(self).values() if name is not None}


@SOURCES.register("frames")
class FrameSource:
    """Opens delimited files, JSON lines, Parquet without pictures, data frames, and other objects with columns.

    Of a folder, the files that are named after splits are opened together. The label is the column that is asked
    for, or one called ``label``, ``labels``, ``class`` or ``target``; the split one that is asked for, or one called
    ``split`` that holds nothing but names of splits. The rest are features of a table, unless a text is asked for, or
    nothing is and one column is called ``text`` or ``sentence`` and has at most two beside it, or one column holds
    sentences, and most of what there is to read.
    """

    def accepts(self, data: Any, columns: Columns) -> bool:
        """Such a file or object, if no pictures are wanted."""
        if columns.wanted == "image":
            return False
        if isinstance(data, Path):
            return any(_is_frame(file, columns) for file in _files(data))
        return _is_object(data)

    def open(self, data: Any, columns: Columns) -> Dataset:
        """Read all rows and hash each."""
        frame, files, labels = _read(data)
        roles = _roles(frame, columns, by_file=len(files) > 1 or _of_folder(data))
        if labels is not None and columns.label is None:
            roles = replace(roles, label=None)  # what is given beside the columns counts, whatever these are called
        text = columns.text or _text_column(frame, columns, roles)
        scores, no_score = _scores(frame, roles.score)
        numbers, names = _labels(frame, roles.label, labels)
        payloads, hashes, no_item = _table(frame, columns, roles) if text is None else _texts(frame, text)
        manifest = Manifest(
            names=frame.names,
            hashes=hashes,
            labels=numbers,
            class_names=names,
            splits=_splits(frame, roles.split, files if columns.split is None else []),
            groups=None if roles.group is None else np.array(_trimmed(frame[roles.group]), np.str_),
            scores=scores,
            source=frame.source,
            facts={
                name: cells for name, cells in frame.columns.items() if name not in (text, roles.label, roles.split)
            },
        )
        modality = "table" if text is None else "text"
        opened = Dataset(manifest, payloads, np.arange(len(frame)), frame.quarantine, 0, modality)
        return opened.without({**no_score, **no_item})


# --- what is opened -------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    """Return the file, or those in a folder that are named after splits."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    return sorted(f for f in path.iterdir() if file_kind(f) and is_split(_stem(f)) and f.is_file())


def _stem(path: Path) -> str:
    stem = path.name.partition(".")[0]
    return stem.split("-")[0] if file_kind(path) == "parquet" else stem  # train-00000-of-00001.parquet


def _of_folder(data: Any) -> bool:
    return isinstance(data, Path) and data.is_dir()


def _is_frame(path: Path, columns: Columns) -> bool:
    kind = file_kind(path)
    if kind == "parquet":
        return columns.wanted is not None or not _holds_pictures(path)
    if path.name.lower().removesuffix(".gz").endswith(".txt"):
        named = columns.text or columns.label or columns.score or columns.group
        return named is not None or columns.wanted == "table" or is_table(path)
    return kind is not None


def _holds_pictures(path: Path) -> bool:
    import pyarrow.parquet as pq

    from fastness.data.sources.parquet import picture_columns

    try:
        return bool(picture_columns(pq.read_schema(path)))
    except (pa.ArrowException, OSError):
        return False


def _is_object(data: Any) -> bool:
    if isinstance(data, tuple):
        return len(data) == 2 and not isinstance(data[0], list | tuple) and _is_object(data[0])
    if isinstance(data, Frame | dict | pa.Table) or (hasattr(data, "iloc") and hasattr(data, "columns")):
        return True
    if isinstance(data, np.ndarray):
        return data.ndim == 2 and data.dtype.kind in "uifb"
    if isinstance(data, list):
        return bool(data) and isinstance(data[0], dict)
    return hasattr(data, "to_arrow")


def _read(data: Any) -> tuple[Frame, list[tuple[str, int]], Any]:
    """Return the rows, the name and number of rows of each file, and labels that came beside them."""
    if not isinstance(data, Path):
        data, labels = data if isinstance(data, tuple) else (data, None)
        return frame_of(data), [], labels
    files = _files(data)
    frames = [read_frame(file) for file in files]
    parts = [(_stem(file), len(frame)) for file, frame in zip(files, frames, strict=True)]
    if len(frames) == 1 and not data.is_dir():
        return frames[0], parts if is_split(parts[0][0]) else [], None
    return (
        joined([_prefixed(frame, file.name) for frame, file in zip(frames, files, strict=True)], str(data)),
        parts,
        None,
    )


def _prefixed(frame: Frame, name: str) -> Frame:
    quarantine = tuple(Quarantined(f"{name} {q.name}", q.reason) for q in frame.quarantine)
    return Frame(frame.columns, [f"{name} {row}" for row in frame.names], quarantine, frame.source)


# --- what the columns are -------------------------------------------------------------------------


def _roles(frame: Frame, columns: Columns, by_file: bool) -> _Roles:
    """Return which column is what.

    Raises:
        BadInput: one that is asked for is not there.
    """

    spoken_for = {columns.text, columns.group, columns.score, columns.split, *columns.beside}
    spoken_for |= set((columns.row or "").split(","))

    def named(wanted: str | None, usual: Sequence[str] = ()) -> str | None:
        if wanted == "none":
            return None
        if wanted is not None:
            frame[wanted]  # says what there is
            return wanted
        return next((name for name in frame.columns if name.lower() in usual and name not in spoken_for), None)

    split = named(columns.split)
    if columns.split is None and not by_file:
        usual = named(None, ("split",))
        values = [] if usual is None else [str(value) for value in frame[usual].unique().to_pylist()]
        split = usual if values and all(map(is_split, values)) else None
    return _Roles(named(columns.label, _LABELS), split, named(columns.group), named(columns.score))


def _text_column(frame: Frame, columns: Columns, roles: _Roles) -> str | None:
    """Return the column that holds the texts, or ``None`` if this is a table.

    Raises:
        BadInput: texts are wanted, and which column holds them is not clear.
    """
    if columns.wanted == "table":
        return None
    free = [name for name in frame.columns if name not in roles.taken]
    usual = [name for name in free if name.lower() in _TEXTS]
    if len(usual) == 1 and (columns.modality == "text" or len(frame.columns) <= 3):
        return usual[0]
    sizes = {name: _characters(frame[name]) for name in free}
    written = [name for name in free if _is_prose(frame[name])]
    if len(written) == 1 and (columns.modality == "text" or 2 * sizes[written[0]] > sum(sizes.values())):
        return written[0]
    if columns.modality != "text":
        return None
    if len(free) == 1:
        return free[0]
    raise BadInput(f"{frame.source}: which column holds the texts? say --text NAME; columns: {', '.join(free)[:500]}")


def _characters(cells: Cells) -> int:
    return int(pc.sum(pc.utf8_length(cells)).as_py() or 0)


def _is_prose(cells: Cells) -> bool:
    """Whether the cells are sentences: several words, most of them in small letters, hardly one cell like another."""
    cells = cells.drop_null()
    if not len(cells) or pc.count_distinct(cells).as_py() < 0.5 * len(cells):
        return False
    step = max(1, len(cells) // 1000)
    words = [text.split() for text in cells.take(pa.array(np.arange(0, len(cells), step))).to_pylist()]
    every = [word for text in words for word in text]
    small = sum(word[:1].islower() for word in every)
    return len(every) >= 4 * len(words) and small > 0.5 * len(every)


# --- what is made of them -------------------------------------------------------------------------


def _trimmed(cells: Cells) -> list[str]:
    """Return cells as trimmed texts, empty where there is none."""
    texts: list[str] = pc.utf8_trim_whitespace(cells.fill_null("")).to_pylist()
    return texts


def _labels(frame: Frame, label: str | None, beside: Any) -> tuple[npt.NDArray[np.int64] | None, tuple[str, ...]]:
    if label is None:
        return encode_labels(beside, len(frame), frame.source)
    return encode_labels(_trimmed(frame[label]), len(frame), frame.source)


def _splits(frame: Frame, column: str | None, files: list[tuple[str, int]]) -> npt.NDArray[np.str_] | None:
    if column is not None:
        return np.array([canonical(value) for value in _trimmed(frame[column])], np.str_)
    if not files:
        return None
    return np.array([canonical(name) for name, rows in files for _ in range(rows)], np.str_)


def _scores(frame: Frame, column: str | None) -> tuple[npt.NDArray[np.float64] | None, dict[int, str]]:
    """Return scores, NaN where there is none, and the rows whose score is no number with the reason."""
    if column is None:
        return None, {}
    scores = np.full(len(frame), np.nan)
    damaged = {}
    for row, text in enumerate(frame.texts(column)):
        if is_missing(text):
            continue
        assert text is not None
        value = number(text)
        if value is None:
            damaged[row] = f"the score '{text[:40]}' is no number"
        else:
            scores[row] = value
    return scores, damaged


def _texts(frame: Frame, column: str) -> tuple[TextPayloads, HashArray, dict[int, str]]:
    """Return the texts of a column, their hashes, and the rows that cannot be used with the reason."""
    texts = frame.texts(column)
    damaged = {}
    for row, text in enumerate(texts):
        why = damage("\ud800" if text is not None and BROKEN in text else text)
        if why is not None:
            damaged[row] = f"{column}: {why}"
    kept = [text or "" for text in texts]
    return TextPayloads(kept), hash_items(text.encode() for text in kept), damaged


def _features(frame: Frame, columns: Columns, roles: _Roles) -> list[str]:
    """Return the columns that make up a row.

    Raises:
        BadInput: one that is asked for is not there, or has another meaning.
    """
    taken = roles.taken | set(columns.beside)
    if columns.row in (None, "rest"):
        return [name for name in frame.columns if name not in taken]
    assert columns.row is not None
    asked = [name.strip() for name in columns.row.split(",") if name.strip()]
    both = [name for name in asked if name in taken]
    if both:
        raise BadInput(
            f"{frame.source}: column '{both[0]}' is no part of the row, it has another meaning; name it once"
        )
    return list(frame.only(asked).columns)


def _table(frame: Frame, columns: Columns, roles: _Roles) -> tuple[TablePayloads, HashArray, dict[int, str]]:
    """Return the columns that are features, a hash of each row of them, and that no row is unusable.

    Raises:
        BadInput: there are none.
    """
    features = _features(frame, columns, roles)
    if not len(frame):
        return TablePayloads(frame), hash_items([]), {}
    if not features:
        raise BadInput(f"{frame.source}: no column is left to learn from beside {', '.join(sorted(roles.taken))}")
    kept = frame.only(features)
    head = json.dumps(features).encode() + b"\0"
    # A cell is marked as there, and no cell has a NUL: rows are equal exactly where all their cells are.
    there, nothing, between = (pa.scalar(text, pa.large_string()) for text in ("+", "", "\0"))
    marked = [pc.binary_join_element_wise(there, kept[name], nothing).fill_null("-") for name in features]
    rows = pc.binary_join_element_wise(*marked, between)
    return TablePayloads(kept), hash_items(head + row.encode() for row in rows.to_pylist()), {}
