"""The Pareto picture: how good each form is against how long an item takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from fastness.delivery.bench.front import front
from fastness.delivery.bench.row import Row, shown
from fastness.evaluation import charts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEST, _REST = "#0b6e4f", "#8a949e"
_NARROWEST = 0.08  # of the upright axis, so that thousandths do not look like much
_SIDES = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)]
_AWAY = (7, 14, 24, 36)  # points between a label and what it names


@dataclass(frozen=True)
class Point:
    """A form in one profile: its row with the smallest batch and the threads that answer fastest.

    Attributes:
        row: of it.
        best: whether it is on the front of latency, accuracy and robustness.
    """

    row: Row
    best: bool


def points(rows: Sequence[Row]) -> list[Point]:
    """Return a point for each form of one profile of which latency and accuracy are known."""
    known = [row for row in rows if row.p50 is not None and row.accuracy is not None]
    least = min((row.batch for row in known), default=1)
    fastest: dict[str, Row] = {}
    for row in sorted((row for row in known if row.batch == least), key=lambda row: row.p50 or 0.0):
        fastest.setdefault(row.form, row)
    chosen = list(fastest.values())
    robust = all(row.robustness is not None for row in chosen)
    respects = [(row.p50 or 0.0, row.accuracy or 0.0, (row.robustness or 0.0) if robust else 0.0) for row in chosen]
    best = front(respects, (-1, 1, 1))
    return [Point(row, place in best) for place, row in enumerate(chosen)]


def panels(found: Sequence[Point], names: tuple[str, str]) -> list[Figure]:
    """Return a figure of accuracy, and one of robustness where it is known of all.

    Args:
        found: at least one.
        names: what the two are called beside the axes.
    """
    return [_figure([respect], found, names) for respect in _respects(found)]


def side_by_side(found: Sequence[Point], names: tuple[str, str]) -> Figure:
    """Return one figure of both; see `panels`."""
    return _figure(_respects(found), found, names)


def _respects(found: Sequence[Point]) -> list[str]:
    robust = all(point.row.robustness is not None for point in found)
    return ["accuracy", "robustness"] if robust else ["accuracy"]


def _figure(respects: Sequence[str], found: Sequence[Point], names: tuple[str, str]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(respects), 4.0), layout="constrained")
    for place, respect in enumerate(respects):
        axes = figure.add_subplot(1, len(respects), place + 1)
        charts.tidy(axes, "")
        _draw(axes, respect, found)
        axes.set_ylabel(names[respect == "robustness"], fontsize=11)
    figure.draw_without_rendering()
    for axes, respect in zip(figure.axes, respects, strict=True):
        _label(axes, respect, found)
    return figure


def _draw(axes: Any, respect: str, found: Sequence[Point]) -> None:
    """Draw the points, and the steps of those that nothing beats in this respect and latency."""
    places = [_place(point, respect) for point in found]
    steps = sorted(places[i] for i in front(places, (-1, 1)))
    axes.step(*zip(*steps, strict=True), where="post", color=_BEST, lw=1.2, alpha=0.5)
    for point, (x, y) in zip(found, places, strict=True):
        colour = _BEST if point.best else _REST
        axes.plot([x], [y], marker="o", ms=8, ls="", color=colour, mfc=colour if point.best else "white", mew=1.6)
    axes.set_xscale("log")
    times, heights = [x for x, _ in places], [y for _, y in places]
    axes.set_xlim(min(times) / 1.8, max(times) * 1.8)
    middle, half = (min(heights) + max(heights)) / 2, max(max(heights) - min(heights), _NARROWEST) * 0.7
    axes.set_ylim(middle - half, middle + half)
    axes.set_xlabel("latency of one call (median), logarithmic", fontsize=11)
    _ticks(axes)


def _ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown("p50", value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=10)


def _place(point: Point, respect: str) -> tuple[float, float]:
    return point.row.p50 or 0.0, float(getattr(point.row, respect))


def _label(axes: Any, respect: str, found: Sequence[Point]) -> None:
    """Name each point where its name covers neither another nor a point, as near as can be."""
    from matplotlib.transforms import Bbox

    inside, scale = axes.get_window_extent(), axes.figure.dpi / 72
    centres = [axes.transData.transform(_place(point, respect)) for point in found]
    taken = [Bbox.from_bounds(x - 6 * scale, y - 6 * scale, 12 * scale, 12 * scale) for x, y in centres]
    for point, own in zip(found, list(taken), strict=True):
        tried: list[tuple[int, int, Any, Any]] = []
        for away, (right, up) in product(_AWAY, _SIDES):
            text = axes.annotate(
                point.row.form,
                _place(point, respect),
                (away * right, away * up),
                textcoords="offset points",
                ha={1: "left", 0: "center", -1: "right"}[right],
                va={1: "bottom", 0: "center", -1: "top"}[up],
                fontsize=10,
                color=_BEST if point.best else "#4a5560",
                bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1},  # the line does not run through it
            )
            text.set_in_layout(False)
            box = text.get_window_extent()
            clashes = sum(box.overlaps(other) for other in taken if other is not own)
            outside = not (inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1)
            tried.append((clashes + outside, len(tried), text, box))
            if not clashes and not outside:
                break
        best = min(tried, key=lambda one: one[:2])
        for one in tried:
            if one is not best:
                one[2].remove()
        taken.append(best[3])
