"""NumPy's ``.npy`` and ``.npz`` files, and folders of ``train.npz``, ``test.npz``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.data.dataset import Dataset
from fastness.data.sources import SOURCES, Columns
from fastness.data.sources.arrays import from_pixels
from fastness.data.splits import canonical

_IMAGES = ("images", "image", "x", "X", "data", "pixels", "arr_0")
_LABELS = ("labels", "label", "y", "Y", "targets", "target", "arr_1")


@SOURCES.register("npy")
class NumpySource:
    """Opens ``.npy`` (memory-mapped) and ``.npz``."""

    def accepts(self, data: Any, columns: Columns) -> bool:
        """Files ending so."""
        return isinstance(data, Path) and data.suffix in {".npy", ".npz"} and data.is_file()

    def open(self, data: Any, columns: Columns) -> Dataset:
        """Find images and labels by their usual names, or by the columns given."""
        try:
            loaded = np.load(data, mmap_mode="r" if data.suffix == ".npy" else None, allow_pickle=False)
        except Exception as error:  # noqa: BLE001 - a header is read as Python text: a damaged one raises anything
            raise BadInput(f"{data}: not readable as a NumPy file ({(str(error).splitlines() or [''])[0]})") from None
        if isinstance(loaded, np.ndarray):
            return from_pixels(loaded, None, str(data))
        with loaded as arrays:
            images = _pick(arrays, columns.image, _IMAGES, data)
            if images is None:
                raise BadInput(
                    f"{data}: none of its arrays ({', '.join(arrays)}) is called images; name it with --image"
                )
            label = None if columns.label == "none" else _pick(arrays, columns.label, _LABELS, data)
            split = None if columns.split in (None, "none") else _pick(arrays, columns.split, (), data)
            splits = None if split is None else np.array([canonical(str(name)) for name in split], np.str_)
            return from_pixels(images, label, str(data), splits)


def _pick(arrays: Any, wanted: str | None, usual: tuple[str, ...], path: Path) -> npt.NDArray[Any] | None:
    if wanted is not None and wanted not in arrays:
        raise BadInput(f"{path}: no array '{wanted}'; there are: {', '.join(arrays)}")
    name = wanted or next((key for key in usual if key in arrays), None)
    try:
        found = None if name is None else np.asarray(arrays[name])
    except Exception as error:  # noqa: BLE001 - as above, and whatever its compression raises
        raise BadInput(f"{path}: array '{name}' cannot be read ({error})") from None
    if found is not None and found.ndim == 0:
        raise BadInput(f"{path}: array '{name}' is a single value; store one an item")
    return found
