"""What folder trees and archives share: which files are pictures, and what their folders mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fastness.core.errors import BadInput
from fastness.data.frame import Cells, read_frame
from fastness.data.manifest import UNLABELLED, printable
from fastness.data.sources import Columns
from fastness.data.sources.arrays import encode_labels
from fastness.data.splits import canonical, is_split

_PICTURE_SUFFIXES = frozenset(
    f".{name}"
    for name in "jpg|jpeg|jpe|jfif|png|gif|bmp|dib|tif|tiff|webp|ppm|pgm|pbm|pnm|tga|jp2|ico|avif".split("|")  # noqa: SIM905
)
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"P4\n", b"P5\n", b"P6\n")

METADATA = tuple(f"metadata.{suffix}" for suffix in ("csv", "tsv", "jsonl", "parquet"))
"""What a file is called that says more of a tree's pictures; the first that is there counts."""

Arrangement = tuple[
    npt.NDArray[np.int64] | None, tuple[str, ...], npt.NDArray[np.str_] | None, npt.NDArray[np.str_] | None
]


def is_picture_name(name: str) -> bool:
    """Whether a file's name ends as pictures' names do."""
    dot = name.rfind(".")
    return dot >= 0 and name[dot:].lower() in _PICTURE_SUFFIXES


def has_picture_signature(head: bytes) -> bool:
    """Whether a file's first 16 bytes are those of a common picture format."""
    return head.startswith(_SIGNATURES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def looks_like_picture(path: Path) -> bool:
    """Whether a file is a picture by its name or, failing that, by its first bytes."""
    if is_picture_name(path.name):
        return True
    try:
        with path.open("rb") as handle:
            return has_picture_signature(handle.read(16))
    except OSError:
        return False


def arrange(names: list[str], columns: Columns, source: str) -> Arrangement:
    """Read labels, class names, splits and groups off relative paths.

    Folders that all files share mean nothing and are passed over. Then a folder named ``train``, ``val``,
    ``validation`` or ``test`` is a split, and the folder below it the class. Fewer than two classes are none.

    Raises:
        BadInput: such a folder stands beside others, of which it may be one, and nobody said what it is.
    """
    # Millions of files lie in few folders, so all is decided once a folder.
    distinct = {parent: i for i, parent in enumerate(dict.fromkeys(name.rpartition("/")[0] for name in names))}
    where = np.fromiter((distinct[name.rpartition("/")[0]] for name in names), np.int64, len(names))
    folders = [tuple(part for part in parent.split("/") if part) for parent in distinct]
    depth = _shared_depth(folders, columns)
    folders = [parts[depth:] for parts in folders]
    splits = None
    if columns.split != "none" and any(parts and is_split(parts[0]) for parts in folders):
        _refuse_both(folders, columns, source)
        splits = np.array([canonical(p[0]) if p and is_split(p[0]) else "" for p in folders], dtype=np.str_)[where]
        folders = [p[1:] if p and is_split(p[0]) else p for p in folders]
    groups = None if columns.group in (None, "none") else np.array(list(distinct), dtype=np.str_)[where]
    classes = sorted({p[0] for p in folders if p})
    if columns.label == "none" or len(classes) < 2:
        return None, (), splits, groups
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[p[0]] if p else UNLABELLED for p in folders], dtype=np.int64)[where]
    return labels, tuple(map(printable, classes)), splits, groups


def as_described(
    arranged: Arrangement, facts: dict[str, Cells], names: list[str], columns: Columns, source: str
) -> Arrangement:
    """Return an arrangement with the label and the group that columns beside the files say, where these are asked for.

    Raises:
        BadInput: what is asked for is no such column; lists those there are.
    """
    labels, classes, splits, groups = arranged
    for option in ("label", "split", "group") if names else ():
        value = getattr(columns, option)
        if value in (None, "none", "folder") or (value in facts and option != "split"):
            continue
        listed = f"columns of its metadata: {', '.join(facts)[:500]}" if facts else "no metadata with columns beside it"
        said = "folders alone say the split" if option == "split" else listed
        raise BadInput(f"{source}: no column '{value}' for --{option} ({said}); say folder or none")
    if columns.label in facts:
        labels, classes = encode_labels(facts[columns.label].to_pylist(), len(names), source)
    if columns.group in facts:
        groups = np.array(facts[columns.group].fill_null("").to_pylist(), np.str_)
    return labels, classes, splits, groups


def facts_beside(root: Path, names: list[str]) -> dict[str, Cells]:
    """Return what ``metadata.csv`` (or ``.tsv``, ``.jsonl``, ``.parquet``) in a tree's root says of its files.

    Its column ``file_name`` holds relative paths, as Hugging Face's folders of pictures have it.

    Raises:
        BadInput: it names a file twice.
    """
    path = next((root / name for name in METADATA if (root / name).is_file()), None)
    if path is None:
        return {}
    frame = read_frame(path)
    if "file_name" not in frame.columns:  # it describes something else
        return {}
    rows: dict[str, int] = {}
    for row, name in enumerate(frame.texts("file_name")):
        if name is not None and rows.setdefault(name.removeprefix("./"), row) != row:
            raise BadInput(f"{path}: '{name}' stands there twice; keep one row a file")
    chosen = pa.array([rows.get(name) for name in names], pa.int64())
    return {column: cells.take(chosen) for column, cells in frame.columns.items() if column != "file_name"}


def _refuse_both(folders: list[tuple[str, ...]], columns: Columns, source: str) -> None:
    """Refuse folders named after splits beside others, unless it was said what they are."""
    heads = sorted({parts[0] for parts in folders if parts})
    split = next(filter(is_split, heads))
    other = next((head for head in heads if not is_split(head)), None)
    if columns.split is None and other is not None:
        raise BadInput(
            f"{source}: is the folder '{printable(split)}' beside '{printable(other)}' a split or a class? "
            "say --split folder or --split none"
        )


def _shared_depth(folders: list[tuple[str, ...]], columns: Columns) -> int:
    """Return how many leading folders all files have in common, stopping before a split."""
    distinct = set(folders)
    depth = 0
    while distinct and all(len(parts) > depth for parts in distinct):
        heads = {parts[depth] for parts in distinct}
        if len(heads) > 1 or (columns.split != "none" and is_split(next(iter(heads)))):
            break
        depth += 1
    return depth
