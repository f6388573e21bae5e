"""Any map-style torch dataset: ``len(data)`` and ``data[i]`` giving a picture or ``(picture, label, …)``."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.data.dataset import Dataset
from fastness.data.manifest import Manifest, hash_items
from fastness.data.sources import SOURCES, Columns
from fastness.data.sources.arrays import encode_labels, is_class, plain


@dataclass(frozen=True)
class TorchPayloads:
    """Reads pictures through the dataset's own ``__getitem__``; one reader at a time."""

    data: Any
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, row: int) -> npt.NDArray[Any]:
        """Return the pixels of item ``row``."""
        with self._lock:  # pictures too may be read from a file that all items share
            return _pixels(self.data[row], row)


@SOURCES.register("torch")
class TorchSource:
    """Opens map-style datasets."""

    def accepts(self, data: Any, columns: Columns) -> bool:
        """Whatever is a ``torch.utils.data.Dataset`` with a length."""
        names = {f"{c.__module__}.{c.__qualname__}" for c in type(data).__mro__}
        return "torch.utils.data.dataset.Dataset" in names and hasattr(data, "__len__")

    def open(self, data: Any, columns: Columns) -> Dataset:
        """Read every item once for its hash and, where the dataset has no ``targets``, its label."""
        labels: list[Any] = []

        def pictures() -> Any:
            for row in range(len(data)):
                item = data[row]
                if isinstance(item, tuple | list) and len(item) > 1:
                    labels.append(item[1])
                yield _pixels(item, row)

        hashes = hash_items(pictures())
        source = type(data).__name__
        found = getattr(data, "targets", None) if len(labels) != len(data) else labels
        classes = None if found is None or columns.label == "none" else [plain(value) for value in found]
        if classes is not None and not all(map(is_class, classes)):
            classes = None  # masks, boxes, second views: no classes
        numbers, names = encode_labels(classes, len(data), source)
        given = getattr(data, "classes", None)
        if numbers is not None and given is not None and len(given) == len(names):
            names = tuple(map(str, given))
        manifest = Manifest([f"{source} {i}" for i in range(len(data))], hashes, numbers, names, source=source)
        return Dataset.of(manifest, TorchPayloads(data))


def _pixels(item: Any, row: int) -> npt.NDArray[Any]:
    picture = item[0] if isinstance(item, tuple | list) else item
    if hasattr(picture, "detach"):
        picture = picture.detach().cpu().numpy()
    elif not isinstance(picture, np.ndarray):
        from fastness_runtime.decode import picture_pixels

        picture = picture_pixels(picture) if hasattr(picture, "convert") else None
    if picture is None:
        raise BadInput(f"item {row}: is no picture; the dataset should give tensors, arrays or PIL images")
    return np.asarray(picture)
