"""The decoded cache: every item decoded once into one memory-mapped uint8 array.

Keyed by the source's fingerprint and the size, so it never goes stale. One builder at a time holds a lock;
others wait and then find the finished folder. It is built beside its final name and renamed, so a builder
killed half-way leaves nothing that could be mistaken for a cache; the next one removes the remains.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from fastness.core.errors import BadInput
from fastness.core.files import cache_root, disk_errors, write_json
from fastness.core.hardware import cores
from fastness.data.dataset import Dataset
from fastness.data.items import Floats, Items, Positions, Progress
from fastness_runtime.decode import DamagedItem, decode

if TYPE_CHECKING:
    import torch

RESIDENT_BYTES = 8 << 30
"""Pictures up to this size are kept on the accelerator."""

_UNREAD = "cannot be read"  # the storage's doing, unlike damage; tried again the next time
_VERSION = 1  # raise when decoding or resizing changes, so that old caches are not used


@dataclass(frozen=True)
class DecodedImages(Items):
    """A dataset's pictures as pixels.

    Attributes:
        dataset: the items that could be decoded; the others are in its quarantine.
        size: side in pixels.
        pixels: uint8 ``[items of the source, 3, size, size]``, memory-mapped read-only.
    """

    dataset: Dataset
    size: int
    pixels: npt.NDArray[np.uint8]
    resident: torch.Tensor | None = None  # the dataset's own items in order, on an accelerator

    def batch(self, positions: Positions) -> torch.Tensor:
        """Return items at ``positions`` of the dataset as a uint8 tensor ``[B, 3, size, size]``."""
        import torch

        if self.resident is not None:
            return self.resident[torch.from_numpy(positions).to(self.resident.device)]
        return torch.from_numpy(self.pixels[self.dataset.rows[positions]])

    def select(self, rows: npt.NDArray[np.generic]) -> DecodedImages:
        """Return the pictures at ``rows`` (positions or a mask)."""
        return DecodedImages(self.dataset.select(rows), self.size, self.pixels)

    def on(self, device: torch.device) -> DecodedImages:
        """See `Items.on`."""
        import torch

        if device.type == "cpu" or len(self) * 3 * self.size**2 > RESIDENT_BYTES:
            return self
        return replace(self, resident=torch.cat([batch for _, batch in self.batches(4096)]).to(device))

    def plain(self, known: DecodedImages) -> Floats:
        """Return the pixels, at most 18 × 18 of each channel (shrunk by averaging)."""
        import torch

        side = min(self.size, 18)
        parts = [
            torch.nn.functional.interpolate(batch.float() / 255, size=(side, side), mode="area").flatten(1)
            for _, batch in self.batches(1000)
        ]
        return torch.cat(parts).numpy()

    def traits(self) -> dict[str, Floats]:
        """Return ``brightness`` and ``contrast`` (mean and deviation of the luma, 0 to 255), ``saturation`` (mean of
        the difference of the largest and the smallest channel) and ``sharpness`` (mean step between neighbours).
        """
        import torch

        luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        parts: dict[str, list[torch.Tensor]] = {}
        for _, batch in self.batches(1000):
            pixels = batch.float()
            grey = (pixels * luma.to(batch.device)).sum(1)
            found = {
                "brightness": grey.mean((1, 2)),
                "contrast": grey.std((1, 2), correction=0),
                "saturation": (pixels.amax(1) - pixels.amin(1)).mean((1, 2)),
                "sharpness": (grey.diff(dim=1).abs().mean((1, 2)) + grey.diff(dim=2).abs().mean((1, 2))) / 2,
            }
            for name, values in found.items():
                parts.setdefault(name, []).append(values.cpu())
        return {name: torch.cat(values).numpy() for name, values in parts.items()}


def decoded(dataset: Dataset, size: int, progress: Progress | None = None) -> DecodedImages:
    """Return the dataset's pictures as ``size`` × ``size`` pixels, decoding them if this was never done.

    Raises:
        BadInput: not one item can be decoded; names the first and its reason.
        Failure: no room on the disk.
    """
    folder = cache_root() / "decoded" / f"{dataset.whole.fingerprint[:32]}-{size}-v{_VERSION}"
    if not _complete(folder):
        with disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not _complete(folder):
                    _build(dataset, size, folder, progress)
    damaged = {int(row): reason for row, reason in json.loads((folder / "damaged.json").read_text()).items()}
    usable = dataset.without(damaged)
    if not len(usable):
        first = usable.quarantine[0] if usable.quarantine else None
        example = f", e.g. {first.name}: {first.reason}" if first else ""
        raise BadInput(f"{dataset.whole.source}: none of {len(dataset)} items can be decoded{example}")
    return DecodedImages(usable, size, np.load(folder / "pixels.npy", mmap_mode="r"))


def _complete(folder: Path) -> bool:
    """Whether a set was decoded, with no item left out that may be readable the next time."""
    return folder.exists() and not (folder / "unread").exists()


def _build(dataset: Dataset, size: int, folder: Path, progress: Progress | None) -> None:
    total = len(dataset.whole)
    temporary = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed builder left; we hold the lock
    temporary.mkdir()
    try:
        pixels = _allocate(temporary / "pixels.npy", (total, 3, size, size))
        damaged: dict[int, str] = {}
        blocks = [range(start, min(start + 128, total)) for start in range(0, total, 128)]
        with ThreadPoolExecutor(cores()) as pool:
            for block, found in zip(
                blocks, pool.map(partial(_decode_rows, dataset, pixels, size), blocks), strict=True
            ):
                damaged |= found
                if progress:
                    progress(block.stop, total)
        pixels.flush()
        write_json(temporary / "damaged.json", damaged)
        if any(reason.startswith(_UNREAD) for reason in damaged.values()):
            (temporary / "unread").touch()
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _allocate(path: Path, shape: tuple[int, int, int, int]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Make an array file whose room on the disk is reserved: a full disk refuses here, not in a write."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("rb+") as handle:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
    return pixels


def _decode_rows(dataset: Dataset, pixels: npt.NDArray[np.uint8], size: int, rows: range) -> dict[int, str]:
    """Decode items into their rows; return the reasons of those that are damaged."""
    damaged = {}
    for row in rows:
        try:
            pixels[row] = decode_square(dataset.payloads.read(row), size)
        except DamagedItem as error:
            damaged[row] = str(error)
        except OSError as error:
            damaged[row] = f"{_UNREAD} ({error.strerror or error})"
    return damaged


def decode_square(payload: bytes | npt.NDArray[np.generic], size: int) -> npt.NDArray[np.uint8]:
    """Return one item as pixels uint8 ``[3, size, size]``.

    Raises:
        DamagedItem: it cannot be decoded.
    """
    import torch

    from fastness.data.square import centred_square

    array = decode(payload, wanted=size).transpose(2, 0, 1)
    if array.shape[1:] == (size, size):
        return array
    # The copy also takes away the read-only mark that torch warns of.
    return centred_square(torch.from_numpy(array.copy()), size).numpy()
