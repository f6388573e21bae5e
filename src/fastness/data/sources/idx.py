"""IDX files (MNIST's format), plain or gzip: one file, or a folder of train and test files."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.data.dataset import Dataset
from fastness.data.sources import SOURCES, Columns
from fastness.data.sources.arrays import from_pixels

_NAME = re.compile(r"(?P<part>.*?)-?images?[.-]idx3-ubyte(\.gz)?$")
_SPLITS = {"t10k": "test", "test": "test", "train": "train"}
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@SOURCES.register("idx")
class IdxSource:
    """Opens ``*-images-idx3-ubyte[.gz]`` with the labels beside it."""

    def accepts(self, data: Any, columns: Columns) -> bool:
        """A file of that name, or a folder that holds one."""
        if not isinstance(data, Path):
            return False
        return bool(_NAME.match(data.name) and data.is_file()) or (data.is_dir() and bool(_images(data)))

    def open(self, data: Any, columns: Columns) -> Dataset:
        """Read all parts into memory."""
        parts = _images(data) if data.is_dir() else [data]
        pixels, labels, splits = [], [], []
        for path in parts:
            images = read_idx(path)
            named = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
            pixels.append(images)
            labels.append(read_idx(named) if named.exists() and columns.label != "none" else None)
            match = _NAME.match(path.name)
            splits += [_SPLITS.get(match["part"] if match else "", "")] * len(images)
        known = [y for y in labels if y is not None]
        together = np.concatenate(known) if len(known) == len(parts) else None
        found = np.array(splits, np.str_) if len(parts) > 1 and any(splits) else None
        return from_pixels(np.concatenate(pixels), together, str(data), found)


def _images(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if _NAME.match(path.name)]
    plain = {path.name.removesuffix(".gz"): path for path in sorted(found, reverse=True)}
    return sorted(plain.values(), key=lambda path: "train" not in path.name)


def read_idx(path: Path) -> npt.NDArray[Any]:
    """Return the array of an IDX file.

    Raises:
        BadInput: the header is not IDX's, or the file is shorter than it says.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES:
        raise BadInput(f"{path}: does not start as an IDX file does")
    rank, dtype = raw[3], np.dtype(_TYPES[raw[2]])
    shape = tuple(np.frombuffer(raw, ">u4", rank, 4).tolist()) if len(raw) >= 4 + 4 * rank else ()
    if not shape or len(raw) - 4 - 4 * rank != math.prod(shape) * dtype.itemsize:
        raise BadInput(f"{path}: its length does not fit its header; download it again")
    return np.frombuffer(raw, dtype, offset=4 + 4 * rank).reshape(shape).astype(dtype.newbyteorder("="))
