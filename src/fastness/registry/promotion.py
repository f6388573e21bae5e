"""Promotion by evidence: both versions are measured on the same items, a policy judges, and all of it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastness.bundle import Bundle
from fastness.core.files import sha256_file
from fastness.evaluation.gate import Policy, Verdict, read_policy
from fastness.evaluation.side_by_side import compare
from fastness.registry.moves import Judged, Move
from fastness.registry.registry import Registry
from fastness.registry.says import checked_alias

_KEPT = ("compare.json", "compare.md")


def promote(
    registry: Registry,
    spec: str,
    alias: str,
    *,
    policy: str | Path,
    data: Any,
    why: str,
    by: str | None = None,
    override: bool = False,
    checks: Sequence[str] | None = None,
    slices: Sequence[str] | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Move:
    """Judge a version against the one that an alias names, and let the alias name it if the policy says yes.

    Args:
        registry: where both are.
        spec, alias, why, by, override: see `Registry.promote`.
        policy: a YAML file, see `gate.Policy`. Where the alias names nothing yet, rules that only ask for a drop say
            nothing.
        data: labelled items to measure on.
        checks, slices, seed, say, columns: see `compare`.

    Raises:
        GateRefused: the policy said no; that stands in the log.
        Failure: the alias was moved while this was measured.
        BadInput: a version, the policy or the data is unusable.
    """
    gate = judge(
        registry, spec, alias, policy=policy, data=data, checks=checks, slices=slices, seed=seed, say=say, **columns
    )
    return registry.promote(spec, alias, why=why, by=by, gate=gate, override=override)


def judge(
    registry: Registry,
    spec: str,
    alias: str,
    *,
    policy: str | Path,
    data: Any,
    checks: Sequence[str] | None = None,
    slices: Sequence[str] | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Judged:
    """Return what a gate says of a version, for `Registry.promote`; for the arguments see `promote`."""
    checked_alias(alias)
    version = registry.find(spec)
    asked = {"checks": checks, "slices": slices, "seed": seed, "say": say, **columns}
    with tempfile.TemporaryDirectory(prefix="fastness-promotion-") as place:
        candidate = registry.pull(str(version), Path(place) / "after")
        against = registry.now_at(version.name, alias)
        before = None if against in (None, version.number) else f"{version.name}@{against}"
        judged = _judged(registry, candidate, before, Path(policy), Path(place), {"data": data, **asked})
    return replace(judged, candidate=version.manifest, against=against)


def preview(
    registry: Registry, bundle: Bundle, name: str, alias: str, *, policy: str | Path, data: Any, **asked: Any
) -> Judged:
    """Return what a gate would say of a bundle that is not added; nothing is written.

    Args:
        registry: where the version is that the alias names now.
        bundle: the candidate.
        name, alias: what it would be promoted to.
        policy, data, asked: see `promote`.
    """
    checked_alias(alias)
    against = registry.now_at(name, alias)
    before = None if against is None else f"{name}@{against}"
    with tempfile.TemporaryDirectory(prefix="fastness-promotion-") as place:
        judged = _judged(registry, bundle, before, Path(policy), Path(place), {"data": data, **asked})
    return replace(judged, candidate=str(bundle.id), against=against)


def _judged(
    registry: Registry, candidate: Bundle | Path, before: str | None, policy: Path, place: Path, asked: dict[str, Any]
) -> Judged:
    """Compare a bundle with a version, or judge it alone by what of the policy can be judged so.

    Args:
        before: the version, ``None`` where there is none to compare with.
        place: a folder to work in.
        asked: data and options of `compare`.
    """
    stated = read_policy(policy)
    bundles: list[Bundle | Path] = [candidate]
    if before is not None:
        bundles.insert(0, registry.pull(before, place / "before"))
    else:
        stated = _alone(stated)
    asked_in = place / "policy.yaml"
    asked_in.write_text(stated.model_dump_json(), encoding="utf-8")  # JSON is YAML
    judging: dict[str, Any] = {"policy": asked_in} if stated.rules else {}
    found = compare(*bundles, out=place / "compared", examples=False, **judging, **asked)
    verdict = found.verdicts[0] if found.verdicts else Verdict([])
    record = {
        "policy": {"sha256": sha256_file(policy), **stated.model_dump()},
        "judgements": verdict.to_dict()["judgements"],
        "data": found.comparisons[0].after.about["fingerprint"],
    }
    evidence = {kept: (place / "compared" / kept).read_bytes() for kept in _KEPT}
    return Judged(verdict.passed, str(verdict), "", None, record, evidence)


def _alone(policy: Policy) -> Policy:
    """Return what of a policy can be judged where there is nothing to compare with."""
    limits = [rule.model_copy(update={"drop": None}) for rule in policy.rules]
    kept = [rule for rule in limits if rule.floor is not None or rule.ceiling is not None]
    return Policy.model_construct(None, rules=kept, level=policy.level)
