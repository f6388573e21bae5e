"""What a drill asks a service about: items as clients send them, and the same after something happened to them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastness.core.errors import BadInput
from fastness.core.registry import Registry
from fastness.core.seeds import numpy_generator
from fastness_runtime.decode import decode

if TYPE_CHECKING:
    from fastness.data import Dataset

SEVERITY = 5
"""Of what happens to items: a drill is to be noticed."""

_PICTURE, _TEXT = "gaussian_noise", "homoglyphs"  # what happens to them
Item = str | dict[str, Any]


def items_of(dataset: Dataset, most: int, seed: int) -> list[Any]:
    """Return the raw items of a sample of a data set, as its source reads them.

    Args:
        dataset: of one modality.
        most: items at most.
        seed: of the sample.
    """
    chosen = np.sort(numpy_generator(seed, "drill").permutation(dataset.rows)[:most])
    return [dataset.payloads.read(int(row)) for row in chosen]


def sent(item: Any) -> Item:
    """Return an item as a client sends it: a text, a row as an object, a picture as a data URL."""
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        return {name: cell.item() if hasattr(cell, "item") else cell for name, cell in item.items()}
    if isinstance(item, bytes):
        return "data:image/png;base64," + base64.b64encode(item).decode()  # whatever it is, its first bytes tell
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(decode(item)).save(buffer, "PNG")
    return sent(buffer.getvalue())


# -- what happens to items ---------------------------------------------------------------------------------------------

HAPPENS: Registry[Callable[[Any, int], Any]] = Registry("accident of a drill", __name__, {})
"""By modality: changes an item that a source read, drawing from a seed."""


@HAPPENS.register("image")
def _noisy(item: Any, seed: int) -> Any:
    """Take a picture in far too little light."""
    import torch

    from fastness.core.seeds import torch_generator
    from fastness.corruptions.image import CORRUPTIONS

    pixels = torch.from_numpy(decode(item).copy()).permute(2, 0, 1)[None]
    changed = CORRUPTIONS.get(_PICTURE)(pixels, SEVERITY, torch_generator(seed, _PICTURE))
    return changed[0].permute(1, 2, 0).numpy()


@HAPPENS.register("text")
def _foreign(item: str, seed: int) -> str:
    """Write a text with letters that only look like its own."""
    from fastness.corruptions.text import TEXT_CORRUPTIONS

    return TEXT_CORRUPTIONS.get(_TEXT)(item, SEVERITY, seed)


@HAPPENS.register("table")
def _empty(item: dict[str, Any], seed: int) -> dict[str, Any]:
    """Lose half of a row's cells."""
    gone = numpy_generator(seed, "cells").random(len(item)) < 0.5
    return {name: None if lost else cell for (name, cell), lost in zip(item.items(), gone, strict=True)}


def happened(items: list[Any], modality: str, seed: int) -> list[Any]:
    """Return items after an accident of their modality.

    Raises:
        BadInput: none is known of it.
    """
    if modality not in HAPPENS:
        raise BadInput(f"what could happen to {modality} is not known; give items that are otherwise (--drift DATA)")
    change = HAPPENS.get(modality)
    return [change(item, seed + number) for number, item in enumerate(items)]
