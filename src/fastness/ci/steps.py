"""The steps of a pipeline, in order: on what each depends, what it makes, and what does it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from fastness import bundle as bundles
from fastness.ci.plan import Plan
from fastness.core.errors import BadInput, GateRefused
from fastness.core.files import replace_folder, sha256_file, write_json
from fastness.data import open_data
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.gate import read_policy
from fastness.evaluation.measurement import Measurement
from fastness.registry import Registry, promotion
from fastness.registry.moves import Judged
from fastness.registry.says import moment
from fastness_runtime import signature

JUDGED = "judged.json"
Result = dict[str, Any]


@dataclass
class Work:
    """A pipeline that is being run.

    Attributes:
        plan: what is to be done.
        out: its folder; the bundle is made in ``bundle`` therein.
        registry, store: see `Registry`.
        by, why: who does it, and what is said of it in the log.
        override: let the alias name the version even if the gate says no.
        dry: judge, but add and move nothing.
        say: called with lines of progress.
        quiet: whether to say nothing of training.
        results: of the steps that are done, by name.
    """

    plan: Plan
    out: Path
    registry: str | None
    store: str | None
    by: str | None
    why: str
    override: bool
    dry: bool
    say: Callable[[str], None]
    quiet: bool
    results: dict[str, Result] = field(default_factory=dict)
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the bundle is made ready."""
        return self.out / "bundle"

    @property
    def bundle(self) -> bundles.Bundle:
        """The bundle itself; nobody has signed it yet."""
        return bundles.load(self.folder, key=())

    @cached_property
    def given(self) -> bundles.Bundle | None:
        """The bundle that is released as it is."""
        return None if self.plan.bundle is None else bundles.load(self.plan.bundle)

    @property
    def source(self) -> Path:
        """Where the bundle lies to which the pipeline attaches."""
        return self.given.path if self.given else Path(self.results["train"]["run"]) / "bundle"

    @property
    def id(self) -> str:
        """The bundle's id."""
        return str(self.results["bundle" if self.given else "train"]["id"])

    @property
    def version(self) -> str:
        """What the bundle is in the registry."""
        return str(self.results["add"]["version"])

    def opened(self) -> Registry:
        """Open the registry; only what adds to it makes one."""
        return Registry(self.registry, self.store, create=not self.dry)

    @cached_property
    def modality(self) -> str | None:
        """Of what items, which tells how data are to be read; ``None`` for things with several sides."""
        found = self.given.modality if self.given else self._read(str(self.plan.data), self.plan.of(), None)[1]
        return None if found == "sides" else found

    def known(self, data: str, columns: dict[str, Any], modality: str | None) -> str:
        """Return a SHA-256 of data: items, their names, labels, splits, groups and all that is said of them."""
        return self._read(data, columns, modality)[0]

    def _read(self, data: str, columns: dict[str, Any], modality: str | None) -> tuple[str, str]:
        asked = json.dumps([data, columns, modality], sort_keys=True)
        if asked not in self._known:
            opened = open_data(data, modality=modality, **columns)
            whole = opened.whole
            groups = None if whole.groups is None else whole.groups.tolist()
            facts = {name: cells.to_pylist() for name, cells in whole.facts.items()}
            self._known[asked] = digest([whole.fingerprint, whole.names, groups, facts]), opened.modality
        return self._known[asked]

    def section(self, name: str) -> Any:
        """Return a section's settings with all that its data are."""
        section = getattr(self.plan, name)
        columns = self.plan.of(section)
        return [section.model_dump(), columns, self.known(section.data, columns, self.modality)]


def digest(value: Any) -> str:
    """Return the SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        name: what it is called.
        asked: whether a plan has it.
        rests: all on which it depends, as JSON values; ``None`` if it sees itself whether there is anything to do.
        do: does it; is given the key of what it depends on.
        makes: what it writes into the bundle's folder.
        begins: whether it lays the bundle that the others attach to.
        releases: whether it is for a release alone, and not for a dry run.
    """

    name: str
    asked: Callable[[Plan], bool]
    rests: Callable[[Work], Any]
    do: Callable[[Work, str], Result]
    makes: Callable[[Plan, str], list[str]] = lambda plan, key: []
    begins: bool = False
    releases: bool = False


# -- the bundle --------------------------------------------------------------------------------------------------------


def _trained_by(work: Work) -> Any:
    recipe, columns = work.plan.recipe, work.plan.of()
    parents = {
        place: bundles.load(str(place)).id for place in (recipe.init, recipe.options.get("teacher")) if _there(place)
    }
    return [recipe.to_dict(), columns, work.known(str(work.plan.data), columns, None), parents]


def _there(place: str | None) -> bool:
    return bool(place) and Path(str(place)).exists()


def _train(work: Work, key: str) -> Result:
    from fastness.training.progress import Display
    from fastness.training.run import train

    out = work.out / f"train-{key[:12]}"
    run = train(work.plan.data, work.plan.recipe, out, columns=work.plan.of(), display=Display(quiet=work.quiet))
    _lay(work, run.bundle)
    recipe = run.recipe
    said = f"{recipe.method}, {recipe.encoder}, {run.steps:,} steps: {run.id[:12]}"
    about = {"steps": run.steps, "knn": run.knn, "quarantined": run.quarantined}
    return {"said": said, "id": run.id, "run": str(out), **about}


def _given(work: Work) -> Any:
    assert work.given is not None
    return [work.given.id, _hashes(work.given.path)]


def _take(work: Work, key: str) -> Result:
    assert work.given is not None
    _lay(work, work.given.path)
    return {"said": f"{work.given.path}: {work.given.id[:12]}", "id": work.given.id}


def _lay(work: Work, source: Path) -> None:
    """Lay a copy of a bundle, to which is attached what belongs to the release; the bundle itself stays as it is."""
    plan = work.plan
    changes = (
        plan.evaluate or plan.head or plan.export or plan.sketch or plan.sign
    )  # then an earlier signature holds no longer

    def fill(place: Path) -> None:
        shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        if changes:
            (place / signature.FILE).unlink(missing_ok=True)

    replace_folder(work.folder, fill)


def _hashes(folder: Path, signatures: bool = True) -> dict[str, str]:
    """Return the SHA-256 of every file of a bundle."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in files
        if signatures or path.name != signature.FILE
    }


# -- what is attached to it --------------------------------------------------------------------------------------------


def _evaluate(work: Work, key: str) -> Result:
    from fastness.evaluation.evaluate import evaluate
    from fastness.evaluation.report import headline

    asked = work.plan.evaluate
    assert asked is not None
    report = evaluate(
        work.bundle,
        asked.data,
        asked.checks,
        slices=asked.slices,
        examples=asked.examples,
        out=work.folder / _evidence(work.plan, key)[0],
        seed=asked.seed,
        say=work.say,
        **work.plan.of(asked),
    )
    _refuse_unmeasured(work.plan, report.evidence)
    shown = headline(report.evidence)
    said = ", ".join(f"{m.name} {m}" for m in shown[:3]) or f"{len(report.evidence.measurements)} measurements"
    return {"said": said, "report": str(report.html), "measured": _figures(shown)}


def _refuse_unmeasured(plan: Plan, evidence: Evidence) -> None:
    """Say that the gate will have nothing to judge by, before a version is added."""
    names = [m.name for m in evidence.measurements]
    for number, rule in enumerate(read_policy(Path(plan.gate)).rules if plan.gate else (), 1):
        if not any(fnmatchcase(name, rule.measure) for name in names):
            raise BadInput(
                f"{plan.gate}: rule {number}: '{rule.measure}' is not measured; name its check in 'evaluate', or drop "
                f"the rule; measured: {', '.join(names)[:200]}"
            )


def _measured_by(work: Work) -> Any:
    return [work.id, work.section("evaluate")]


def _evidence(plan: Plan, key: str) -> list[str]:
    return [f"evidence/ci-{key[:12]}"]


def _figures(measurements: list[Measurement]) -> dict[str, list[float | None]]:
    """Return value and interval of measurements by name."""
    plain = [m.to_dict() for m in measurements]
    return {m["name"]: [m["value"], m["low"], m["high"]] for m in plain}


def _fit(work: Work, key: str) -> Result:
    from fastness.tasks.fit import fit

    asked = work.plan.head
    assert asked is not None
    head = fit(
        work.bundle,
        asked.data,
        name=asked.name,
        abstain=asked.abstain,
        seed=asked.seed,
        say=work.say,
        **work.plan.of(asked),
    )
    measured = [Measurement.from_dict(values) for values in head.about["measurements"]]
    said = f"{head.name}: {len(head.classes)} classes, accuracy {measured[0]}"
    return {"said": said, "head": head.name, "id": head.about["id"], "measured": _figures(measured)}


def _fitted_by(work: Work) -> Any:
    return [work.id, work.section("head")]


def _heads(plan: Plan, key: str) -> list[str]:
    assert plan.head is not None
    return [f"heads/{plan.head.name}"]


def _exported_by(work: Work) -> Any:
    asked = work.plan.compared_on
    assert asked is not None
    columns = work.plan.of(asked)
    head = work.results.get("head", {})
    data = work.known(asked.data, columns, work.modality)
    return [work.id, work.plan.export, head.get("head"), head.get("id"), data]


def _export(work: Work, key: str) -> Result:
    from fastness.delivery.export import export

    asked, bundle = work.plan.compared_on, work.bundle
    assert asked is not None
    found: dict[str, dict[str, Any]] = {}
    for form in work.plan.export:
        work.say(f"{form}:")
        head = work.results.get("head", {}).get("head")
        made = export(bundle, asked.data, form, head=head, say=work.say, **work.plan.of(asked))
        found[form] = {"bytes": made.bytes, "parity": made.parity.to_dict()}
    said = ", ".join(f"{form} {one['bytes'] / 1e6:.1f} MB" for form, one in found.items())
    return {"said": said, "forms": found}


def _exports(plan: Plan, key: str) -> list[str]:
    return [f"exports/{form}" for form in plan.export]


def _sketched_by(work: Work) -> Any:
    assert work.plan.sketch is not None
    export = work.results["export"]["forms"] if work.plan.sketch.form in work.plan.export else None
    return [work.id, work.section("sketch"), work.results.get("head", {}).get("id"), export]


def _sketch(work: Work, key: str) -> Result:
    from fastness.monitoring.sketching import sketch

    asked = work.plan.sketch
    assert asked is not None
    head = work.results.get("head", {}).get("head")
    columns = work.plan.of(asked)
    made = sketch(
        work.bundle, asked.data, form=asked.form, head=head, most=asked.most, seed=asked.seed, say=work.say, **columns
    )
    return {"said": f"{len(made.window):,} items, {len(made.names)} clusters", "items": len(made.window)}


def _signed_by(work: Work) -> Any:
    return [_hashes(work.folder, signatures=False), sha256_file(Path(str(work.plan.sign)))]


def _sign(work: Work, key: str) -> Result:
    from fastness.delivery.signing import sign

    signed = sign(work.folder, str(work.plan.sign))
    return {"said": f"{signed.files:,} files, with the key {signed.key[:16]}…", "key": signed.key}


def _signatures(plan: Plan, key: str) -> list[str]:
    return [signature.FILE, *(f"exports/{form}/{signature.FILE}" for form in plan.export)]


# -- the registry: these see themselves whether there is anything to do ------------------------------------------------


def _itself(work: Work) -> None:
    return None


def _add(work: Work, key: str) -> Result:
    with work.opened() as registry:
        version = registry.add(work.folder, work.plan.name, by=work.by, note=work.why)
        size = f"{version.files} files, {version.bytes / 1e6:.1f} MB"
        return {"said": f"{version}: {size}", "version": str(version), "registry": registry.shown}


def _judge(work: Work, key: str) -> Result:
    plan = work.plan
    assert plan.evaluate is not None and plan.alias is not None
    asked: dict[str, Any] = {"policy": plan.gate, "data": plan.evaluate.data, "checks": plan.evaluate.checks}
    asked |= {"slices": plan.evaluate.slices, "seed": plan.evaluate.seed, "say": work.say, **plan.of(plan.evaluate)}
    with work.opened() as registry:
        against = registry.now_at(plan.name, plan.alias)
        if work.dry:
            judged = promotion.preview(registry, work.bundle, plan.name, plan.alias, **asked)
            _keep(work.out / "gate", judged, "")
            if not judged.passed:
                raise GateRefused(f"{plan.name}: {judged.said}")
            return _told(judged, "")
        version = registry.find(work.version)
        if against == version.number:
            return {"said": f"{version} is {plan.alias} already"}
        if not work.override:
            _refuse_returned(registry, version.name, version.number, plan.alias)
        before = None if against is None else registry.find(f"{plan.name}@{against}").manifest
        policy, measured = sha256_file(Path(str(plan.gate))), work.section("evaluate")
        key = digest([version.manifest, against, before, policy, measured])  # numbers count anew in each registry
        found = _kept(work.out / "gate", key)
        if found is None:
            found = promotion.judge(registry, str(version), plan.alias, **asked)
            _keep(work.out / "gate", found, key)
        if not found.passed and not work.override:  # which is written into the log, and raised
            registry.promote(str(version), plan.alias, why=work.why, by=work.by, gate=found)
        return _told(found, key)


def _told(judged: Judged, key: str) -> Result:
    return {"said": judged.said, "passed": judged.passed, "against": judged.against, "key": key}


def _refuse_returned(registry: Registry, name: str, number: int, alias: str) -> None:
    """Refuse to promote again, by a pipeline that is run again, what somebody has rolled back, whatever came since."""
    told = (move for move in registry.log(name, alias) if move.what != "refuse")
    last = next((move for move in told if number in (move.before, move.number)), None)
    if last is not None and last.what in ("rollback", "remove") and last.number != number:
        why = f" ({last.why})" if last.why else ""
        raise GateRefused(
            f"{name}@{number} was taken out of {alias} by {last.by} at {moment(last.at)}{why}; if it is to go back, "
            "say --override --why …"
        )


def _keep(folder: Path, judged: Judged, key: str) -> None:
    """Write what a gate said, beside its evidence, for those who read it and for a run that goes on."""

    def fill(place: Path) -> None:
        for name, content in judged.evidence.items():
            (place / name).write_bytes(content)
        said = {"passed": judged.passed, "said": judged.said, "candidate": judged.candidate, "against": judged.against}
        write_json(place / JUDGED, {"key": key, **said, "record": judged.record, "evidence": sorted(judged.evidence)})

    replace_folder(folder, fill)


def _kept(folder: Path, key: str | None) -> Judged | None:
    """Return what a gate said before, if it was of the same."""
    if not (folder / JUDGED).exists():
        return None
    stated = json.loads((folder / JUDGED).read_text(encoding="utf-8"))
    if stated.pop("key") != key:
        return None
    evidence = {name: (folder / name).read_bytes() for name in stated.pop("evidence")}
    return Judged(**stated, evidence=evidence)


def _rebuild(work: Work, key: str) -> Result:
    from fastness.registry.reindex import rebuild

    asked = work.plan.collection
    assert asked is not None
    with work.opened() as registry:
        built = rebuild(
            registry,
            work.version,
            asked.data,
            collection=asked.name,
            kind=asked.kind,
            to=asked.to,
            form=asked.form,
            previews=asked.previews,
            by=work.by,
            say=work.say,
            **work.plan.of(asked),
        )
    said = f"{built}: {built.items:,} items, {built.kind}"
    return {"said": said, "index": str(built), "items": built.items, "address": built.address}


def _promote(work: Work, key: str) -> Result:
    plan = work.plan
    assert plan.alias is not None
    with work.opened() as registry:
        version = registry.find(work.version)
        now = registry.serving(version.name).get(plan.alias)
        if now is not None and now.number == version.number:
            return {"said": f"{version} is {plan.alias} already", "move": now.id}
        judged = _kept(work.out / "gate", work.results["gate"].get("key"))
        move = registry.promote(str(version), plan.alias, why=work.why, by=work.by, gate=judged, override=work.override)
    before = f" (before: {move.before})" if move.before else ""
    marks = ", OVERRIDE" if move.override else ""
    return {"said": f"{plan.name}@{plan.alias} -> {version}{before}{marks}", "move": move.id}


STEPS = (
    Step("train", lambda plan: plan.bundle is None, _trained_by, _train, begins=True),
    Step("bundle", lambda plan: plan.bundle is not None, _given, _take, begins=True),
    Step("evaluate", lambda plan: plan.evaluate is not None, _measured_by, _evaluate, _evidence),
    Step("head", lambda plan: plan.head is not None, _fitted_by, _fit, _heads),
    Step("export", lambda plan: bool(plan.export), _exported_by, _export, _exports),
    Step("sketch", lambda plan: plan.sketch is not None, _sketched_by, _sketch, lambda plan, key: ["sketch"]),
    Step("sign", lambda plan: plan.sign is not None, _signed_by, _sign, _signatures, releases=True),
    Step("add", lambda plan: True, _itself, _add, releases=True),
    Step("gate", lambda plan: plan.alias is not None, _itself, _judge),
    Step("index", lambda plan: plan.collection is not None, _itself, _rebuild, releases=True),
    Step("promote", lambda plan: plan.alias is not None, _itself, _promote, releases=True),
)
