"""Search: the items of a collection that are nearest to a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from fastness.bundle import Bundle, load
from fastness.core.errors import BadInput
from fastness.core.files import atomic_path
from fastness.data import Dataset, open_data
from fastness.data.decode import DamagedItem, decode
from fastness.data.manifest import printable
from fastness.index import VectorIndex


@dataclass(frozen=True)
class Hit:
    """One answer: the item's name, its cosine similarity to the query, its position and class."""

    item: str
    similarity: float
    position: int
    label: str | None = None


@dataclass(frozen=True)
class Answers:
    """What a search found, best first, over which data set."""

    query: str
    hits: list[Hit]
    dataset: Dataset

    def contact_sheet(self, path: Path, query: Any, tile: int = 128, columns: int = 6) -> Path:
        """Write the query and the hits as one PNG picture and return its path."""
        pictures = [("query", query)] + [
            (
                f"{hit.similarity:.3f}  {hit.label or ''}".strip(),
                self.dataset.payloads.read(int(self.dataset.rows[hit.position])),
            )
            for hit in self.hits
        ]
        rows = -(-len(pictures) // columns)
        width = min(columns, len(pictures))
        sheet = Image.new("RGB", (width * (tile + 8) + 8, rows * (tile + 26) + 8), "white")
        pen = ImageDraw.Draw(sheet)
        for i, (caption, payload) in enumerate(pictures):
            x, y = 8 + (i % columns) * (tile + 8), 8 + (i // columns) * (tile + 26)
            sheet.paste(_thumbnail(payload, tile), (x, y))
            pen.text((x, y + tile + 4), caption[:22], fill="black")
            if i == 0:
                pen.rectangle((x - 3, y - 3, x + tile + 2, y + tile + 2), outline="#0b6e4f", width=3)
        with atomic_path(path) as temporary:
            sheet.save(temporary, "PNG")
        return path


def search(bundle: Bundle | str | Path, data: Any, query: str | Path, k: int = 10, **columns: str | None) -> Answers:
    """Return the ``k`` items of ``data`` nearest to the picture in the file ``query``.

    Raises:
        BadInput: the query is no readable picture, or the data cannot be opened.
    """
    if k < 1:
        raise BadInput(f"-k {k}: ask for at least one answer")
    if not isinstance(bundle, Bundle):
        bundle = load(bundle)
    path = Path(query)
    if not path.is_file():
        raise BadInput(f"{query}: no such picture; --query takes a file")
    try:
        wanted = bundle.embed([path])
    except BadInput as error:
        raise BadInput(f"{path}: {str(error).split(': ', 1)[-1]}") from None
    embedded = bundle.embed_dataset(open_data(data, **columns))
    scores, rows = VectorIndex(embedded.vectors).search(wanted, k)
    manifest = embedded.dataset.manifest
    hits = [
        Hit(printable(manifest.names[row]), round(float(score), 6), int(row), _class(embedded.dataset, int(row)))
        for score, row in zip(scores[0], rows[0], strict=True)
        if row >= 0
    ]
    return Answers(str(query), hits, embedded.dataset)


def _class(dataset: Dataset, row: int) -> str | None:
    labels = dataset.labels
    return None if labels is None or labels[row] < 0 else dataset.class_names[labels[row]]


def _thumbnail(payload: Any, tile: int) -> Image.Image:
    try:
        picture = Image.fromarray(decode(payload))
    except DamagedItem:  # the file changed since it was embedded
        return Image.new("RGB", (tile, tile), "#eeeeee")
    picture.thumbnail((tile, tile))
    if max(picture.size) < tile:
        factor = tile // max(picture.size)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    square = Image.new("RGB", (tile, tile), "white")
    square.paste(picture, ((tile - picture.width) // 2, (tile - picture.height) // 2))
    return square
