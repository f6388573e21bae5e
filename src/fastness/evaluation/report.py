"""The report: one self-contained page rendered from evidence."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from fastness.core.files import write_text
from fastness.encoders import modality
from fastness.evaluation import charts, page, sheets
from fastness.evaluation.answer import statements, weakest
from fastness.evaluation.checks import CHECKS
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.gate import Verdict
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject


def write(evidence: Evidence, subject: Subject, verdict: Verdict | None, *, examples: bool) -> Path:
    """Write ``report.html`` and ``report.md`` into the evidence folder and return the first one's path.

    Args:
        verdict: what a gate says of it, if there is a policy.
        examples: whether items of the data may be shown.
    """
    values = {
        "about": evidence.about,
        "measurements": evidence.measurements,
        "statements": statements(evidence),
        "verdict": verdict,
        "weakest": weakest(evidence, 10),
        "regions": sheets.regions(evidence, subject, weakest(evidence, 10)) if examples else {},
        "bundle": subject.bundle,
        "ours": "encoder" in subject.has,
        "unit": modality(subject.bundle.modality).unit,
        "recipe": subject.bundle.recipe,
        "trained_on": subject.bundle.data,
        "tiles": headline(evidence),
        "few_label": charts.few_label(evidence),
        "corruptions": charts.corruptions(evidence),
        "trust": charts.trust(evidence),
        "curves": charts.curves(subject.bundle.path.parent) if "encoder" in subject.has else "",
        "gallery": sheets.gallery(subject) if examples and "embeddings" in subject.has else "",
        "influence": sheets.influence(subject) if examples and "encoder" in subject.has else "",
        "directions": sheets.directions(subject) if examples and "embeddings" in subject.has else [],
        "map": charts.embedding_map(subject) if "embeddings" in subject.has else "",
    }
    path = evidence.folder / "report.html"
    write_text(path, page.render("report.html.j2", **values))
    write_text(path.with_suffix(".md"), page.render("report.md.j2", **values))
    return path


def headline(evidence: Evidence) -> list[Measurement]:
    """Return what the first screen shows of each check; all other numbers stand in the last table."""
    patterns = [pattern for name in CHECKS for pattern in CHECKS.get(name).headline]
    return [m for pattern in patterns for m in evidence.find("") if fnmatchcase(m.name, pattern)]
