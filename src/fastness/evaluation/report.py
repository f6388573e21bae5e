"""The report: one self-contained page rendered from evidence."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from fastness.core.files import write_text
from fastness.encoders import modality
from fastness.evaluation import figures
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.subject import Subject

# What the first screen shows of each check, in this order; all other numbers stand in the last table.
_TILES = (
    "knn.",
    "linear.",
    "zero_shot.",
    "similarity.",
    "ranking.encoder.",
    "retrieval.",
    "neighbours.map",
    "clustering.kmeans.a",
    "calibration.scaled.ece",
    "selective.coverage@5%",
    "ood.",
    "corruption.clean.",
    "corruption.mean.",
    "corruption.worst.",
    "geometry.",
)


def write(evidence: Evidence, subject: Subject) -> Path:
    """Write ``report.html`` into the evidence folder and return its path."""
    import jinja2

    template = (resources.files("fastness.evaluation") / "report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["figure"] = lambda m: f"{m.value:.3f}"
    page = environment.from_string(template).render(
        about=evidence.about,
        measurements=evidence.measurements,
        headline=_headline(evidence),
        bundle=subject.bundle,
        unit=modality(subject.bundle.modality).unit,
        recipe=subject.bundle.recipe,
        trained_on=subject.bundle.data,
        tiles=[m for start in _TILES for m in evidence.find(start) if not m.name.endswith(("aupr", "fpr95", "_mass"))],
        few_label=figures.few_label(evidence),
        corruptions=figures.corruptions(evidence),
        trust=figures.trust(evidence),
        curves=figures.curves(subject.bundle.path.parent),
        gallery=figures.gallery(subject),
        map=figures.embedding_map(subject),
    )
    path = evidence.folder / "report.html"
    write_text(path, page)
    return path


def _headline(evidence: Evidence) -> str:
    """Answer «does it help me?» in a sentence, from the few-label curve at 5 labels a class."""
    for per_class in (5, 1, 10, 50):
        ours = evidence.get(f"few_label.{per_class}.encoder.accuracy")
        names = ("raw", "untrained", "from_scratch")
        rivals = [evidence.get(f"few_label.{per_class}.{name}.accuracy") for name in names]
        if ours is None or None in rivals:
            continue
        best = max((m for m in rivals if m is not None), key=lambda m: m.value)
        called = {
            "raw": "the raw items",
            "untrained": "the untrained network",
            "from_scratch": "training from scratch",
        }
        rival = f"{called[best.name.split('.')[2]]} ({best.value:.1%})"
        start = f"With {per_class} label{'s' if per_class > 1 else ''} a class this encoder reaches {ours.value:.1%}"
        if ours.low > best.high:
            return f"{start}; the best baseline is {rival}. The intervals are apart: it helps."
        if ours.high < best.low:
            return f"{start}, less than {rival}. On this data it does not help; train longer or on more data."
        return f"{start}; the best baseline is {rival}. The intervals overlap: no clear difference."
    return ""
