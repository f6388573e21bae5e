"""Evaluate: run checks on a bundle and a data set, write evidence and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastness import bundle as bundles
from fastness.core.errors import BadInput
from fastness.core.files import disk_errors
from fastness.data import Dataset, open_data
from fastness.evaluation import evidence as evidences
from fastness.evaluation import report
from fastness.evaluation import slices as slicing
from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.compare import compare
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.gate import Verdict, judge, read_policy
from fastness.evaluation.predictions import read_votes
from fastness.evaluation.subject import Subject

_ITEMS = ("image", "text", "row")  # the roles of columns that say what the items are


@dataclass(frozen=True)
class Report:
    """What an evaluation gave.

    Attributes:
        evidence: the measurements and what they are about.
        html: the report page.
        verdict: what the gate says, if there was a policy.
    """

    evidence: Evidence
    html: Path
    verdict: Verdict | None = None

    def __getitem__(self, name: str) -> float:
        """Return the value of a measurement, e.g. ``report["knn.accuracy"]``."""
        found = self.evidence.get(name)
        if found is None:
            raise KeyError(f"{name}; measured: {', '.join(m.name for m in self.evidence.measurements)}")
        return found.value


def evaluate(
    bundle: bundles.Bundle | str | Path | None,
    data: Any,
    checks: Sequence[str] | None = None,
    *,
    predictions: str | Path | None = None,
    ood: Sequence[Any] = (),
    shift: Sequence[Any] = (),
    votes: str | Path | None = None,
    domain: str | None = None,
    slices: Sequence[str] | None = None,
    sensitive: Sequence[str] = (),
    policy: str | Path | None = None,
    examples: bool = True,
    out: str | Path | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Report:
    """Measure a bundle on data and write evidence, ``report.html`` and ``report.md``.

    Args:
        bundle: a bundle or its path; ``None`` where there are predictions.
        data: see `open_data`. With splits, heads are fitted on ``train`` and measured on ``test`` (or
            ``validation``); without, a random quarter is held out.
        checks: names of checks, or ``["all"]``; default: all that the data allow but the costly ones.
        predictions: a file with another model's answers to, or embeddings of, these items; see `predictions.read`.
        ood: data sets of other kinds of items, which the encoder should notice; see `open_data`.
        shift: data sets of the same classes, by name, from elsewhere.
        votes: a file with what people said of the held-out items; see `predictions.read_votes`.
        domain: column that names domains: a probe is fitted on each, and measured on each.
        slices: columns, of which every value is a slice, and expressions (see `slices.where`); default: usual ones.
        sensitive: columns whose values are groups that should be served alike; see the check ``groups``.
        policy: a YAML file with floors and ceilings, see `gate.Policy`; the report begins with what it says.
        examples: whether evidence and report may show items of the data. If not, columns of texts that tell nearly
            every item are left out too, unless they are named as slices, sensitive or domain.
        out: folder for the evidence, which holds none yet; default: a new one within the bundle.
        seed: of every random choice.
        say: called with a line of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: an address, a column or the policy is unusable, a check is unknown, or one that was asked for by name
            lacks something.
    """
    asked = None if policy is None else read_policy(Path(policy))  # a mistake in it is worth knowing first
    for name in _named(checks):
        CHECKS.get(name)  # so is an unknown name
    out = _free(None if out is None else Path(out))
    if predictions is not None and (bundle is not None or ood or shift):
        raise BadInput(f"{predictions}: predictions are measured alone; drop the bundle, --ood and --shift")
    if predictions is not None:
        subject = Subject.elsewhere(Path(predictions), open_data(data, **columns), seed)
    else:
        subject = _subject(bundle, data, seed, columns)
        outside = _further(subject.bundle, ood, columns, _ITEMS)
        subject = subject.with_sets(outside, _further(subject.bundle, shift, columns, (*_ITEMS, "label")))
    subject = replace(
        subject,
        votes=None if votes is None else read_votes(Path(votes), subject.held_out),
        slices=None if slices is None else tuple(slices),
        sensitive=tuple(sensitive),
        examples=examples,
        domain=domain,
    )
    _try_columns(subject)
    evidence = measure(subject, checks, out, say)
    verdict = None if asked is None else judge(asked, compare(evidence, evidence, []))
    if say:
        say("report …")
    with disk_errors(evidence.folder):
        return Report(evidence, report.write(evidence, subject, verdict, examples=examples), verdict)


def measure(
    subject: Subject,
    checks: Sequence[str] | None = None,
    out: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Evidence:
    """Run checks on a subject and write their evidence; see `evaluate`."""
    findings, skipped = _run(subject, checks, say)
    path = subject.bundle.path
    beside = path if path.is_dir() else path.parent  # another model's is a file
    with disk_errors(out or beside):
        folder = out or evidences.new_folder(beside, subject.data)
        folder.mkdir(parents=True, exist_ok=True)
        return evidences.write(folder, subject, findings, skipped)


def _free(out: Path | None) -> Path | None:
    if out is not None and (out / "evidence.json").exists():
        raise BadInput(f"{out}: holds evidence already, which is never changed; name another folder or delete it")
    return out


def _named(checks: Sequence[str] | None) -> list[str]:
    """Return the checks that were asked for by their own names."""
    return [name for name in dict.fromkeys(checks or ()) if name != "all"]


def _run(
    subject: Subject, checks: Sequence[str] | None, say: Callable[[str], None] | None
) -> tuple[dict[str, Findings], dict[str, str]]:
    """Run what was asked for, else all that the data allow but the costly; return findings, and what was not run.

    Raises:
        BadInput: the data do not allow a check that was asked for by name.
    """
    named = _named(checks)
    every = not named or "all" in (checks or ())
    findings: dict[str, Findings] = {}
    skipped: dict[str, str] = {}
    for name in dict.fromkeys([*CHECKS, *named]) if every else named:
        check = CHECKS.get(name)()
        missing = _missing(check, subject)
        if missing is None and check.costly and not checks:
            missing = "takes its time; ask for it with --checks all"
        if missing is None:
            if say:
                say(f"{name} …")
            findings[name] = check.run(subject)
        elif name in named:
            source = subject.test.dataset.whole.source
            raise BadInput(f"{source}: check '{name}' {missing}; leave it out or name the column")
        else:
            skipped[name] = missing
    return findings, skipped


def _missing(check: Check, subject: Subject) -> str | None:
    lacking = sorted(check.needs - subject.has)
    return f"needs the {lacking[0]}, which are not given" if lacking else check.missing(subject)


def _try_columns(subject: Subject) -> None:
    """Raise what is wrong with the columns that were asked for, before anything costly is done."""
    named = [*subject.sensitive, *([subject.domain] if subject.domain else [])]
    if named or subject.slices:
        slicing.asked(subject.slices or (), subject.held_out_known)
        for column in named:
            slicing.by_value(column, subject.held_out_known)


def _subject(
    bundle: bundles.Bundle | str | Path | None, data: Any, seed: int, columns: Mapping[str, str | None]
) -> Subject:
    if bundle is None:
        raise BadInput("nothing to measure; name a bundle, or a file of predictions (--predictions)")
    if not isinstance(bundle, bundles.Bundle):
        bundle = bundles.load(bundle)
    return Subject.of(bundle, bundle.open(data, **columns), seed)


def _further(
    bundle: bundles.Bundle, sets: Sequence[Any], columns: Mapping[str, str | None], roles: Sequence[str]
) -> dict[str, Dataset]:
    """Open further sets with the columns that have these roles, by a name that is short and different for each."""
    named = {role: column for role, column in columns.items() if role in roles}
    found: dict[str, Dataset] = {}
    for number, data in enumerate(sets, 1):
        name = Path(data).name.split(".")[0] if isinstance(data, str | Path) else f"set{number}"
        found[name if name not in found else f"{name}-{number}"] = bundle.open(data, **named)
    return found
