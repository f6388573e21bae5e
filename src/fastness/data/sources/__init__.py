"""Sources: one call opens what people have.

A source is one file with a class that has ``accepts`` and ``open``, and one line in ``SOURCES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastness.core.errors import BadInput
from fastness.core.registry import Registry
from fastness.data.dataset import Dataset


@dataclass(frozen=True)
class Columns:
    """Which columns (of a table) or folders (of a tree) mean what; ``None`` lets the source find out.

    In a folder tree, ``label="none"`` ignores class folders, ``split="none"`` takes folders named ``train``
    or ``test`` for classes, and ``group="folder"`` keeps the files of one folder together.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None


class Source(Protocol):
    """Opens one kind of data."""

    def accepts(self, data: Any) -> bool:
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
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
) -> Dataset:
    """Open data wherever it lies and whatever form it has.

    Args:
        data: a folder, zip, tar, ``.npy``, ``.npz``, Parquet or IDX file (or a folder of such files), the
            name of a known set (``digits``, ``cifar10``, ``fashion-mnist``), a uint8 array ``[N, H, W]``,
            ``[N, C, H, W]`` or ``[N, H, W, C]``, a pair ``(array, labels)``, a list of arrays, pictures or
            paths, or a map-style torch dataset.
        image, label, split, group: see `Columns`.

    Returns:
        the dataset with its manifest; nothing is decoded yet.

    Raises:
        BadInput: there is no such file, it is of no known kind, or it holds no items.
    """
    if isinstance(data, Dataset):
        return data
    name = str(data)
    if isinstance(data, str):
        data = Path(data).expanduser()
    for kind in SOURCES:
        source = SOURCES.get(kind)()
        if source.accepts(data):
            opened = source.open(data, Columns(image, label, split, group))
            if not len(opened):
                raise BadInput(f"{name}: {_empty(opened)}")
            _refuse_ignored(name, kind, opened, label=label, split=split, group=group)
            return opened
    if isinstance(data, Path) and not data.exists():
        raise BadInput(
            f"{name}: no such file or folder, and no known set of that name (digits, cifar10, fashion-mnist)"
        )
    raise BadInput(f"{name[:200]}: cannot be opened as data; give a folder, zip, tar, npy, npz, Parquet or IDX file")


def _refuse_ignored(name: str, kind: str, opened: Dataset, **asked: str | None) -> None:
    """Refuse an option that this kind of data has no use for, rather than let the user believe it was heard."""
    found = {"label": opened.labels, "split": opened.manifest.splits, "group": opened.manifest.groups}
    for option, value in asked.items():
        if value not in (None, "none") and found[option] is None:
            raise BadInput(f"{name}: --{option} {value} means nothing for this kind of data ({kind}); drop it")


def _empty(opened: Dataset) -> str:
    if opened.quarantine:
        first = opened.quarantine[0]
        return f"no usable pictures; {len(opened.quarantine)} unreadable, e.g. {first.name}: {first.reason}"
    if opened.ignored:
        return f"no pictures among {opened.ignored} files; give a folder that holds some"
    return "holds no pictures; give a folder that holds some"
