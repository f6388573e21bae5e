"""One encoded picture becomes pixels: every odd kind read right, every damaged one named.

What is odd and fine: EXIF rotation is applied, the first frame of an animation is taken, 16-bit and float
pictures are scaled to 8 bits, CMYK and palettes become RGB, transparency is laid on white.
"""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

MAX_PIXELS = 200_000_000
"""Pictures that declare more pixels are refused unread: they are attacks or mistakes."""

Pixels = npt.NDArray[np.uint8]


_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA", "PCX")


@cache
def formats() -> tuple[str, ...]:
    """Return the formats that are read: those that hold pixels, and nothing that runs, or hides another picture."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


class DamagedItem(Exception):
    """An item that cannot be decoded; the message is the reason in one line."""


def decode(payload: bytes | npt.NDArray[Any], wanted: int | None = None) -> Pixels:
    """Return the pixels of one item, uint8 ``[H, W, 3]``, RGB.

    Args:
        payload: an encoded picture, or an array ``[H, W]`` or ``[H, W, C]`` with C = 1, 3 or 4.
        wanted: the side in pixels that is needed; a JPEG may be decoded at a fraction of its size as
            long as it stays at least twice as large, which saves most of the time.

    Raises:
        DamagedItem: the item is no readable picture; says why.
    """
    if isinstance(payload, np.ndarray):
        return from_array(payload)
    if not payload:
        raise DamagedItem("empty file")
    try:
        return _decode_bytes(payload, wanted)
    except UnidentifiedImageError:
        raise DamagedItem("no picture in any known format") from None
    except Image.DecompressionBombError:
        raise DamagedItem(f"declares more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise DamagedItem("needs more memory than there is") from None
    except Exception as error:  # noqa: BLE001 - Pillow's plugins raise anything at all on damaged files
        raise DamagedItem(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from None


def declared(payload: bytes) -> int:
    """Return how many pixels an encoded picture says that it has, without decoding it; 0 if it says nothing."""
    try:
        with Image.open(io.BytesIO(payload), formats=formats()) as image:
            return int(image.width * image.height)
    except Exception:  # noqa: BLE001 - as above; `decode` says what is wrong with it
        return 0


def _decode_bytes(payload: bytes, wanted: int | None) -> Pixels:
    with Image.open(io.BytesIO(payload), formats=formats()) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DamagedItem(f"declares {width} × {height} pixels, more than {MAX_PIXELS:,}")
        if wanted and image.format == "JPEG":
            image.draft(None, (min(2 * wanted, width), min(2 * wanted, height)))
        image.load()
        return picture_pixels(image)


def picture_pixels(image: Image.Image) -> Pixels:
    """Return the pixels of an opened Pillow picture, uint8 ``[H, W, 3]``, turned upright."""
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - its metadata is damaged, and its pixels are not: it stays as it lies
        turned = None
    return _to_rgb(turned if turned is not None else image)


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):
        return from_array(np.asarray(image) / np.float32(65535))  # by 257, however dark the picture is
    if image.mode in {"I", "F"}:
        return from_array(np.asarray(image))
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def from_array(array: npt.NDArray[Any]) -> Pixels:
    """Return an array of pixels as uint8 ``[H, W, 3]``.

    Integers wider than 8 bits are taken as 16-bit (divided by 257) if any value exceeds 255; floats as
    [0, 1] if no value exceeds 1, else as [0, 255].

    Raises:
        DamagedItem: the shape is no picture, or a value is not finite.
    """
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise DamagedItem(f"an array of shape {array.shape} is no picture")
    if array.shape[2] == 4 and array.dtype == np.uint8:
        return _to_rgb(Image.fromarray(np.ascontiguousarray(array)))
    array = array[:, :, :3]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DamagedItem("holds values that are not finite")
        array = array * (255.0 if array.max() <= 1 else 1.0)
    elif array.dtype != np.uint8 and array.max() > 255:
        array = array / 257.0
    if array.dtype != np.uint8:
        array = np.clip(np.rint(array), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


# Remarks on odd metadata; the pixels are what counts. Not while decoding: what threads would put back is any other's.
warnings.filterwarnings("ignore", module=r"PIL\.")
# A truncated file must raise rather than come back half grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
