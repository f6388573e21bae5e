"""Evaluate: run checks on a bundle and a data set, write evidence and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastness import bundle as bundles
from fastness.core.errors import BadInput
from fastness.core.files import disk_errors
from fastness.data import Dataset
from fastness.evaluation import evidence as evidences
from fastness.evaluation import report
from fastness.evaluation.checks import CHECKS, Findings
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.subject import Subject


@dataclass(frozen=True)
class Report:
    """What an evaluation gave.

    Attributes:
        evidence: the measurements and what they are about.
        html: the report page.
    """

    evidence: Evidence
    html: Path

    def __getitem__(self, name: str) -> float:
        """Return the value of a measurement, e.g. ``report["knn.accuracy"]``."""
        found = self.evidence.get(name)
        if found is None:
            raise KeyError(f"{name}; measured: {', '.join(m.name for m in self.evidence.measurements)}")
        return found.value


def evaluate(
    bundle: bundles.Bundle | str | Path,
    data: Any,
    checks: Sequence[str] | None = None,
    *,
    ood: Sequence[Any] = (),
    out: Path | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
    **columns: str | None,
) -> Report:
    """Measure a bundle on data and write evidence and ``report.html``.

    Args:
        bundle: a bundle or its path.
        data: see `open_data`. With splits, heads are fitted on ``train`` and measured on ``test`` (or
            ``validation``); without, a random quarter is held out.
        checks: names of checks, or ``["all"]``; default: all that the data allow but the costly ones.
        ood: data sets of other kinds of items, which the encoder should notice; see `open_data`.
        out: folder for the evidence; default: a new one within the bundle.
        seed: of every random choice.
        say: called with a line of progress.

    Raises:
        BadInput: unknown check, or a check that was asked for needs labels that are not there.
    """
    if not isinstance(bundle, bundles.Bundle):
        bundle = bundles.load(bundle)
    asked = [name for name in dict.fromkeys(checks or ()) if name != "all"]
    names = asked if asked and "all" not in (checks or ()) else list(CHECKS)
    kinds = {name: CHECKS.get(name) for name in [*names, *asked]}
    subject = Subject.of(bundle, bundle.open(data, **columns), seed)
    subject = subject.with_outside(_outside(bundle, ood, columns))
    findings: dict[str, Findings] = {}
    skipped: dict[str, str] = {}
    for name, kind in kinds.items():
        check = kind()
        missing = check.missing(subject)
        if missing is None and kind.costly and not checks:
            missing = "embeds the items many times; ask for it with --checks all"
        if missing is not None:
            if name in asked:
                raise BadInput(
                    f"{subject.test.dataset.whole.source}: check '{name}' {missing}; leave it out or name the column"
                )
            skipped[name] = missing
            continue
        say(f"{name} …")
        findings[name] = check.run(subject)
    with disk_errors(out or bundle.path):
        folder = out or evidences.new_folder(bundle.path, subject.data)
        folder.mkdir(parents=True, exist_ok=True)
        evidence = evidences.write(folder, subject, findings, skipped)
        say("report …")
        html = report.write(evidence, subject)
    return Report(evidence, html)


def _outside(bundle: bundles.Bundle, sets: Sequence[Any], columns: Mapping[str, str | None]) -> dict[str, Dataset]:
    """Open sets from outside, by a name that is short and different for each."""
    named = {role: column for role, column in columns.items() if role in ("image", "text", "row")}
    found: dict[str, Dataset] = {}
    for number, data in enumerate(sets, 1):
        name = Path(data).name.split(".")[0] if isinstance(data, str | Path) else f"set{number}"
        found[name if name not in found else f"{name}-{number}"] = bundle.open(data, **named)
    return found
