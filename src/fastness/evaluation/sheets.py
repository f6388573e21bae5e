"""The report's sheets: items of the data side by side, pictures as one inline PNG, texts as a table."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from fastness.core.seeds import numpy_generator
from fastness.data import Dataset
from fastness.data.show import shown, thumbnail
from fastness.evaluation.directions import directions as strongest
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.influence import Influence, influences
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.index import VectorIndex


def sheet(dataset: Dataset, positions: Sequence[int], across: int = 6) -> str:
    """Items side by side: pictures with the class below as one picture, texts as a table."""
    labels = dataset.labels
    names = ["" if labels is None else [*dataset.class_names, ""][labels[position]] for position in positions]
    return laid_out([shown(dataset, position) for position in positions], names, across)


def laid_out(items: Sequence[Image.Image | str], names: Sequence[str], across: int = 6) -> str:
    """Items as they look side by side, each with a name: pictures as one picture, texts as a table."""
    if any(isinstance(item, str) for item in items):
        return _table([[name, str(item)] for name, item in zip(names, items, strict=True)])
    tile, gap, line = 96, 6, 16
    width, height = min(across, len(items)) * (tile + gap), -(-len(items) // across) * (tile + gap + line)
    made = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(made)
    for place, (item, name) in enumerate(zip(items, names, strict=True)):
        assert isinstance(item, Image.Image)
        x, y = place % across * (tile + gap), place // across * (tile + gap + line)
        made.paste(thumbnail(item, tile), (x, y))
        draw.text((x, y + tile + 1), name[:16], fill="#1d2733", font=ImageFont.load_default(12))
    return _png(made)


def regions(evidence: Evidence, subject: Subject, weakest: Sequence[Measurement]) -> dict[str, str]:
    """Items on which it is wrong in each region that is among the weakest slices, by the region's name."""
    items = evidence.of_items("slices")
    if not items:
        return {}
    found = {}
    for match in filter(None, (re.match(r"(found (\d+)): ", m.slice) for m in weakest)):
        name, number = match[1], int(match[2])
        rows = np.flatnonzero((items["region"] == number) & ~items["accuracy"].astype(bool))
        if len(rows):
            found[name] = sheet(subject.held_out, rows[:6].tolist())
    return found


def influence(subject: Subject, count: int = 6) -> str:
    """Held-out items with the parts that make them resemble their nearest fitting item, and that item."""
    chosen = numpy_generator(subject.seed, "influence").permutation(len(subject.test))[:count]
    found = influences(subject, np.sort(chosen))
    pairs = [(shown(subject.held_out, f.item), shown(subject.fit.dataset, f.neighbour), f) for f in found]
    if not pairs:
        return ""
    if isinstance(pairs[0][0], str):
        rows = "".join(
            f"<tr><td>{_weighted(f)}</td><td>{escape(str(other)[:300])}</td><td class='n'>{f.cosine:.2f}</td></tr>"
            for _, other, f in pairs
        )
        return f"<table><tr><th>item</th><th>its neighbour</th><th>cosine</th></tr>{rows}</table>"
    tile, gap = 96, 6
    made = Image.new("RGB", (3 * (tile + gap), len(pairs) * (tile + gap)), "white")
    for row, (item, other, f) in enumerate(pairs):
        assert isinstance(item, Image.Image) and isinstance(other, Image.Image)
        square = ImageOps.fit(item.convert("RGB"), (tile, tile), Image.Resampling.NEAREST)
        for column, picture in enumerate((square, _lit(square, f.values), thumbnail(other, tile))):
            made.paste(picture, (column * (tile + gap), row * (tile + gap)))
    return _png(made)


def _lit(picture: Image.Image, values: Any) -> Image.Image:
    """Return a picture that is dark where hiding it would change nothing."""
    side = round(len(values) ** 0.5)
    light = np.clip(values / max(float(values.max()), 1e-9), 0, 1).reshape(side, side)
    mask = Image.fromarray((70 + 185 * light).astype(np.uint8)).resize(picture.size, Image.Resampling.BILINEAR)
    return Image.composite(picture, Image.new("RGB", picture.size, "black"), mask)


def _weighted(found: Influence) -> str:
    """Return parts as text, the more influential the darker their ground."""
    light = np.clip(found.values / max(float(found.values.max()), 1e-9), 0, 1)
    return " ".join(
        f'<span style="background:rgba(33,102,172,{0.75 * weight:.2f});padding:0 .15em">{escape(part)}</span>'
        for part, weight in zip(found.parts, light, strict=True)
    )


def directions(subject: Subject) -> list[tuple[str, str, str]]:
    """Of each strong direction what it follows, and the items at its two ends."""
    return [
        (
            f"{found.share:.0%} of the variance"
            + (f"; it follows {found.follows}" if found.follows else "; it follows nothing that is known"),
            sheet(subject.held_out, found.low),
            sheet(subject.held_out, found.high),
        )
        for found in strongest(subject)
    ]


def gallery(subject: Subject, rows: int = 8, neighbours: int = 8) -> str:
    """Held-out items, each with its nearest fitting items: pictures as one picture, texts as a table."""
    chosen = numpy_generator(subject.seed, "gallery").permutation(len(subject.test))[:rows]
    _, nearest = VectorIndex(subject.fit_vectors, exact=True).search(subject.test_vectors[chosen], neighbours)
    lines = [
        [shown(subject.test.dataset, int(query)), *(shown(subject.fit.dataset, int(i)) for i in found)]
        for query, found in zip(chosen, nearest, strict=True)
    ]
    if any(isinstance(item, str) for line in lines for item in line):
        return _table([[str(item) for item in line[:4]] for line in lines])
    tile, gap = 64, 4
    sheet = Image.new("RGB", ((tile + gap) * (nearest.shape[1] + 1) + 12, (tile + gap) * len(chosen)), "white")
    for r, line in enumerate(lines):
        for c, item in enumerate(line):
            assert isinstance(item, Image.Image)
            sheet.paste(thumbnail(item, tile), (c * (tile + gap) + (12 if c else 0), r * (tile + gap)))
    return _png(sheet)


def _table(lines: list[list[str]], most: int = 160) -> str:
    cells = [[escape(text if len(text) <= most else text[: most - 1] + "…") for text in line] for line in lines]
    rows = "".join(f"<tr><th>{line[0]}</th>{''.join(f'<td>{cell}</td>' for cell in line[1:])}</tr>" for line in cells)
    return f"<table>{rows}</table>"


def _png(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
