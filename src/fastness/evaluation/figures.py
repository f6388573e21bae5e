"""The report's pictures, each from numbers to an inline SVG or PNG."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from fastness.metrics.calibration import reliability
from fastness.metrics.selective import risk_coverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {
    "encoder": "this encoder",
    "untrained": "untrained network",
    "raw": "raw items",
    "from_scratch": "trained from scratch",
}
# Colours that people tell apart whatever their sight (Okabe and Ito 2008), and shapes for those who tell none: together
# 35 kinds of point.
_MAP_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
_MAP_MARKERS = ("o", "^", "s", "D", "v")
_COLOURS = {"encoder": "#0b6e4f", "untrained": "#a0a0a0", "raw": "#d98e04", "from_scratch": "#5b5ea6"}


def few_label(evidence: Evidence) -> str:
    """Accuracy against labels a class, with intervals, for the encoder and the baselines."""
    points: dict[str, list[tuple[int, float, float, float]]] = {}
    for m in evidence.measurements:
        parts = m.name.split(".")
        if parts[0] == "few_label":
            points.setdefault(parts[2], []).append((int(parts[1]), m.value, m.low, m.high))
    if not points:
        return ""
    figure, axes = _axes(6.4, 3.8)
    for name, rows in sorted(points.items(), key=lambda item: list(_NAMES).index(item[0])):
        x, y, low, high = np.array(sorted(rows)).T
        axes.plot(x, y, marker="o", color=_COLOURS[name], label=_NAMES[name], lw=2 if name == "encoder" else 1.3)
        axes.fill_between(x, np.clip(low, 0, 1), np.clip(high, 0, 1), color=_COLOURS[name], alpha=0.15, lw=0)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{int(v)}" for v in x])
    axes.minorticks_off()
    axes.set_xlabel("labels a class")
    axes.set_ylabel("accuracy on held-out items")
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def corruptions(evidence: Evidence) -> str:
    """A table of corruptions by severity, darker where less is left; the common ones' mean below."""
    values: dict[str, dict[str, float]] = {}
    for m in evidence.measurements:
        parts = m.name.split(".")
        if parts[0] == "corruption" and len(parts) == 4 and parts[1] != "worst":
            values.setdefault(parts[1], {})[parts[2]] = m.value
        elif parts[0] == "corruption" and parts[1].startswith("severity_"):
            values.setdefault("all common ones", {})[parts[1].removeprefix("severity_")] = m.value
    if not values:
        return ""
    means = evidence.find("corruption.mean.")
    values["all common ones"]["mean"] = means[0].value if means else float("nan")
    columns = ["1", "2", "3", "4", "5", "mean"]
    head = "".join(f"<th>{column}</th>" for column in ("severity", *columns))
    rows = [
        f"<tr><th>{escape(name.replace('_', ' '))}</th>{''.join(_shaded(cells[column]) for column in columns)}</tr>"
        for name, cells in values.items()
    ]
    return f'<table class="heat"><tr>{head}</tr>{"".join(rows)}</table>'


def _shaded(value: float) -> str:
    """Return a table's cell whose ground goes from white (1) to blue (0); the number stays readable on it."""
    share = min(1.0, max(0.0, value))
    red, green, blue = (round(255 - (255 - full) * (1 - share)) for full in (33, 102, 172))
    ink = "#fff" if share < 0.25 else "inherit"
    return f'<td class="n" style="background:rgb({red},{green},{blue});color:{ink}">{value:.2f}</td>'


def trust(evidence: Evidence) -> str:
    """Reliability before and after temperature scaling, and risk against coverage."""
    import pyarrow.parquet as pq

    path = evidence.file("calibration.parquet")
    if path is None:
        return ""
    items = {name: column.to_numpy() for name, column in zip(*_columns(pq.read_table(path)), strict=True)}
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    _tidy(left, "is it as right as it is sure?")
    left.plot([0, 1], [0, 1], color="#a0a0a0", lw=1, ls="--")
    for name, colour, called in (("raw", "#d98e04", "as it is"), ("scaled", "#0b6e4f", "with temperature")):
        bins = reliability(items[f"{name}_confidence"], items["right"])
        left.plot(bins.confidence, bins.accuracy, marker="o", ms=4, lw=1.4, color=colour, label=called)
    left.set_xlabel("how sure it says it is")
    left.set_ylabel("share that is right")
    left.legend(frameon=False, fontsize=8)
    _tidy(right, "if it may stay silent when unsure")
    right.plot(*risk_coverage(items["scaled_confidence"], ~items["right"]), lw=1.4, color="#0b6e4f")
    right.set_xlabel("share of items answered")
    right.set_ylabel("share of answers that are wrong")
    right.set_ylim(bottom=0)
    return _svg(figure)


def _columns(table: Any) -> tuple[list[str], list[Any]]:
    return table.column_names, table.columns


def curves(run: Path) -> str:
    """Loss, online kNN and collapse signals over the steps of the run that made the bundle."""
    events = run / "events.jsonl"
    if not events.exists():
        return ""
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    knn = [line for line in lines if line["event"] == "knn"]
    if len(steps) < 2:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 2.6), layout="constrained")
    x = [s["step"] for s in steps]
    panels: list[tuple[str, list[tuple[str, list[Any]]]]] = [
        ("loss", [("loss", [s["loss"] for s in steps])]),
        ("effective rank", [("rank", [s["effective_rank"] for s in steps])]),
        ("alignment, uniformity", [(k, [s[k] for s in steps]) for k in ("alignment", "uniformity")]),
    ]
    count = len(panels) + bool(knn)
    for i, (title, series) in enumerate(panels):
        axes = figure.add_subplot(1, count, i + 1)
        for name, y in series:
            axes.plot(x, y, lw=1.4, label=name)
        _tidy(axes, title)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8)
    if knn:
        axes = figure.add_subplot(1, count, count)
        axes.plot([k["step"] for k in knn], [k["knn"] for k in knn], marker="o", lw=1.4, color=_COLOURS["encoder"])
        _tidy(axes, "online kNN (training items)")
    return _svg(figure)


def sheet(dataset: Dataset, positions: Sequence[int], across: int = 6) -> str:
    """Items side by side: pictures with the class below as one picture, texts as a table."""
    items = [shown(dataset, position) for position in positions]
    labels = dataset.labels
    names = ["" if labels is None else [*dataset.class_names, ""][labels[position]] for position in positions]
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
    import pyarrow.parquet as pq

    path = evidence.file("slices.parquet")
    if path is None:
        return {}
    items = {name: column.to_numpy() for name, column in zip(*_columns(pq.read_table(path)), strict=True)}
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


def embedding_map(subject: Subject, most: int = 1500) -> str:
    """Two dimensions by t-SNE of a sample of the held-out items, coloured by class where there are labels."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    chosen = numpy_generator(subject.seed, "map").permutation(len(subject.test))[:most]
    if len(chosen) < 10:
        return ""
    z = subject.test_vectors[chosen]
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    z = PCA(min(30, *z.shape), random_state=0).fit_transform(z)
    if np.ptp(z) < 1e-6:
        return ""  # one point: there is no map of it, and the numbers say so
    xy = TSNE(perplexity=min(30, (len(z) - 1) / 3), init="pca", random_state=0).fit_transform(z)
    figure, axes = _axes(6.4, 5.2)
    labels = subject.test.dataset.labels
    if labels is None:
        axes.scatter(*xy.T, s=6, color=_COLOURS["encoder"], alpha=0.6, lw=0)
    else:
        names = subject.test.dataset.class_names
        for number in np.unique(labels[chosen]):
            mine = labels[chosen] == number
            called = _plain(names[number]) if number >= 0 else "(unlabelled)"
            colour, marker = _MAP_COLOURS[number % len(_MAP_COLOURS)], _MAP_MARKERS[number % len(_MAP_MARKERS)]
            axes.scatter(*xy[mine].T, s=10, color=colour, marker=marker, alpha=0.7, lw=0, label=called)
        if len(names) <= 20:
            axes.legend(frameon=False, fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xticks([])
    axes.set_yticks([])
    return _svg(figure)


def _plain(name: str) -> str:
    """Return a name as a legend shows it: no formula between dollars, and not passed over for its underscore."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    _tidy(axes, "")
    return figure, axes


def _tidy(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.tick_params(labelsize=8)


def _svg(figure: Figure) -> str:
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "fastness", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().split("?>", 1)[-1].split(">", 1)[-1].strip()


def _png(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
