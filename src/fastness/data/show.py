"""An item as a person sees it and speaks of it: a picture, or a line of text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastness.core.registry import Registry
from fastness.data.dataset import Dataset
from fastness.data.manifest import printable
from fastness.data.sides import sides_of
from fastness_runtime.decode import DamagedItem, decode

_NOTHING = Image.new("RGB", (1, 1), "#eeeeee")
_PLURALS = {"image": "pictures", "text": "texts", "table": "rows", "sides": "things with several sides"}

LOOKS: Registry[Callable[[Any], Image.Image | str]] = Registry(
    "look", "fastness.data", {"image": "show", "text": "show", "table": "show"}
)
"""How an item looks that a source read, by modality: from what `Payloads.read` gives to a picture or a line of text."""


@LOOKS.register("image")
def _picture(payload: bytes | npt.NDArray[np.generic]) -> Image.Image:
    try:
        return Image.fromarray(decode(payload))
    except DamagedItem:
        return _NOTHING.copy()


@LOOKS.register("text")
def _text(payload: str) -> str:
    return printable(payload)


@LOOKS.register("table")
def _row(payload: dict[str, Any]) -> str:
    return _joined({name: "" if cell is None else str(cell) for name, cell in payload.items()})


def _joined(texts: dict[str, str]) -> str:
    return "; ".join(f"{name}: {printable(text)}" for name, text in texts.items())


def shown(dataset: Dataset, position: int) -> Image.Image | str:
    """Return the item at ``position`` as a picture or text; of several sides the first picture, else all texts."""
    row = int(dataset.rows[position])
    try:
        seen = {name: as_seen(side.payloads.read(row), side.modality) for name, side in sides_of(dataset).items()}
    except OSError:  # the file went away since it was read
        return _NOTHING.copy()
    pictures = [look for look in seen.values() if not isinstance(look, str)]
    if pictures or len(seen) == 1:
        return next(iter(pictures or seen.values()))
    return _joined({name: str(text) for name, text in seen.items()})


def as_seen(item: Any, modality: str) -> Image.Image | str:
    """Return what a source read as a picture or text; items of a modality without a look are told by its name."""
    return LOOKS.get(modality)(item) if modality in LOOKS else f"({modality})"


def plural(modality: str) -> str:
    """Return what items of a modality are called in messages."""
    return _PLURALS.get(modality, f"{modality} items")


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture in the middle of a white square; small ones are enlarged by whole factors."""
    picture = picture.copy()
    picture.thumbnail((side, side))
    if max(picture.size) < side:
        factor = side // max(picture.size)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def wrapped(text: str, width: int, lines: int) -> str:
    """Return text broken into lines of at most ``width`` characters, cut off after ``lines``."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))
