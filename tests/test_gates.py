"""The gate's arithmetic: limits that hold what lies on them, chances corrected together, and refusals in order."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastness as fs
from fastness.evaluation.compare import Comparison, Difference, compare
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.gate import Judgement, Policy, Rule, Verdict, judge, read_policy
from fastness.evaluation.measurement import Measurement
from fastness.metrics.intervals import wilson

LEVEL = 0.75  # what is left is exact
ONE_UP, ONE_DOWN = (lambda x: math.nextafter(x, math.inf)), (lambda x: math.nextafter(x, -math.inf))


def change(name: str = "knn.accuracy", **given: Any) -> Difference:
    """Return a difference of 200 items: from 0.75 to 0.5, which chance does not explain."""
    usual = {
        "slice": "all", "n": 200, "before": 0.75, "after": 0.5, "low": -0.375, "high": -0.125,
        "after_low": 0.4375, "after_high": 0.5625, "p_worse": 0.0, "p_better": 1.0, "better": "higher", "paired": True,
    }  # fmt: skip
    return Difference(name, **{**usual, **given})


def evidence(called: str, names: list[str], n: int = 200) -> Evidence:
    """Return evidence of which only names and numbers of items are looked at."""
    found = [Measurement(name, 0.5, 0.4, 0.6, "items", n, "share", "", "") for name in names]
    return Evidence(Path(called), {"files": {}}, found)


def compared(*found: Difference, before: Evidence | None = None, after: Evidence | None = None, **given: Any) -> Any:
    """Return a comparison with such differences."""
    names = list(dict.fromkeys(d.name for d in found))
    one, other = before or evidence("old", names), after or evidence("new", names)
    usual: dict[str, Any] = {"known": {}, "outcomes": {}, "keys": [], "level": LEVEL, "wanted": None}
    return Comparison(one, other, differences=list(found), **{**usual, **given})


def verdict(comparison: Comparison, *rules: dict[str, Any]) -> Verdict:
    """Judge by rules at the comparison's level."""
    return judge(Policy.model_validate({"rules": list(rules), "level": comparison.level}), comparison)


def passes(d: Difference, **rule: Any) -> bool:
    """Return whether a rule lets a difference through."""
    return verdict(compared(d), {"measure": d.name, **rule}).passed


@pytest.mark.parametrize("proof", ["harm", "safety"])
def test_a_value_on_a_limit_is_within_it(proof: str) -> None:
    """The value itself where harm must be seen, the nearer end of the interval where safety must be shown."""
    least, most, lost = (0.4375, 0.5625, 0.375) if proof == "safety" else (0.5, 0.5, 0.25)
    assert passes(change(), floor=least, proof=proof) and not passes(change(), floor=ONE_UP(least), proof=proof)
    assert passes(change(), ceiling=most, proof=proof) and not passes(change(), ceiling=ONE_DOWN(most), proof=proof)
    assert passes(change(), drop=lost, proof=proof) and not passes(change(), drop=ONE_DOWN(lost), proof=proof)
    assert passes(change(), floor=least, ceiling=most, drop=lost, proof=proof)


def test_what_is_better_when_it_is_lower_drops_by_rising() -> None:
    fell = change(better="lower", p_worse=1.0, p_better=0.0)
    assert passes(fell, drop=0) and passes(fell, drop=0, proof="safety")
    rose = change(better="lower", before=0.5, after=0.75, low=0.125, high=0.375)
    assert passes(rose, drop=0.25) and not passes(rose, drop=ONE_DOWN(0.25))
    assert passes(rose, drop=0.375, proof="safety") and not passes(rose, drop=ONE_DOWN(0.375), proof="safety")
    assert "gain -0.250 [-0.375, -0.125] on 200 items" in str(verdict(compared(rose), {"measure": "*", "drop": 0}))


def test_a_limit_that_is_not_said_does_not_refuse() -> None:
    low, high = change(after=-9.0, after_low=-9.0), change(after=9.0, after_high=9.0, low=0.0, high=9.0)
    assert passes(low, ceiling=0.5) and not passes(low, floor=0.5)
    assert passes(high, floor=0.5) and not passes(high, ceiling=0.5)
    assert passes(high, drop=0) and passes(high, drop=0, proof="safety")


def test_chance_that_could_be_is_no_harm() -> None:
    """Less than what the level leaves refuses, as much does not; safety does not ask for it."""
    for p, through in ((0.25, True), (ONE_DOWN(0.25), False), (1.0, True), (0.0, False)):
        assert passes(change(p_worse=p), drop=0.0625) is through
        assert not passes(change(p_worse=p), drop=0.0625, proof="safety")
    assert passes(change(p_worse=0.0), drop=0.5)


def test_chances_are_corrected_for_all_that_a_rule_judges() -> None:
    """Of four the least counts four times, the next three times; those of another rule do not count."""
    chances = {"a.w": 0.0625, "a.x": 0.08, "a.y": 0.12, "a.z": 0.9}
    found = [change(name, p_worse=p) for name, p in chances.items()]
    together = verdict(compared(*found), {"measure": "a.*", "drop": 0})
    assert together.passed and len(together.judgements) == 4
    found[0] = change("a.w", p_worse=0.0624)
    together = verdict(compared(*found), {"measure": "a.*", "drop": 0})
    assert [j.passed for j in together.judgements] == [False, False, False, True]
    alone = verdict(compared(*found), *({"measure": name, "drop": 0} for name in chances))
    assert [(j.rule, j.measure, j.passed) for j in alone.judgements] == [
        (1, "a.w", False), (2, "a.x", False), (3, "a.y", False), (4, "a.z", True)
    ]  # fmt: skip


def test_all_items_are_judged_however_few_they_are() -> None:
    for n in (1, 49, 50):
        assert verdict(compared(change(n=n)), {"measure": "*", "floor": 0.75}).judgements[0].passed is False


def groups(**sizes: int) -> Comparison:
    """Return a comparison of items in groups, all right before and wrong after, of a measurement that has outcomes."""
    group = np.repeat(list(sizes), list(sizes.values()))
    outcomes = np.stack([np.ones(len(group)), np.zeros(len(group))], 1)
    names = evidence("old", ["knn.accuracy"], len(group)), evidence("new", ["knn.accuracy"], len(group))
    known = {"group": group, "place": np.arange(float(len(group)))}
    return compared(before=names[0], after=names[1], known=known, outcomes={"knn.accuracy": outcomes})


def test_slices_that_are_large_enough() -> None:
    """Those of fewer items are listed and not judged, unless none is left: that is no pass."""
    comparison = groups(a=49, b=50, c=51)
    rule = {"measure": "knn.accuracy", "by": "group", "floor": 0.5}
    assert [j.passed for j in verdict(comparison, rule).judgements] == [None, False, False]
    assert [j.passed for j in verdict(comparison, {**rule, "items": 51}).judgements] == [None, None, False]
    assert [j.passed for j in verdict(comparison, {**rule, "items": 49}).judgements] == [False] * 3
    none = verdict(comparison, {**rule, "items": 52, "floor": 0})
    assert [(j.slice, j.passed) for j in none.judgements] == [
        ("group == 'a'", None), ("group == 'b'", None), ("group == 'c'", None), ("3 slices", False)
    ]  # fmt: skip
    one = verdict(comparison, {"measure": "*", "where": "group == 'a'", "floor": 0})
    assert [(j.slice, j.passed) for j in one.judgements] == [("group == 'a'", None), ("group == 'a'", False)]
    two = verdict(comparison, {"measure": "*", "by": "group", "where": "group < 'c'", "floor": 0, "items": 60})
    assert two.judgements[-1].slice == "2 slices"


def test_chances_are_not_corrected_for_slices_that_are_too_small() -> None:
    """Of ten slices nine are too small: one that fell by a chance of 1 in 8 is refused at 0.75."""
    few = {f"s{i}": 3 for i in range(9)}
    group = np.repeat([*few, "t"], [*few.values(), 60])
    outcomes = np.ones((len(group), 2))
    outcomes[-3:, 1] = 0  # three that fell: 1 in 8
    old, new = (evidence(name, ["knn.accuracy"], len(group)) for name in ("old", "new"))
    comparison = compared(before=old, after=new, known={"group": group}, outcomes={"knn.accuracy": outcomes})
    rule = {"measure": "knn.accuracy", "by": "group", "drop": 0}
    assert [j.slice for j in verdict(comparison, rule).refusals] == ["group == 't'"]
    assert verdict(comparison, {**rule, "items": 3}).passed


def test_the_slices_of_a_rule() -> None:
    """A value each of every column, the expression, or both."""
    columns = {"a": np.array(["x", "y", "x", ""]), "b": np.array([1.0, 2.0, 2.0, np.nan])}

    def found(**rule: Any) -> Any:
        parts = Rule(measure="m", floor=0, **rule).slices(columns)
        return parts and {part.name: np.flatnonzero(part.mask).tolist() for part in parts}

    assert found() is None
    assert found(by="a") == found(by=["a"]) == {"a == 'x'": [0, 2], "a == 'y'": [1]}
    assert found(by=["b", "a"]) == {"b == 1": [0], "b == 2": [1, 2], "a == 'x'": [0, 2], "a == 'y'": [1]}
    assert found(where="b >= 2") == {"b >= 2": [1, 2]}
    assert found(by="a", where="b >= 2") == {"a == 'x' and b >= 2": [2], "a == 'y' and b >= 2": [1]}


def test_both_must_have_seen_nearly_the_same_items() -> None:
    """99 in 100 of either are enough, 98 are not."""
    outcomes = np.ones((102, 2))
    outcomes[99:] = np.nan
    for before, after, enough in ((100, 100, True), (100, 101, False), (101, 100, False), (99, 99, True)):
        old, new = evidence("old", ["knn.accuracy"], before), evidence("new", ["knn.accuracy"], after)
        comparison = compared(change(), before=old, after=new, outcomes={"knn.accuracy": outcomes})
        if enough:
            assert verdict(comparison, {"measure": "knn.accuracy", "floor": 0.1}).passed
        else:
            more = "old" if before > after else "new"
            with pytest.raises(fs.BadInput, match=f"rule 1: .* only 99 items in common with the 101 of {more};"):
                verdict(comparison, {"measure": "knn.accuracy", "floor": 0.1})


def test_the_measurements_that_a_rule_names() -> None:
    found = [change(name) for name in ("knn.accuracy", "knn.f1", "linear.accuracy", "Knn.f1")]

    def measured(pattern: str) -> list[str]:
        return [j.measure for j in verdict(compared(*found), {"measure": pattern, "floor": 0}).judgements]

    assert measured("knn.f1") == ["knn.f1"] and measured("knn.*") == ["knn.accuracy", "knn.f1"]
    assert measured("*.accuracy") == ["knn.accuracy", "linear.accuracy"] and len(measured("*")) == 4
    for pattern, near in (("knn.map", "knn.accuracy, knn.f1$"), ("zebra.f1", "knn.accuracy, knn.f1, linear.*Knn.f1$")):
        with pytest.raises(fs.BadInput, match=f"^rule 2: '{pattern}' was not measured; measured: {near}"):
            verdict(compared(*found), {"measure": "*", "floor": 0}, {"measure": pattern, "floor": 0})


def test_what_was_measured_before_must_be_measured_again() -> None:
    """Of what the rule is about; more than before is welcome, and other measurements do not matter."""
    d = change("a.x")
    for before, after, pattern, fine in (
        (["a.x", "a.y"], ["a.x"], "a.*", False),
        (["a.x", "a.y"], ["a.x"], "a.x", True),
        (["a.x", "b.y"], ["a.x"], "a.*", True),
        (["a.x"], ["a.x", "b.y"], "a.*", True),
    ):
        comparison = compared(d, before=evidence("old", before), after=evidence("new", after))
        if fine:
            assert verdict(comparison, {"measure": pattern, "floor": 0}).passed
        else:
            with pytest.raises(fs.BadInput, match=r"rule 1: 'a\.y' was measured of old and not of new"):
                verdict(comparison, {"measure": pattern, "floor": 0})
    with pytest.raises(fs.BadInput, match=r"rule 1: 'a\.y' was not measured; measured: a\.x$"):
        verdict(
            compared(d, before=evidence("old", ["a.x", "a.y"]), after=evidence("new", ["a.x"])),
            {"measure": "a.y", "floor": 0},
        )
    with pytest.raises(fs.BadInput, match=r"rule 1: 'a\.z' was not measured of old on the same items"):
        verdict(compared(d, after=evidence("new", ["a.x", "a.z"])), {"measure": "a.z", "floor": 0})
    part = change("a.x", slice="group == 'b'")
    with pytest.raises(fs.BadInput, match="was not measured of old on the same items"):
        verdict(compared(part), {"measure": "a.x", "floor": 0})


def test_a_number_that_is_none_is_not_within_any_limit() -> None:
    none = change(after=math.nan, after_low=math.nan, after_high=math.nan, low=math.nan, high=math.nan)
    for limit in ("floor", "ceiling", "drop"):
        for proof in ("harm", "safety"):
            assert not passes(none, **{limit: 1.0}, proof=proof)
    neither = change(better="neither")
    assert passes(neither, floor=0.5, ceiling=0.5)
    with pytest.raises(fs.BadInput, match="neither better nor worse"):
        passes(neither, drop=1)


def test_a_drop_wants_two_measurements() -> None:
    one = evidence("old", ["knn.accuracy"])
    alone = compared(change(), before=one, after=one)
    assert verdict(alone, {"measure": "*", "floor": 0.5}).passed
    for drop in (0, 0.5):
        with pytest.raises(fs.BadInput, match="rule 2: asks about a drop, and there is nothing to compare with"):
            verdict(alone, {"measure": "*", "floor": 0.5}, {"measure": "*", "drop": drop})
    assert verdict(compared(change()), {"measure": "*", "drop": 0.25}).passed


def judgement(passed: bool | None, rule: int = 1) -> Judgement:
    """Return what a rule said."""
    return Judgement(rule, "m", f"s{rule}", passed, f"why {rule}")


def test_the_verdict_counts() -> None:
    """Refusals stand in order; slices that are too small count neither way."""
    yes, no, small = judgement(True), judgement(False, 2), judgement(None, 3)
    assert str(Verdict([yes, yes, judgement(True, 2)])) == "the gate says yes: 3 judgements by 2 rules"
    assert str(Verdict([yes, small])) == "the gate says yes: 1 judgements by 1 rules; 1 slice too small to be judged"
    assert str(Verdict([yes, small, small])).endswith("; 2 slices too small to be judged")
    assert str(Verdict([yes, no, small])) == (
        "the gate says no: rule 2, m on s2: why 2; 1 slice too small to be judged"
    )
    several = Verdict([yes, no, judgement(False, 4), judgement(False, 5)])
    assert str(several) == "the gate says no: rule 2, m on s2: why 2 (and 2 more)"
    assert [j.rule for j in several.refusals] == [2, 4, 5] and not several.passed
    assert several.to_dict()["passed"] is False and len(several.to_dict()["judgements"]) == 4
    assert Verdict([yes, small]).passed and Verdict([yes, small]).refusals == []
    Verdict([yes, small]).enforce("me")
    with pytest.raises(fs.GateRefused, match=r"^me: the gate says no: rule 2, m on s2: why 2$"):
        Verdict([no]).enforce("me")


def test_every_reason_is_said() -> None:
    said = str(verdict(compared(change()), {"measure": "*", "floor": 0.6, "ceiling": 0.4, "drop": 0.1}))
    for reason in ("0.5 is below the floor of 0.6", "0.5 is above the ceiling of 0.4", "allowed is a drop of 0.1"):
        assert reason in said
    safe = str(verdict(compared(change()), {"measure": "*", "floor": 0.6, "drop": 0.1, "proof": "safety"}))
    assert "0.5 [0.4375, 0.5625] is below the floor of 0.6" in safe
    assert "not shown to be within the allowed drop of 0.1" in safe
    within = verdict(compared(change()), {"measure": "*", "floor": 0.4})
    assert within.judgements[0].reason == "before 0.750, now 0.500, 200 items"


def test_what_a_policy_may_say() -> None:
    """The level lies between a half and one, a drop is none or more, a slice has an item, a rule a limit."""
    rule: dict[str, Any] = {"measure": "m", "drop": 0}
    assert Policy.model_validate({"rules": [rule]}).level == 0.99
    assert Rule.model_validate(rule).items == 50 and Rule.model_validate({**rule, "items": 1}).items == 1
    assert Rule.model_validate(rule).proof == "harm"
    for level, fine in ((0.5, False), (0.5001, True), (0.9999, True), (1, False)):
        if fine:
            assert Policy.model_validate({"rules": [rule], "level": level}).level == level
            continue
        with pytest.raises(ValueError, match="level"):
            Policy.model_validate({"rules": [rule], "level": level})
    for bad in ({"drop": -1e-9}, {"drop": 0.1, "items": 0}, {}, {"by": "a"}, {"drop": 0, "proof": "hope"}):
        with pytest.raises(ValueError, match="Rule"):
            Rule.model_validate({"measure": "m", **bad})
    for limit in ("floor", "ceiling", "drop"):
        assert getattr(Rule.model_validate({"measure": "m", limit: 0.0}), limit) == 0
    with pytest.raises(ValueError, match="at least 1 item"):
        Policy.model_validate({"rules": []})


def test_a_mistake_in_a_policy_is_named_by_its_place(tmp_path: Path) -> None:
    """Rules are counted from 1."""
    path = tmp_path / "policy.yaml"
    path.write_text("rules: [{measure: a, floor: 0.5}, {measure: a, floor: high}]\nlevel: 0.9\n")
    with pytest.raises(fs.BadInput, match=r"policy.yaml: rules\.2\.floor: "):
        read_policy(path)
    path.write_text("rules: [{measure: a, floor: 0.5, by: b}]\nlevel: 0.9\n")
    assert read_policy(path) == Policy(rules=[Rule(measure="a", floor=0.5, by=["b"])], level=0.9)
    with pytest.raises(fs.BadInput, match=r"nowhere\.yaml: No such file"):
        read_policy(tmp_path / "nowhere.yaml")
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(fs.BadInput, match="no YAML"):
        read_policy(path)


def written(folder: Path, right: np.ndarray) -> Evidence:
    """Write evidence of right and wrong answers."""
    folder.mkdir()
    key = pa.array([i.to_bytes(32, "big") for i in range(len(right))], pa.binary(32))
    pq.write_table(pa.table({"sha256": key, "accuracy": right}), folder / "knn.parquet")
    pq.write_table(pa.table({"sha256": key}), folder / "items.parquet")
    found = evidence(str(folder), ["knn.accuracy"], len(right))
    return replace(found, about={"files": {"knn.parquet": "", "items.parquet": ""}})


def test_the_level_of_the_policy_is_that_of_its_intervals(tmp_path: Path) -> None:
    """Whether the comparison was made at a higher or a lower one."""
    right = np.arange(200) < 150
    one, other = written(tmp_path / "a", right), written(tmp_path / "b", right)
    for level in (0.6, 0.95, 0.99):
        low = wilson(150, 200, level)[0]
        for made in (0.6, 0.95, 0.99):
            comparison = compare(one, other, [], made)
            for floor, through in ((low - 1e-9, True), (low + 1e-9, False)):
                rule = {"measure": "knn.accuracy", "floor": floor, "proof": "safety"}
                assert judge(Policy.model_validate({"rules": [rule], "level": level}), comparison).passed is through


def test_the_first_mistake_is_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("rules: [{measure: a, drop: none}, {measure: a, floor: high}]\nlevel: low\n")
    with pytest.raises(fs.BadInput, match=r"policy.yaml: rules\.1\.drop: "):
        read_policy(path)
    old, new = evidence("old", ["a.x", "a.y", "a.z"]), evidence("new", ["a.x"])
    with pytest.raises(fs.BadInput, match=r"rule 1: 'a\.y' was measured of old"):
        verdict(compared(change("a.x"), before=old, after=new), {"measure": "a.*", "floor": 0})
    comparison = groups(a=60)
    for rule, asked in (({"where": "group == 'z'"}, "group == 'z'"), ({"by": "empty"}, "empty")):
        known = {**comparison.known, "empty": np.full(60, "")}
        with pytest.raises(fs.BadInput, match=rf"rule 1: no item is in its slices; is '{asked}' meant"):
            verdict(replace(comparison, known=known), {"measure": "knn.accuracy", "floor": 0, **rule})


def test_a_slice_is_not_all_items_whatever_it_is_called() -> None:
    """A name that sorts before `all`: too small it is not judged, and it stands for no figure of all items."""
    comparison = groups(a=49, b=51)
    comparison = replace(comparison, known={"Age": comparison.known["group"]})
    found = verdict(comparison, {"measure": "knn.accuracy", "by": "Age", "floor": 0}).judgements
    assert [(j.slice, j.passed) for j in found] == [("Age == 'a'", None), ("Age == 'b'", True)]
    with pytest.raises(fs.BadInput, match="was not measured of old on the same items"):
        verdict(compared(change(slice="Age == 'a'")), {"measure": "*", "floor": 0})
