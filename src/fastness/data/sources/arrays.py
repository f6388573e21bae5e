"""Arrays and lists in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.data.dataset import Dataset
from fastness.data.manifest import Manifest, hash_items
from fastness.data.sources import SOURCES, Columns
from fastness.data.text import dataset_of
from fastness.data.values import is_no_class


@dataclass(frozen=True)
class ArrayPayloads:
    """Pixels ``[N, H, W]`` or ``[N, H, W, C]`` in memory."""

    pixels: npt.NDArray[Any]

    def read(self, row: int) -> npt.NDArray[Any]:
        """Return the pixels of item ``row``."""
        return np.asarray(self.pixels[row])


@dataclass(frozen=True)
class ListPayloads:
    """Items as bytes or arrays in a list."""

    items: Sequence[bytes | npt.NDArray[Any]]

    def read(self, row: int) -> bytes | npt.NDArray[Any]:
        """Return item ``row``."""
        return self.items[row]


@SOURCES.register("arrays")
class ArraySource:
    """Opens arrays, tensors, lists of arrays, pictures, paths or, where they are wanted, texts; and pairs of these and
    labels."""

    def accepts(self, data: Any, columns: Columns) -> bool:
        """Arrays, tensors, lists, and pairs of an array and labels."""
        return isinstance(data, np.ndarray | list | tuple) or _is_tensor(data)

    def open(self, data: Any, columns: Columns) -> Dataset:
        """Hash each item."""
        labels = None
        if (
            isinstance(data, tuple)
            and len(data) == 2
            and (isinstance(data[0], np.ndarray | list) or _is_tensor(data[0]))
        ):
            data, labels = data
            labels = None if columns.label == "none" else labels
        if _is_tensor(data):
            data = data.detach().cpu().numpy()
        if columns.wanted == "text" and isinstance(next(iter(data), ""), str):
            return labelled(dataset_of(data), labels, "list")
        if isinstance(data, np.ndarray) and data.dtype != object:
            return from_pixels(data, labels, "array")
        items = [_item(item, i) for i, item in enumerate(data)]
        manifest = Manifest(
            [f"item {i}" for i in range(len(items))],
            hash_items(items),
            *encode_labels(labels, len(items), "list"),
            source="list",
        )
        return Dataset.of(manifest, ListPayloads(items))


def labelled(dataset: Dataset, labels: Any, source: str) -> Dataset:
    """Return a whole data set with labels; see `encode_labels`."""
    numbers, names = encode_labels(labels, len(dataset.whole), source)
    return replace(dataset, whole=replace(dataset.whole, labels=numbers, class_names=names))


def from_pixels(
    pixels: npt.NDArray[Any],
    labels: Any = None,
    source: str = "array",
    splits: npt.NDArray[np.str_] | None = None,
    class_names: Sequence[str] = (),
    licence: str | None = None,
) -> Dataset:
    """Return the dataset of an array of pictures.

    Args:
        pixels: ``[N, H, W]``, ``[N, C, H, W]`` or ``[N, H, W, C]`` with C = 1, 3 or 4; see `decode.from_array`
            for the meaning of other types than uint8.
        labels: class of each item, any type; ``None`` without.

    Raises:
        BadInput: the shape is none of these, or the labels do not fit.
    """
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3, 4) and pixels.shape[3] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 1, 3)
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3, 4)):
        raise BadInput(f"{source}: shape {pixels.shape} is no batch of pictures; give [N, H, W] or [N, C, H, W]")
    if pixels.dtype.kind not in "uifb":
        raise BadInput(f"{source}: dtype {pixels.dtype} holds no pixels; give uint8")
    if splits is not None and len(splits) != len(pixels):
        raise BadInput(f"{source}: {len(splits)} splits for {len(pixels)} items; give one split an item")
    numbers, names = encode_labels(labels, len(pixels), source)
    manifest = Manifest(
        [f"{i}" for i in range(len(pixels))],
        hash_items(np.asarray(row) for row in pixels),
        numbers,
        tuple(class_names) or names,
        splits,
        source=source,
        licence=licence,
    )
    return Dataset.of(manifest, ArrayPayloads(pixels))


def encode_labels(labels: Any, n: int, source: str) -> tuple[npt.NDArray[np.int64] | None, tuple[str, ...]]:
    """Return class numbers and names of labels of any type; negative integers, ``None`` and texts that say nothing,
    "" and ``NA`` say, are unknown.

    Raises:
        BadInput: there are not ``n`` of them, or they are no single values.
    """
    if labels is None:
        return None, ()
    if _is_tensor(labels):
        labels = labels.detach().cpu().numpy()
    values = [plain(value) for value in labels]
    if len(values) != n or not all(map(is_class, values)):
        wrong = f"{len(values)} labels for {n} items" if len(values) != n else "labels are lists or arrays"
        raise BadInput(f"{source}: {wrong}; give one label an item")
    texts = [None if _unknown(value) else str(value) for value in values]
    known = {text for text in texts if text is not None}
    numeric = all(text.removeprefix("-").isdecimal() for text in known)
    names = sorted(known, key=int) if numeric else sorted(known)
    number = {name: i for i, name in enumerate(names)}
    return np.array([-1 if t is None else number[t] for t in texts], np.int64), tuple(names)


def plain(value: Any) -> Any:
    """Return the Python value of an array or tensor that holds just one, and anything else as it is."""
    return value.item() if math.prod(getattr(value, "shape", (2,))) == 1 else value


def is_class(value: Any) -> bool:
    """Whether a value may be the class of an item: no list, mapping, array or picture."""
    return (
        not isinstance(value, list | tuple | dict | set)
        and not hasattr(value, "shape")
        and not hasattr(value, "convert")
    )


def _unknown(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return value is None or is_no_class(value)
    return isinstance(value, int | float | np.number) and bool(value != value or value < 0)


def _item(item: Any, position: int) -> bytes | npt.NDArray[Any]:
    if isinstance(item, str | Path):
        try:
            return Path(item).read_bytes()
        except OSError as error:
            raise BadInput(f"item {position}: {item}: {error.strerror}") from None
    if isinstance(item, bytes):
        return item
    if _is_tensor(item):
        return np.asarray(item.detach().cpu().numpy())
    if isinstance(item, np.ndarray) and item.dtype.kind in "uifb":
        return item
    if hasattr(item, "convert") and hasattr(item, "getexif"):
        from fastness_runtime.decode import picture_pixels

        return picture_pixels(item)
    raise BadInput(f"item {position}: a {type(item).__name__} is no picture; give paths, arrays or PIL images")


def _is_tensor(data: Any) -> bool:
    return any(kind.__module__ == "torch" and kind.__name__ == "Tensor" for kind in type(data).__mro__)
