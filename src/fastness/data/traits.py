"""What can be told of an item by looking, without torch: a service looks at items one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

OF_TEXT = ("words", "characters", "capitals", "foreign", "digits")
OF_PICTURE = ("brightness", "contrast", "saturation", "sharpness", "width", "height")
OTHERS = "(others)"
"""Stands for a category's values that training did not list."""

_POINTS = 64  # to a side of a picture
_SEEN = 10_000  # characters of a text whose shares are counted
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def of_text(text: str) -> tuple[float, ...]:
    """Return words, characters, the shares of letters that are capitals and foreign to ASCII, and that of digits.

    Shares are of the first 10,000 characters.
    """
    start = text[:_SEEN]
    letters = [character for character in start if character.isalpha()]
    of_letters, of_all = max(1, len(letters)), max(1, len(start))
    return (
        len(text.split()),
        len(text),
        sum(letter.isupper() for letter in letters) / of_letters,
        sum(not letter.isascii() for letter in letters) / of_letters,
        sum(character.isdigit() for character in start) / of_all,
    )


def of_picture(pixels: npt.NDArray[np.uint8]) -> tuple[float, ...]:
    """Return what `OF_PICTURE` names, by a grid of at most 64 × 64 points, so that large pictures cost no more.

    Brightness and contrast are mean and deviation of the luma (0 to 255), saturation the mean difference of the largest
    and the smallest channel, sharpness the mean step from a point to its neighbours, in pixels as they came.

    Args:
        pixels: uint8 ``[H, W, 3]``.
    """
    H, W = pixels.shape[:2]
    down, right = -(-H // _POINTS), -(-W // _POINTS)
    seen = pixels[::down, ::right].astype(np.float32)
    grey = seen @ _LUMA
    below = pixels[np.minimum(np.arange(0, H, down) + 1, H - 1)][:, ::right].astype(np.float32) @ _LUMA
    beside = pixels[::down, np.minimum(np.arange(0, W, right) + 1, W - 1)].astype(np.float32) @ _LUMA
    steps = (np.abs(below - grey).mean() + np.abs(beside - grey).mean()) / 2
    chroma = (seen.max(2) - seen.min(2)).mean()
    return (float(grey.mean()), float(grey.std()), float(chroma), float(steps), float(W), float(H))


def of_cells(cells: npt.NDArray[np.float32], columns: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return coded cells as columns by name, and how many cells of each row are ``missing``.

    Args:
        cells: float32 ``[N, C]``, as an encoder takes them.
        columns: what each is: ``name``, ``kind``, and its ``origin`` or ``values``.

    Returns:
        numbers and dates (days since 1970) float64 ``[N]``, NaN where missing; categories texts, empty where missing.
    """
    gone, found = np.isnan(cells), {}
    for place, known in enumerate(columns):
        mine = cells[:, place].astype(np.float64)
        if known["kind"] == "category":
            names = np.array([*map(str, known["values"]), OTHERS, ""], object)
            place_of = np.where(gone[:, place], len(names) - 1, np.nan_to_num(mine)).astype(np.int64)
            found[str(known["name"])] = names[np.minimum(place_of, len(names) - 1)]
        else:
            found[str(known["name"])] = mine + float(known["origin"])
    return {**found, "missing": gone.sum(1).astype(np.float64)}
