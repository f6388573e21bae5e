"""The job: a plan's steps in order, each done once, and all of it written down."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fastness.bundle.whole import core_of
from fastness.ci.plan import Plan
from fastness.ci.record import NAME, Entry, Record
from fastness.ci.steps import STEPS, Step, Work, digest
from fastness.core.errors import BadInput
from fastness.core.files import disk_errors
from fastness.delivery.signing import private_key

_SHOWN = ("version", "index", "move")  # what of the results stands on top of the record


class Job:
    """A plan that is carried out; killed at any moment and run again, it goes on where it was.

    Args:
        plan: what is to be done.
        out: its folder; default: ``runs/ci-NAME``.
        called: what the plan's file is called.
        until: the last step that is done; default: the last there is.
        registry, store: see `Registry`.
        by: who does it; default: the user.
        why: what is said of it in the log; default: which plan it was.
        override: let the alias name the version even if the gate says no; ``why`` must say something.
        dry: judge the bundle against what the alias names, but sign, add and move nothing.
        say: called with lines of progress.
        quiet: whether training shows warnings alone.

    Attributes:
        path: of ``ci.json``.
        record: what stands in it, once the plan was found to be one that can be carried out.
    """

    def __init__(
        self,
        plan: Plan,
        out: str | Path | None = None,
        *,
        called: str = "a plan",
        until: str | None = None,
        registry: str | None = None,
        store: str | None = None,
        by: str | None = None,
        why: str = "",
        override: bool = False,
        dry: bool = False,
        say: Callable[[str], None] | None = None,
        quiet: bool = True,
    ) -> None:
        if override and not why.strip():
            raise BadInput("an override is recorded with its reason; say why (--why)")
        self.steps = _chosen(plan, until, dry)
        out = Path("runs") / f"ci-{plan.name}" if out is None else Path(out)
        self.say = say or (lambda line: None)
        self.work = Work(plan, out, registry, store, by, why or f"fastness ci {called}", override, dry, self.say, quiet)
        self.path = out / NAME
        self.record: Record | None = None
        self._about: dict[str, Any] = {"name": plan.name, "plan": called, "dry": dry, "bundle": None}

    def run(self) -> dict[str, Any]:
        """Do what is to be done and return what stands in ``ci.json``.

        Raises:
            GateRefused: the gate said no, or an export is too far from its encoder.
            BadInput: something of the plan cannot be used.
            Failure: a step failed, or another process works in the folder.
        """
        out = self.work.out
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(out / ".lock", timeout=0):
                self._prepare()
                self.record = record = Record(self.path, self._about)
                _sweep(out, self.work.folder)
                for step in STEPS:
                    self._forget_unasked(step, record)
                    if step in self.steps:
                        self._do(step, record)
                record.state = "done"
                record.write()
                return record.to_dict()
        except Timeout:
            raise BadInput(f"{out}: another process works here; choose another --out") from None

    def _prepare(self) -> None:
        """Raise what is wrong with data, keys and registry, which is better known before hours of training."""
        work, plan, names = self.work, self.work.plan, {step.name for step in self.steps}
        for section in ("evaluate", "head", "sketch", "collection"):
            if {"collection": "index"}.get(section, section) in names:
                work.section(section)
        if "sign" in names:
            private_key(Path(str(plan.sign)))
        if names & {"add", "gate"}:
            with work.opened() as registry:
                if "index" in names and plan.collection and not plan.collection.to and registry.folder is None:
                    raise BadInput(
                        "collection: say where its index is kept: 'to', a folder or postgresql://…?table=NAME"
                    )

    def _do(self, step: Step, record: Record) -> None:
        """Do a step, unless it was done and nothing that it depends on has changed since."""
        began, work, before = time.perf_counter(), self.work, record.before.get(step.name)
        entry = Entry(step.name, "", list(before.makes) if before else [])
        try:
            rests = step.rests(work)
            entry.key = "" if rests is None else digest([step.name, rests])
            if before is not None and self._holds(step, before, entry.key):
                entry = before
                entry.state = "kept"
                self.say(f"{step.name:<9}      kept  {entry.result['said']}")
                record.begin(entry)
            else:
                self.say(f"{step.name:<9} …")
                wanted = step.makes(work.plan, entry.key)
                entry.makes += [name for name in wanted if name not in entry.makes]  # until the earlier ones are gone
                record.begin(entry)
                if step.begins:
                    record.before.clear()  # all else hangs on it
                else:
                    self._undo(entry.makes, wanted)
                result, entry.makes = step.do(work, entry.key), wanted
                record.end(entry, result, began)
                self.say(f"{step.name:<9} {entry.seconds:7.1f} s  {entry.result['said']}")
        except BaseException as error:
            record.fail(entry, error, began)
            raise
        work.results[step.name] = entry.result
        record.about |= {name: entry.result[name] for name in _SHOWN if name in entry.result}
        record.about["bundle"] = work.id

    def _holds(self, step: Step, before: Entry, key: str) -> bool:
        """Whether a step was done, of the same, and what it made is there."""
        if not key or before.key != key or before.state not in ("done", "kept"):
            return False
        if not step.begins:
            return all((self.work.folder / name).exists() for name in before.makes)
        try:
            return bool(core_of(self.work.folder)["id"] == before.result["id"])
        except BadInput:
            return False

    def _forget_unasked(self, step: Step, record: Record) -> None:
        """Clear away what a step made that the plan has no more."""
        before = record.before.get(step.name)
        if before is not None and not step.asked(self.work.plan):
            before.state = "running"  # half cleared away it is not there any more
            record.write()
            self._undo(before.makes)
            del record.before[step.name]

    def _undo(self, made: Sequence[str], wanted: Sequence[str] = ()) -> None:
        """Take away what a step made; a folder that the bundle itself had there is put back, unless it is made anew."""
        for name in made:
            place, own = self.work.folder / name, self.work.source / name
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
            if name not in wanted and own.is_dir():
                shutil.copytree(own, place)


def _chosen(plan: Plan, until: str | None, dry: bool) -> list[Step]:
    """Return the steps that are to be done."""
    chosen = [step for step in STEPS if step.asked(plan) and not (dry and step.releases)]
    if until is None:
        return chosen
    names = [step.name for step in chosen]
    if until not in names:
        raise BadInput(f"--until {until}: is no step of this run; there are: {', '.join(names)}")
    return chosen[: names.index(until) + 1]


def _sweep(out: Path, bundle: Path) -> None:
    """Clear away what a killed process left half-written; nobody else works here."""
    for place in (*out.glob(".*.tmp"), *out.glob(".*.old.*"), *bundle.rglob(".*.tmp"), *bundle.rglob(".*.old.*")):
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
