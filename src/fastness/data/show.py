"""An item as a person looks at it: a picture, or a line of text."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from PIL import Image

from fastness.data.dataset import Dataset
from fastness.data.decode import DamagedItem, decode
from fastness.data.manifest import printable

_NOTHING = Image.new("RGB", (1, 1), "#eeeeee")


def shown(dataset: Dataset, position: int) -> Image.Image | str:
    """Return the item at ``position`` as a picture or text; of several sides the first picture, else all texts."""
    try:
        return as_seen(dataset.payloads.read(int(dataset.rows[position])))
    except OSError:  # the file went away since it was read
        return _NOTHING.copy()


def as_seen(payload: Any) -> Image.Image | str:
    """Return what a source read as a picture or text; see `shown`."""
    if isinstance(payload, str):
        return printable(payload)
    if isinstance(payload, bytes | np.ndarray):
        try:
            return Image.fromarray(decode(payload))
        except DamagedItem:
            return _NOTHING.copy()
    sides = {
        name: as_seen(value) if isinstance(value, str | bytes | np.ndarray | dict) else _said(value)
        for name, value in payload.items()
    }
    pictures = [side for side in sides.values() if not isinstance(side, str)]
    return pictures[0] if pictures else "; ".join(f"{name}: {text}" for name, text in sides.items())


def _said(cell: Any) -> str:
    """Return a table's cell that is no text (a number, a date, nothing) as a person reads it."""
    return "" if cell is None else str(cell)


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
