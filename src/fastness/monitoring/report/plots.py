"""The charts of a drift report, each from numbers to an inline SVG; on a light page as on a dark one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastness.core.conditions import missing
from fastness.core.seeds import numpy_generator
from fastness.data.manifest import printable
from fastness.evaluation.charts import svg, tidy
from fastness.monitoring.explain import parts
from fastness.monitoring.explain.explanation import Explanation, Share
from fastness.monitoring.window import Array, Window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart whatever one's sight, and on either ground.
_BEFORE, _AFTER, _TOLD = "#56b4e9", "#e69f00", "#d55e00"
_CLUSTERS, _VALUES, _BARS = 12, 8, 24
_POINTS = 1000
_LONG, _END = 26, 9  # characters of a name, and of its end


def shares(clusters: Sequence[Share]) -> str:
    """Return the shares of the clusters that changed most, before and after."""
    shown = clusters[:_CLUSTERS]
    if not shown:
        return ""
    figure, axes = _axes(4.8, 0.8 + 0.34 * len(shown), "share of the items in each cluster")
    _pairs(axes, [plain(s.name) for s in shown], [s.before for s in shown], [s.after for s in shown])
    return svg(figure)


def column(name: str, reference: Window, window: Window) -> str:
    """Return how a column's values lie before and after; both must have it."""
    known = parts.pooled(reference, window)[name]
    before, after = known[: len(reference)], known[len(reference) :]
    return _numbers(name, before, after) if known.dtype.kind == "f" else _texts(name, before, after)


def overview(reference: Window, window: Window, explanation: Explanation, seed: int = 0) -> str:
    """Return all items along the two directions in which they spread most, the first cause's marked."""
    sides = [
        np.sort(numpy_generator(seed, "overview", side).permutation(len(items))[:_POINTS])
        for side, items in (("reference", reference), ("window", window))
    ]
    vectors = np.concatenate([reference.vectors[sides[0]], window.vectors[sides[1]]])
    flat = parts.directions(vectors)
    if flat.shape[1] < 2:
        return ""
    first = explanation.causes[0] if explanation.causes else None
    # Directions are in the order in which they grow.
    xy, count = flat[:, [-1, -2]], len(sides[0])
    figure, axes = _axes(4.8, 4.4, "the two directions in which items spread most")
    axes.scatter(*xy[:count].T, s=7, color=_BEFORE, lw=0, alpha=0.7, label="reference")
    axes.scatter(*xy[count:].T, s=7, color=_AFTER, lw=0, alpha=0.7, label="new items")
    if first is not None:
        side, offset = (sides[0], 0) if first.gone else (sides[1], count)
        told = offset + np.flatnonzero(np.isin(side, first.rows))
        axes.scatter(*xy[told].T, s=26, facecolors="none", edgecolors=_TOLD, lw=0.8, label="of the first cause")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(
        frameon=False,
        fontsize=8,
        loc="upper left",
        bbox_to_anchor=(0, -0.01),
        ncols=3,
        markerscale=1.6,
        columnspacing=1,
    )
    return svg(figure)


def plain(name: str) -> str:
    """Return a name as a chart shows it: one line, no formula between dollars, not passed over for its underscore."""
    text = printable(name)
    if len(text) > _LONG:  # its end as well, in which names of one file differ
        text = f"{text[: _LONG - 1 - _END]}…{text[-_END:]}"
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _numbers(name: str, before: Array, after: Array) -> str:
    before, after = before[~missing(before)], after[~missing(after)]
    both = np.concatenate([before, after])
    if not len(both):
        return ""
    low, high = np.quantile(both, [0.005, 0.995])  # one far value would else leave a single bar
    edges = np.linspace(low, high if high > low else low + 1, _BARS + 1)
    figure, axes = _axes(4.6, 2.6, plain(name))
    for values, colour, called in ((before, _BEFORE, "reference"), (after, _AFTER, "new items")):
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(1, len(values))
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.55, label=called)
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def _texts(name: str, before: Array, after: Array) -> str:
    values = np.unique(np.concatenate([before, after]))
    share = np.array([[(side == value).mean() for side in (before, after)] for value in values])
    order = np.argsort(-np.abs(share[:, 1] - share[:, 0]), kind="stable")[:_VALUES]
    figure, axes = _axes(4.6, 0.9 + 0.3 * len(order), plain(name))
    _pairs(axes, [plain(str(values[i]) or "(missing)") for i in order], *share[order].T)
    return svg(figure)


def _pairs(axes: Any, names: Sequence[str], before: Sequence[float], after: Sequence[float]) -> None:
    """Draw two bars a name, the first name on top."""
    place = np.arange(len(names))[::-1]
    axes.barh(place + 0.2, before, 0.38, color=_BEFORE, label="reference")
    axes.barh(place - 0.2, after, 0.38, color=_AFTER, label="new items")
    axes.set_yticks(place, names)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(frameon=False, fontsize=8)


def _axes(width: float, height: float, title: str) -> tuple[Figure, Any]:
    """Return axes without a ground of their own, so that the page's shows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    tidy(axes, title)
    return figure, axes
