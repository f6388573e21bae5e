"""Real items as they are handed to a measured process, and as they would go over the wire."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastness.bundle import Bundle
from fastness.core.errors import BadInput
from fastness.core.files import write_bytes, write_json
from fastness.core.registry import Registry
from fastness.core.seeds import numpy_generator
from fastness.data import Dataset
from fastness.data.table import TableItems
from fastness.data.text import texts_of
from fastness.delivery.mappings import as_mappings
from fastness_runtime.decode import DamagedItem, decode

Items = list[bytes] | list[str] | list[dict[str, Any]]

HANDED: Registry[Callable[[Bundle, Dataset], Items]] = Registry(
    "deliverable modality", "fastness.delivery.bench", dict.fromkeys(("image", "text", "table"), "handed")
)
"""By modality. Adding one is a function and a line here."""


@HANDED.register("image")
def _files(bundle: Bundle, dataset: Dataset) -> list[bytes]:
    """Pictures as their files' bytes; those that are in memory as PNG."""
    found = []
    for row in dataset.rows:
        try:
            payload = dataset.payloads.read(int(row))
            pixels = decode(payload)
        except (DamagedItem, OSError):
            continue  # opening the data has counted it
        found.append(payload if isinstance(payload, bytes) else _png(pixels))
    return found


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@HANDED.register("text")
def _texts(bundle: Bundle, dataset: Dataset) -> list[str]:
    return texts_of(bundle.encoder.prepare(dataset).dataset)


@HANDED.register("table")
def _rows(bundle: Bundle, dataset: Dataset) -> list[dict[str, Any]]:
    items = bundle.encoder.prepare(dataset)
    assert isinstance(items, TableItems)
    return as_mappings(items)


def draw(bundle: Bundle, dataset: Dataset, count: int, seed: int) -> Items:
    """Return up to so many usable items of a data set, drawn by the seed.

    Raises:
        BadInput: there is none.
    """
    chosen = np.sort(numpy_generator(seed, "bench").permutation(len(dataset))[:count])
    found = HANDED.get(bundle.modality)(bundle, dataset.select(chosen))
    if not found:
        raise BadInput(f"{dataset.whole.source}: no usable item to measure with; give others")
    return found


def write(items: Items, folder: Path) -> None:
    """Write items so that a process can read them with nothing but Python's own library."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [item for item in items if isinstance(item, bytes)]
    if pictures:
        write_bytes(folder / "items.bin", b"".join(pictures))
        write_json(folder / "items.json", {"lengths": [len(item) for item in pictures]})
    else:
        write_json(folder / "items.json", {"items": items})


def wire_bytes(items: Items) -> float:
    """Return the mean length of an item over the wire: a picture's file, a text in UTF-8, a row as JSON."""
    lengths = [len(item if isinstance(item, bytes) else _encoded(item)) for item in items]
    return sum(lengths) / len(lengths)


def _encoded(item: Any) -> bytes:
    text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, separators=(",", ":"))
    return text.encode()
