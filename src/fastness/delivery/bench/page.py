"""The bench as a page, and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastness.core.files import atomic_path, write_text
from fastness.delivery.bench import picture
from fastness.delivery.bench.profiles import figure
from fastness.delivery.bench.row import shown
from fastness.evaluation import charts, page

if TYPE_CHECKING:
    from fastness.delivery.bench.bench import Bench
    from fastness.delivery.bench.row import Row

FIGURES = ("p50", "p95", "p99", "throughput", "memory", "energy")
"""What differs with threads and batch, in the order of the tables."""


def write(bench: Bench, folder: Path) -> None:
    """Write ``bench.html`` and, where accuracy is known, ``pareto-PROFILE.png``."""
    names = called(bench)
    sections = []
    for profile in bench.about["profiles"]:
        rows = [row for row in bench.rows if row.profile == profile["name"]]
        found = picture.points(rows)
        drawn = [charts.svg(panel) for panel in picture.panels(found, names)] if found else []
        if found:
            with atomic_path(folder / f"pareto-{profile['name']}.png") as temporary:
                picture.side_by_side(found, names).savefig(temporary, format="png", dpi=150)
        sections.append({"profile": profile, "rows": rows, "panels": drawn})
    values: dict[str, Any] = {
        "about": bench.about,
        "choice": bench.choice,
        "sections": sections,
        "forms": forms(bench.rows),
    }
    values |= {"names": names, "figures": FIGURES, "shown": shown, "figure_of": figure, "said": said(bench)}
    write_text(folder / "bench.html", page.render("bench.html.j2", "fastness.delivery.bench", **values))


def called(bench: Bench) -> tuple[str, str]:
    """Return what accuracy and robustness are here, in a few words."""
    found = next(iter(bench.qualities.values()), None)
    if found is None or found.accuracy.name.startswith("knn"):
        return "kNN accuracy on held-out items", "accuracy under corruptions"
    return "nearest items kept", "cosine under corruptions"


def forms(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Return what is the same for all rows of a form, as it is shown, by form."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.trouble is None or row.form not in found:
            known = {name: shown(name, getattr(row, name)) for name in ("size", "accuracy", "robustness")}
            found[row.form] = {**known, "startup": found.get(row.form, {}).get("startup", {})}
            found[row.form]["startup"].setdefault(row.profile, shown("startup", row.startup))
    return found


def said(bench: Bench) -> list[str]:
    """Return what a reader must know of the figures, in sentences."""
    about, plan = bench.about, bench.about["plan"]
    known = {row.power for row in bench.rows if row.power is not None}
    powers = {
        "estimate": f"an estimate: busy seconds of cores times {figure(plan['watts'])} W, which is assumed",
        "RAPL": "of the whole processor by its own counter (RAPL), others' work included",
    }
    lines = [f"{profile['name']}: {profile['enforced']}." for profile in about["profiles"]]
    lines.append(
        f"{about['items']} items of the data in turn; each form in {plan['repeats']} processes, in turns with the "
        "others; a percentile that the calls are too few for is left out."
    )
    energy = " or ".join(powers[name] for name in sorted(known)) or "not known"
    lines.append(f"energy: joules for 1,000 items; {energy}.")
    if any(cost is not None for costs in about["costs"].values() for cost in costs.values()):
        lines.append(
            "cost of a million items: in the cloud of the machine's hours, at the best throughput measured, and of the "
            "items sent to it; at the edge of energy and of the embeddings sent (float32); only what was given a price."
        )
    if bench.qualities:
        lines.append("accuracy: {}; robustness: {}.".format(*called(bench)))
    if about["doubt"]:
        lines.append(f"Take the times with doubt: {about['doubt']}.")
    return lines
