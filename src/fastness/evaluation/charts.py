"""The report's charts, each from numbers to an inline SVG or a table."""

from __future__ import annotations

import io
import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastness.core.seeds import numpy_generator
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.subject import Subject
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
    return svg(figure)


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
    items = evidence.of_items("calibration")
    if not items:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    tidy(left, "is it as right as it is sure?")
    left.plot([0, 1], [0, 1], color="#a0a0a0", lw=1, ls="--")
    for name, colour, called in (("raw", "#d98e04", "as it is"), ("scaled", "#0b6e4f", "with temperature")):
        bins = reliability(items[f"{name}_confidence"], items["right"])
        left.plot(bins.confidence, bins.accuracy, marker="o", ms=4, lw=1.4, color=colour, label=called)
    left.set_xlabel("how sure it says it is")
    left.set_ylabel("share that is right")
    left.legend(frameon=False, fontsize=8)
    tidy(right, "if it may stay silent when unsure")
    right.plot(*risk_coverage(items["scaled_confidence"], ~items["right"]), lw=1.4, color="#0b6e4f")
    right.set_xlabel("share of items answered")
    right.set_ylabel("share of answers that are wrong")
    right.set_ylim(bottom=0)
    return svg(figure)


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
        tidy(axes, title)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8)
    if knn:
        axes = figure.add_subplot(1, count, count)
        axes.plot([k["step"] for k in knn], [k["knn"] for k in knn], marker="o", lw=1.4, color=_COLOURS["encoder"])
        tidy(axes, "online kNN (training items)")
    return svg(figure)


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
    return svg(figure)


def _plain(name: str) -> str:
    """Return a name as a legend shows it: no formula between dollars, and not passed over for its underscore."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    tidy(axes, "")
    return figure, axes


def tidy(axes: Any, title: str) -> None:
    """Give axes a title and the look that all charts share."""
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.tick_params(labelsize=8)


def svg(figure: Figure) -> str:
    """Return a figure as an element of a page; equal figures are equal bytes."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "fastness", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().split("?>", 1)[-1].split(">", 1)[-1].strip()
