"""The gate: a policy over the evidence of a candidate, and of what it would replace, says yes or no."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastness.core.conditions import Columns
from fastness.core.errors import BadInput, GateRefused
from fastness.evaluation import slices
from fastness.evaluation.compare import Comparison, Difference
from fastness.evaluation.measurement import WHOLE
from fastness.evaluation.slices import Slice
from fastness.metrics.intervals import holm

_SMALLEST = 50
_SAME = 0.99  # share of the items of either that both must have seen


class Rule(BaseModel):
    """What must hold of a measurement, of all items or of slices.

    Attributes:
        measure: name of the measurement; ``*`` stands for anything (``corruption.*.mean.accuracy``).
        floor, ceiling: the least and the largest value that is let through.
        drop: how much worse than before it may be; 0.02 are two points of accuracy.
        by: columns of which every value is a slice, instead of all items.
        where: expression that is the slice; see `slices.where`.
        items: slices of fewer are not judged, and listed; a rule that can judge none refuses.
        proof: of which side. ``harm`` refuses what was seen to be beyond the limit (a drop also only where chance
            does not explain that there is one). ``safety`` refuses what was not shown to be within it: the interval
            must not reach beyond the limit either (a test of non-inferiority).
    """

    model_config = ConfigDict(extra="forbid")

    measure: str
    floor: float | None = None
    ceiling: float | None = None
    drop: float | None = Field(None, ge=0)
    by: list[str] = []
    where: str | None = None
    items: int = Field(_SMALLEST, ge=1)
    proof: Literal["harm", "safety"] = "harm"

    @model_validator(mode="before")
    @classmethod
    def _one_column(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("by"), str):
            return {**values, "by": [values["by"]]}
        return values

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if self.floor is None and self.ceiling is None and self.drop is None:
            raise ValueError("says no limit; give floor, ceiling or drop")
        return self

    def slices(self, columns: Columns) -> list[Slice] | None:
        """Return the slices that the rule is about, ``None`` for all items together."""
        if not self.by and self.where is None:
            return None
        parts = [part for name in self.by for part in slices.by_value(name, columns)]
        if self.where is None:
            return parts
        chosen = slices.where(self.where, columns)
        if not self.by:
            return [chosen]
        return [Slice(f"{part.name} and {chosen.name}", part.mask & chosen.mask) for part in parts]


class Policy(BaseModel):
    """A list of rules; a candidate must pass all.

    Attributes:
        rules: the rules.
        level: of intervals, and how sure it must be that a drop is one, over all slices of a rule together. At 0.99
            about 4 in 100 pairs of equally long trainings fail a rule over twenty slices, at 0.95 they are 13, as two
            trainings are never quite as good as each other (``benchmarks/gate.py``).
    """

    model_config = ConfigDict(extra="forbid")

    rules: list[Rule] = Field(min_length=1)
    level: float = Field(0.99, gt=0.5, lt=1)


@dataclass(frozen=True)
class Judgement:
    """What a rule said of one measurement on one slice.

    Attributes:
        rule: its place in the policy, from 1.
        measure, slice: of what.
        passed: ``None`` if the slice is too small to be judged.
        reason: in words, with numbers.
    """

    rule: int
    measure: str
    slice: str
    passed: bool | None
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        judgements: of every rule on every slice, in order.
    """

    judgements: list[Judgement]

    @property
    def passed(self) -> bool:
        """Whether no rule refused."""
        return not self.refusals

    @property
    def refusals(self) -> list[Judgement]:
        """The judgements that refused, in order of the policy."""
        return [j for j in self.judgements if j.passed is False]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {"passed": self.passed, "judgements": [asdict(j) for j in self.judgements]}

    def enforce(self, candidate: str) -> None:
        """Raise `GateRefused` with the first rule and slice that refused, if one did."""
        if not self.passed:
            raise GateRefused(f"{candidate}: {self}")

    def __str__(self) -> str:
        judged = [j for j in self.judgements if j.passed is not None]
        small = len(self.judgements) - len(judged)
        aside = f"; {small} slice{'s' if small > 1 else ''} too small to be judged" if small else ""
        if self.passed:
            return f"the gate says yes: {len(judged)} judgements by {len({j.rule for j in judged})} rules{aside}"
        first, more = self.refusals[0], len(self.refusals) - 1
        others = f" (and {more} more)" if more else ""
        return f"the gate says no: rule {first.rule}, {first.measure} on {first.slice}: {first.reason}{others}{aside}"


def read_policy(path: Path) -> Policy:
    """Read a policy from a YAML file.

    Raises:
        BadInput: the file cannot be read, or says something that no policy says; names the field.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Policy.model_validate(values)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; give a policy, e.g. rules: [{{measure: ..., drop: 0.02}}]") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: no YAML ({' '.join(str(error).split())[:200]})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
        raise BadInput(f"{path}: {place or 'policy'}: {first['msg']}; see the docs on policies") from None


def judge(policy: Policy, comparison: Comparison) -> Verdict:
    """Judge the later of two pieces of evidence.

    Raises:
        BadInput: a rule is about something that was not measured, or of which slices are not known.
    """
    if comparison.level != policy.level:
        comparison = comparison.at(policy.level)
    judgements = []
    for number, rule in enumerate(policy.rules, 1):
        if rule.drop is not None and comparison.before is comparison.after:
            raise BadInput(f"rule {number}: asks about a drop, and there is nothing to compare with; name two bundles")
        parts = rule.slices(comparison.known)
        names = _measured(rule, number, comparison)
        _on_the_same(comparison, names, number)
        found = [d for name in names for d in _differences(comparison, rule, number, name, parts)]
        if not found:
            raise BadInput(f"rule {number}: no item is in its slices; is '{rule.where or ', '.join(rule.by)}' meant?")
        judgements += _judged(rule, number, found, policy.level)
    return Verdict(judgements)


def _measured(rule: Rule, number: int, comparison: Comparison) -> list[str]:
    """Return the measurements that a rule is about; one that was made before must be made again."""
    every = [m.name for m in comparison.after.find("")]
    names = [name for name in every if fnmatchcase(name, rule.measure)]
    lost = [m.name for m in comparison.before.find("") if fnmatchcase(m.name, rule.measure) and m.name not in names]
    if lost and names:
        raise BadInput(
            f"rule {number}: '{lost[0]}' was measured of {comparison.before.called} and not of "
            f"{comparison.after.called}; measure both with the same checks"
        )
    if not names:
        head = rule.measure.partition(".")[0]
        near = [name for name in every if name.startswith(head)] or every
        raise BadInput(f"rule {number}: '{rule.measure}' was not measured; measured: {', '.join(near)[:400]}")
    return names


def _on_the_same(comparison: Comparison, names: list[str], number: int) -> None:
    """Refuse to judge by a few items that two measurements happen to have in common."""
    for name in names:
        n = int((~np.isnan(comparison.outcomes[name][:, 0])).sum()) if name in comparison.outcomes else None
        for evidence in (comparison.before, comparison.after):
            measurement = evidence.get(name)
            if n is not None and measurement is not None and n < _SAME * measurement.n:
                raise BadInput(
                    f"rule {number}: '{name}' has only {n:,} items in common with the {measurement.n:,} of "
                    f"{evidence.called}; evaluate both on the same data, with the same seed"
                )


def _differences(
    comparison: Comparison, rule: Rule, number: int, name: str, parts: list[Slice] | None
) -> list[Difference]:
    """Return how a measurement differs on the slices of a rule, or on all items."""
    if parts is not None:
        return comparison.on(name, parts)
    found = [d for d in comparison.differences if d.name == name and d.slice == WHOLE]
    if not found:
        raise BadInput(
            f"rule {number}: '{name}' was not measured of {comparison.before.called} on the same items; "
            "measure both on the same data with the same checks"
        )
    return found


def _judged(rule: Rule, number: int, found: list[Difference], level: float) -> list[Judgement]:
    """Judge every slice that is large enough; chances are corrected for their number (Holm)."""
    large = [d for d in found if d.n >= rule.items or d.slice == WHOLE]
    chances = dict(zip(map(id, large), holm([d.p_worse for d in large]), strict=True))
    out = []
    for d in found:
        if id(d) not in chances:
            out.append(Judgement(number, d.name, d.slice, None, f"{d.n} items, fewer than {rule.items}"))
            continue
        reasons = [*_beyond(rule, d), *_dropped(rule, d, chances[id(d)] < 1 - level)]
        said = f"before {d.before:.3f}, now {d.after:.3f}, {d.n:,} items"
        out.append(Judgement(number, d.name, d.slice, not reasons, "; ".join(reasons) or said))
    if not large:
        name, some = found[0].name, f"{len(found)} slices" if len(found) > 1 else found[0].slice
        reason = f"nothing can be judged: fewer than {rule.items} items; give more, or lower 'items'"
        out.append(Judgement(number, name, some, False, reason))
    return out


def _beyond(rule: Rule, d: Difference) -> list[str]:
    """Return how a value is beyond the floor or the ceiling."""
    sure = rule.proof == "safety"
    least, most = (d.after_low, d.after_high) if sure else (d.after, d.after)
    shown = f"{d.after:.4g} [{d.after_low:.4g}, {d.after_high:.4g}]" if sure else f"{d.after:.4g}"
    found = []
    if rule.floor is not None and not least >= rule.floor:
        found.append(f"{shown} is below the floor of {rule.floor:g}")
    if rule.ceiling is not None and not most <= rule.ceiling:
        found.append(f"{shown} is above the ceiling of {rule.ceiling:g}")
    return found


def _dropped(rule: Rule, d: Difference, is_one: bool) -> list[str]:
    """Return how a value dropped further than allowed.

    Args:
        is_one: whether chance does not explain the drop, all slices of the rule considered.
    """
    if rule.drop is None:
        return []
    if d.better == "neither":
        raise BadInput(f"'{d.name}' is neither better nor worse when it is higher; give it a floor or a ceiling")
    low, high = d.gain_interval
    shown = f"from {d.before:.3f} to {d.after:.3f}, gain {d.gain:+.3f} [{low:+.3f}, {high:+.3f}] on {d.n:,} items"
    if rule.proof == "safety":
        return [] if low >= -rule.drop else [f"{shown}: not shown to be within the allowed drop of {rule.drop:g}"]
    if math.isnan(d.gain):
        return [f"{shown}: no number to judge by"]
    within = d.gain >= -rule.drop
    return [] if within or not is_one else [f"{shown}: allowed is a drop of {rule.drop:g}"]
