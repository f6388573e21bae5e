"""Search: the items of a collection that are nearest to a picture or to words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from fastness.bundle import Bundle, load
from fastness.core.errors import BadInput
from fastness.core.files import atomic_path
from fastness.data import Dataset
from fastness.data.manifest import printable
from fastness.data.show import as_seen, shown, thumbnail, wrapped
from fastness.index import VectorIndex


@dataclass(frozen=True)
class Hit:
    """One answer: the item's name, its cosine similarity to the query, its position, class, and text if it has one."""

    item: str
    similarity: float
    position: int
    label: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Answers:
    """What a search found, best first, over which data set; ``asked`` is the query as a person sees it."""

    query: str
    asked: Image.Image | str
    hits: list[Hit]
    dataset: Dataset

    def contact_sheet(self, path: Path, tile: int = 128, columns: int = 6) -> Path:
        """Write the query and the hits as one PNG picture and return its path."""
        cells = [("query", self.asked)] + [
            (f"{hit.similarity:.3f}  {hit.label or ''}".strip(), shown(self.dataset, hit.position)) for hit in self.hits
        ]
        rows = -(-len(cells) // columns)
        width = min(columns, len(cells))
        sheet = Image.new("RGB", (width * (tile + 8) + 8, rows * (tile + 26) + 8), "white")
        pen = ImageDraw.Draw(sheet)
        for i, (caption, item) in enumerate(cells):
            x, y = 8 + (i % columns) * (tile + 8), 8 + (i // columns) * (tile + 26)
            if isinstance(item, str):
                pen.multiline_text((x, y), wrapped(item, tile // 6, tile // 14), fill="black")
            else:
                sheet.paste(thumbnail(item, tile), (x, y))
            pen.text((x, y + tile + 4), caption[:22], fill="black")
            if i == 0:
                pen.rectangle((x - 3, y - 3, x + tile + 2, y + tile + 2), outline="#0b6e4f", width=3)
        with atomic_path(path) as temporary:
            sheet.save(temporary, "PNG")
        return path


def search(bundle: Bundle | str | Path, data: Any, query: str | Path, k: int = 10, **columns: str | None) -> Answers:
    """Return the ``k`` items of ``data`` nearest to a query: a picture's file, or words.

    Raises:
        BadInput: the query is nothing that this bundle can embed, or the data cannot be opened.
    """
    if k < 1:
        raise BadInput(f"-k {k}: ask for at least one answer")
    if not isinstance(bundle, Bundle):
        bundle = load(bundle)
    item, wanted = bundle.ask(str(query))
    side, _ = bundle.encoder.meant(str(query))
    asked = as_seen(item, bundle.modality if side is None else bundle.of_side(side).modality)
    embedded = bundle.embed_dataset(bundle.open(data, **columns))
    scores, rows = VectorIndex(embedded.vectors).search(wanted, k)
    manifest = embedded.dataset.manifest
    hits = [
        Hit(
            printable(manifest.names[row]),
            round(float(score), 6),
            int(row),
            _class(embedded.dataset, int(row)),
            _text(embedded.dataset, int(row)),
        )
        for score, row in zip(scores[0], rows[0], strict=True)
        if row >= 0
    ]
    return Answers(str(query), asked, hits, embedded.dataset)


def _text(dataset: Dataset, row: int) -> str | None:
    seen = shown(dataset, row)
    return seen if isinstance(seen, str) else None


def _class(dataset: Dataset, row: int) -> str | None:
    labels = dataset.labels
    return None if labels is None or labels[row] < 0 else dataset.class_names[labels[row]]
