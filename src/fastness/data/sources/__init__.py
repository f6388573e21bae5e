"""Sources: one call opens what people have.

A source is one file with a class that has ``accepts`` and ``open``, and one line in ``SOURCES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from fastness.core.errors import BadInput
from fastness.core.registry import Registry
from fastness.data.dataset import Dataset
from fastness.data.manifest import printable
from fastness.data.show import plural
from fastness.data.splits import is_split


@dataclass(frozen=True)
class Columns:
    """Which columns (of a table) or folders (of a tree) mean what; ``None`` lets the source find out.

    In a folder tree, ``label="none"`` ignores class folders, ``split="none"`` takes folders named ``train``
    or ``test`` for classes, ``split="folder"`` for splits also where they stand beside others, and ``group="folder"``
    keeps the files of one folder together.

    Attributes:
        image, text: the column that holds the items; at most one of the two.
        row: the columns that make up the items, with commas between; ``rest``: all that have no other meaning.
        beside: columns that are no part of a row, since they are other sides of the things.
        score: how alike the sides of each item are.
        modality: what kind of items is wanted, where a file could hold several.
    """

    image: str | None = None
    text: str | None = None
    row: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None
    score: str | None = None
    modality: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def wanted(self) -> str | None:
        """The kind of items that is asked for, by name or by naming its column."""
        return "image" if self.image else "text" if self.text else "table" if self.row else self.modality


ROLES = tuple(f.name for f in fields(Columns) if f.name != "beside")
"""What a user may call a column, or a folder."""


class Source(Protocol):
    """Opens one kind of data."""

    def accepts(self, data: Any, columns: Columns) -> bool:
        """Whether ``data`` (a ``Path`` where a text was given) is of this kind; must be quick."""
        ...

    def open(self, data: Any, columns: Columns) -> Dataset:
        """Return the dataset; raise ``BadInput`` naming what is wrong with it."""
        ...


# In the order in which they are asked. Adding a source is one file and one line here.
SOURCES: Registry[Callable[[], Source]] = Registry(
    "source",
    "fastness.data.sources",
    {
        "known": "known",
        "judged": "judged",
        "frames": "frames",
        "lines": "lines",
        "arrays": "arrays",
        "torch": "torch_dataset",
        "npy": "npy",
        "idx": "idx",
        "parquet": "parquet",
        "archive": "archive",
        "folder": "folder",
    },
)


def open_data(
    data: Any,
    *,
    image: str | None = None,
    text: str | None = None,
    row: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    score: str | None = None,
    modality: str | None = None,
) -> Dataset:
    """Open data wherever it lies and whatever form it has.

    Args:
        data: a folder, zip, tar, ``.npy``, ``.npz``, Parquet or IDX file (or a folder of such files), a text, CSV, TSV
            or JSON-lines file, the name of a known set (``digits``, ``cifar10``, ``fashion-mnist``), a uint8 array
            ``[N, H, W]``, ``[N, C, H, W]`` or ``[N, H, W, C]``, a list of arrays, pictures or paths, of texts with
            ``modality="text"``, a pair of these and labels, a data frame, or a map-style torch dataset.
        image, text: the column with the items. Several (``text="question,answer"``, or one of each) are sides of the
            same thing.
        row: the columns that together are a row of a table, with commas between, or ``rest`` for all that mean
            nothing else; beside an image or a text, a further side of the same thing.
        label, split, group, score, modality: see `Columns`.

    Returns:
        the dataset with its manifest; nothing is decoded yet.

    Raises:
        BadInput: there is no such file, it is of no known kind, or it holds no items.
    """
    if isinstance(data, Dataset):
        return data
    named = [("image", name) for name in _names(image)] + [("text", name) for name in _names(text)]
    columns = Columns(label=label, split=split, group=group, score=score, modality=modality)
    if len(named) + bool(row) < 2:
        return _open(data, replace(columns, image=image, text=text, row=row))
    names = [name for _, name in named]
    columns = replace(columns, beside=tuple(names))
    if row:
        named.append(("row", row))
        names.append("row")
    if len(set(names)) < len(names):
        raise BadInput(f"{str(data)[:200]}: two sides of one name ({', '.join(names)}); name each column once")
    from fastness.data.sides import joined

    asked: list[dict[str, Any]] = [{kind: column} for kind, column in named]
    return joined([_open(data, replace(columns, **side)) for side in asked], names)


def _names(column: str | None) -> list[str]:
    return [name.strip() for name in (column or "").split(",") if name.strip()]


def _open(data: Any, columns: Columns) -> Dataset:
    name = str(data)[:200] if isinstance(data, str | Path) else f"a {type(data).__name__}"
    if isinstance(data, str):
        data = Path(data).expanduser()
    for kind in SOURCES:
        source = SOURCES.get(kind)()
        if source.accepts(data, columns):
            opened = source.open(data, columns)
            if not len(opened):
                raise BadInput(f"{name}: {_empty(opened)}")
            _refuse_unheard(name, kind, opened, columns)
            _refuse_nothing_held_out(name, opened, columns)
            return opened
    if isinstance(data, Path) and not data.exists():
        raise BadInput(
            f"{name}: no such file or folder, and no known set of that name (digits, cifar10, fashion-mnist)"
        )
    raise BadInput(
        f"{name}: cannot be opened as data; give a folder, zip, tar, npy, npz, Parquet, IDX, text, CSV or JSONL file"
    )


def _refuse_unheard(name: str, kind: str, opened: Dataset, columns: Columns) -> None:
    """Refuse an option that this kind of data has no use for, rather than let the user believe it was heard."""
    found = {
        "label": opened.labels,
        "split": opened.manifest.splits,
        "group": opened.manifest.groups,
        "score": opened.manifest.scores,
    }
    for option, there in found.items():
        value = getattr(columns, option)
        if value not in (None, "none") and there is None:
            raise BadInput(f"{name}: --{option} {value} means nothing for this kind of data ({kind}); drop it")
    if columns.wanted not in (None, opened.modality):
        held, wanted = plural(opened.modality), plural(columns.wanted or "")
        raise BadInput(f"{name}: holds {held}, not {wanted}; give other data, or name the column")


def _refuse_nothing_held_out(name: str, opened: Dataset, columns: Columns) -> None:
    """Refuse a split that was asked for and says of no item what it is for, since all items would be learnt from."""
    splits = opened.whole.splits
    if columns.split in (None, "none") or splits is None or any(map(is_split, set(splits.tolist()))):
        return
    values = sorted(set(splits.tolist()))
    there = ", ".join(printable(value)[:40] or "nothing" for value in values[:5]) + (", …" if len(values) > 5 else "")
    raise BadInput(
        f"{name}: --split {columns.split} says train, validation or test of no item ({there}); "
        "rename its values, or name another column"
    )


def _empty(opened: Dataset) -> str:
    """Say why a data set holds nothing."""
    called = plural(opened.modality)
    if opened.quarantine:
        first = opened.quarantine[0]
        return f"no usable {called}; {len(opened.quarantine)} unreadable, e.g. {first.name}: {first.reason}"
    if opened.ignored:
        return f"no {called} among {opened.ignored} files; give a folder that holds some"
    return f"holds no {called}; give data that holds some"
