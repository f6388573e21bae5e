"""A folder as the world makes them: good pictures, odd ones that are fine, and ones that cannot be read."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from conftest import picture

Pixels = npt.NDArray[np.uint8]
EXACT, LOSSY = 1.0, 12.0  # largest difference of a value allowed


@dataclass(frozen=True)
class Hostile:
    """What was written.

    Attributes:
        bad: relative path of what must be quarantined -> a word that the reason must have.
        good: relative path of what must be read -> its pixels ``[H, W, 3]`` and the difference allowed.
        passed_over: how many files are no pictures and say so.
    """

    folder: Path
    bad: dict[str, str]
    good: dict[str, tuple[Pixels, float]]
    passed_over: int


def write_hostile(folder: Path) -> Hostile:
    """Fill ``folder``; one link leads to a picture beside it."""
    folder.mkdir(parents=True)
    files = {**_undecodable(), **{name: data for name, (data, _, _) in _odd().items()}}
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    good = {name: (pixels, allowed) for name, (_, pixels, allowed) in _odd().items()}
    bad = {name: _WORDS[name] for name in _undecodable()}

    outside = folder.with_name("outside")
    outside.mkdir()
    (outside / "linked.png").write_bytes(_encoded(picture(90), "PNG"))
    links = {
        "to a file.png": outside / "linked.png",
        "dangling.png": "nowhere.png",
        "itself.png": "itself.png",
        "device.png": "/dev/zero",
        "sub/loop": "..",
        "around": "sub",  # what lies in `sub` must not come twice
        "ring": "ring",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    good["to a file.png"] = (picture(90), EXACT)
    bad |= {"dangling.png": "nowhere", "itself.png": "itself", "ring": "itself", "device.png": "no file"}

    (folder / "notes.txt").write_text("no picture, and does not say so")
    (folder / ".hidden.png").write_bytes(b"not looked at")
    return Hostile(folder, bad, good, passed_over=1)


_WORDS = {
    "cut.jpg": "truncated",
    "cut.png": "truncated",
    "empty.jpg": "empty",
    "bomb.png": "pixels",
    "text.jpg": "no picture",
    "page.png": "no picture",
    "noise.jpg": "no picture",
    "noise with a head.jpg": "",
    "bad\nline.png": "no picture",
}


def _undecodable() -> dict[str, bytes]:
    noise = np.random.default_rng(0).bytes(2000)
    jpeg, png = (_encoded(picture(1, 32), kind) for kind in ("JPEG", "PNG"))
    return {
        "cut.jpg": jpeg[: len(jpeg) * 2 // 3],
        "cut.png": png[: len(png) * 2 // 3],
        "empty.jpg": b"",
        "bomb.png": _png_of_size(60_000, 60_000),
        "text.jpg": b"these are words",
        "page.png": b"<!doctype html><title>404</title>",
        "noise.jpg": noise,
        "noise with a head.jpg": jpeg[:4] + noise,
        "bad\nline.png": b"words",
    }


def _odd() -> dict[str, tuple[bytes, Pixels, float]]:
    """Return bytes, the pixels they mean and the difference allowed, by name."""
    upright = picture(2, 24)[:, :20]
    plain = _encoded(upright, "PNG")
    found = {
        "plain.png": (plain, upright, EXACT),
        "plain.jpg": (_encoded(upright, "JPEG"), upright, LOSSY),
        "png called.jpg": (plain, upright, EXACT),
        "jpeg without extension": (_encoded(upright, "JPEG"), upright, LOSSY),
        "jpeg called.txt": (_encoded(upright, "JPEG"), upright, LOSSY),
        "CAPITALS.PNG": (plain, upright, EXACT),
        "фото 写真 🌄.png": (plain, upright, EXACT),
        "two\nlines.png": (plain, upright, EXACT),
        os.fsdecode(b"latin-\xe9.png"): (plain, upright, EXACT),
        "sub/below.png": (plain, upright, EXACT),
        "1x1.png": (_encoded(picture(3)[:1, :1], "PNG"), picture(3)[:1, :1], EXACT),
        "cmyk.jpg": (_encoded(Image.fromarray(upright).convert("CMYK"), "JPEG"), upright, LOSSY),
    }
    line = np.repeat(picture(4)[:1], 250, axis=1)
    found["3000x1.png"] = (_encoded(line, "PNG"), line, EXACT)
    return found | _grey() | _transparent() | _rotated(upright) | _animated()


def _grey() -> dict[str, tuple[bytes, Pixels, float]]:
    deep = (picture(5)[..., 0].astype(np.uint16) * 257) ^ 85
    dark = deep // 300  # no value above 255, and still 16 bits deep
    bits = picture(6)[..., 0] > 127
    return {
        "grey16.png": (_encoded(deep, "PNG"), _rgb(deep / 257), EXACT),
        "grey16.tif": (_encoded(deep, "TIFF"), _rgb(deep / 257), EXACT),
        "grey16 dark.png": (_encoded(dark, "PNG"), _rgb(dark / 257), EXACT),
        "bits.png": (_encoded(Image.fromarray(bits), "PNG"), _rgb(bits * 255.0), EXACT),
    }


def _transparent() -> dict[str, tuple[bytes, Pixels, float]]:
    colour, alpha = picture(7), picture(8)[..., :1]
    share = alpha / 255.0
    grey = colour[..., :1]
    palette = Image.fromarray(colour).quantize(5)
    clear = np.asarray(palette) == 2
    shown = np.where(clear[..., None], 255, np.asarray(palette.convert("RGB")))
    return {
        "rgba.png": (_encoded(np.dstack([colour, alpha]), "PNG"), _on_white(colour, share), EXACT),
        "la.png": (_encoded(np.dstack([grey, alpha]), "PNG"), _on_white(grey, share), EXACT),
        "palette.png": (_encoded(palette, "PNG", transparency=2), shown.astype(np.uint8), EXACT),
    }


def _rotated(upright: Pixels) -> dict[str, tuple[bytes, Pixels, float]]:
    """All eight orientations of EXIF, each stored so that it comes out upright."""
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    found = {}
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"exif{orientation}.jpg"] = (_encoded(pixels, "JPEG", exif=exif), upright, LOSSY)
    return found


def _animated() -> dict[str, tuple[bytes, Pixels, float]]:
    frames = [Image.fromarray(picture(seed)).quantize(8) for seed in (9, 10)]
    first = np.asarray(frames[0].convert("RGB"))
    more = {"save_all": True, "append_images": frames[1:]}
    coloured = {"save_all": True, "append_images": [frames[1].convert("RGB")], "lossless": True}
    return {
        "frames.gif": (_encoded(frames[0], "GIF", **more), first, EXACT),
        "frames.webp": (_encoded(frames[0].convert("RGB"), "WEBP", **coloured), first, EXACT),
    }


def _encoded(image: npt.NDArray[np.generic] | Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _rgb(grey: npt.NDArray[np.floating]) -> Pixels:
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)


def _on_white(colour: Pixels, share: npt.NDArray[np.floating]) -> Pixels:
    return np.broadcast_to(np.rint(colour * share + 255 * (1 - share)), (*colour.shape[:2], 3)).astype(np.uint8)
