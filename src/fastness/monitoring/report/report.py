"""The drift report: one page that says whether, what and why, and the same in Markdown and JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from fastness.core.files import disk_errors, write_json, write_text
from fastness.data.manifest import printable
from fastness.evaluation import page, sheets
from fastness.monitoring.drift.verdict import EMBEDDINGS, Verdict
from fastness.monitoring.explain.explanation import Cause, Explanation
from fastness.monitoring.report import plots
from fastness.monitoring.window import Window

Look = Callable[[int], Image.Image | str | None]
"""How the item at a position looks: a picture, a text, or nothing where it is not kept."""

_ITEMS = 12  # of a cause
_COLUMNS = 6  # that are drawn
_MARKED = re.compile(r"[\\`*_\[\]<>|#~!&]")


def write(
    folder: Path,
    verdict: Verdict,
    explanation: Explanation | None,
    reference: Window,
    window: Window,
    *,
    title: str = "",
    looks: tuple[Look | None, Look | None] = (None, None),
) -> Path:
    """Write ``drift.html``, ``drift.md`` and ``drift.json`` and return the first one's path.

    Args:
        folder: made if it is not there.
        verdict: what the tests found.
        explanation: what explains it; ``None``: there were too few items.
        reference, window: what was compared.
        title: what was compared, in words.
        looks: how items of the reference and new ones look, where they may be shown.
    """
    causes = explanation.causes if explanation else []
    drawn = _drawn(verdict, causes, reference, window)
    values = {
        "title": printable(title),
        "verdict": verdict,
        "explanation": explanation,
        "causes": [(cause, _sheet(cause, reference, window, looks)) for cause in causes],
        "drivers": _driving(explanation, window, looks[1]) if explanation else "",
        "shares": plots.shares(explanation.clusters) if explanation else "",
        "overview": plots.overview(reference, window, explanation, verdict.seed) if explanation else "",
        "columns": [plots.column(name, reference, window) for name in drawn],
        "plain": printable,
    }
    path = folder / "drift.html"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        told = {"verdict": verdict.to_dict(), "explanation": explanation and explanation.to_dict()}
        write_json(folder / "drift.json", {"title": title, **told})
        room = "fastness.monitoring.report"
        write_text(folder / "drift.md", page.render("drift.md.j2", room, **{**values, "plain": marked}))
        write_text(path, page.render("drift.html.j2", room, **values))
    return path


def marked(text: str) -> str:
    """Return a text so that Markdown shows it as it is, whatever it holds."""
    return _MARKED.sub(lambda found: "\\" + found[0], printable(text))


def _drawn(verdict: Verdict, causes: Sequence[Cause], reference: Window, window: Window) -> list[str]:
    """Return the columns that are drawn: those of which an alarm or a cause speaks, the most telling first."""
    both = [name for name in reference.columns if name in window.columns]
    spoken = [name for cause in causes for name in both if cause.kind in ("slice", "column") and _speaks(cause, name)]
    alarms = [finding.what for finding in verdict.findings if finding.alarm and finding.what != EMBEDDINGS]
    return list(dict.fromkeys([*spoken, *(name for name in alarms if name in both)]))[:_COLUMNS]


def _speaks(cause: Cause, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", cause.what) is not None


def _sheet(cause: Cause, reference: Window, window: Window, looks: tuple[Look | None, Look | None]) -> str:
    """Return items of a cause as they look; of those that are missed the reference's."""
    side, look = (reference, looks[0]) if cause.gone else (window, looks[1])
    return _items(cause.rows[:_ITEMS], side, look)


def _driving(explanation: Explanation, window: Window, look: Look | None) -> str:
    return _items([driver.row for driver in explanation.drivers], window, look)


def _items(rows: Sequence[int], side: Window, look: Look | None) -> str:
    """Return items side by side, pictures and texts apart; nothing where none is kept."""
    if look is None:
        return ""
    seen = [(row, item) for row in rows if (item := look(row)) is not None]
    found = ""
    for kind in (Image.Image, str):
        mine = [(row, item) for row, item in seen if isinstance(item, kind)]
        if mine:
            names = [_end(printable(side.ids[row])) if len(side.ids) else "" for row, _ in mine]
            shown = [printable(item) if isinstance(item, str) else item for _, item in mine]
            found += sheets.laid_out(shown, names)
    return found


def _end(name: str, most: int = 16) -> str:
    """Return the end of a name, in which names of one file differ."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
