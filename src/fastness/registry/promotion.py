"""Promotion by evidence: both versions are measured on the same items, a policy judges, and all of it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
    asked = read_policy(Path(policy))
    version = registry.find(spec)
    against = registry.now_at(version.name, alias)
    with tempfile.TemporaryDirectory(prefix="fastness-promotion-") as place:
        folder = Path(place)
        bundles = [registry.pull(str(version), folder / "after")]
        if against is not None and against != version.number:
            bundles.insert(0, registry.pull(f"{version.name}@{against}", folder / "before"))
        else:
            asked = _alone(asked)
        asked_in = folder / "policy.yaml"
        asked_in.write_text(asked.model_dump_json(), encoding="utf-8")  # JSON is YAML
        options: dict[str, Any] = {"checks": checks, "slices": slices, "seed": seed, "say": say, **columns}
        judging: dict[str, Any] = {"policy": asked_in} if asked.rules else {}
        found = compare(*bundles, data=data, out=folder / "compared", examples=False, **judging, **options)
        verdict = found.verdicts[0] if found.verdicts else Verdict([])
        evidence = {name: (folder / "compared" / name).read_bytes() for name in _KEPT}
    record = {
        "policy": {"sha256": sha256_file(Path(policy)), **asked.model_dump()},
        "judgements": verdict.to_dict()["judgements"],
        "data": found.comparisons[0].after.about["fingerprint"],
    }
    return Judged(verdict.passed, str(verdict), version.manifest, against, record, evidence)


def _alone(policy: Policy) -> Policy:
    """Return what of a policy can be judged where there is nothing to compare with."""
    limits = [rule.model_copy(update={"drop": None}) for rule in policy.rules]
    kept = [rule for rule in limits if rule.floor is not None or rule.ceiling is not None]
    return Policy.model_construct(None, rules=kept, level=policy.level)
