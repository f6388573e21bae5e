"""Slices, comparisons and the gate: equal to what one would count by hand, and right about chance."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import fastness as fs
from fastness.core.files import sha256_file
from fastness.core.seeds import derive
from fastness.evaluation import evidence as evidences
from fastness.evaluation import slices
from fastness.evaluation.compare import _intervals, compare
from fastness.evaluation.gate import Policy, judge, read_policy
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.slices import Slice
from fastness.metrics.intervals import bootstrap_means, chance_of_drop, paired_shares, quantiles, wilson

COLUMNS = {
    "brightness": np.array([10.0, 50.0, np.nan, 30.0]),
    "category": np.array(["shoes", "hats", "shoes", ""]),
    "made in": np.array(["DE", "FR", "FR", "DE"]),
}


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("brightness < 40", [0, 3]),
        ("40 > brightness", [0, 3]),
        ("20 < brightness <= 50", [1, 3]),
        ("brightness < 40 and category == 'shoes'", [0]),
        ("brightness < 40 or category == 'shoes'", [0, 2, 3]),
        ("not brightness < 40", [1, 2]),
        ("category != 'shoes'", [1]),
        ("category in ('shoes', 'hats')", [0, 1, 2]),
        ("category not in ['shoes']", [1]),
        ("`made in` == 'DE' and brightness > -1", [0, 3]),
    ],
)
def test_expressions(expression: str, rows: list[int]) -> None:
    """An expression holds where one would say so; what is missing is never compared."""
    assert np.flatnonzero(slices.where(expression, COLUMNS).mask).tolist() == rows


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("brightness <", "invalid syntax"),
        ("color == 'red'", "nothing is known of 'color'; known: brightness, category, made in"),
        ("brightness == 'dark'", "the column holds numbers"),
        ("category < 3", "the column holds texts"),
        ("category", "no comparison"),
        ("category == shoes", "put a text in quotes"),
        ("__import__('os').system('true') == 0", "no comparison|wants a column"),
        ("brightness is 3", "no comparison that is known here"),
        ("`nothing` == 1", "nothing is known of 'nothing'"),
        ("category in 'shoes'", "a list behind it"),
        ("brightness + 1 < 3", "wants a column"),
    ],
)
def test_expressions_that_are_none(expression: str, says: str) -> None:
    """Each says what is wrong, and nothing in it is ever run."""
    with pytest.raises(fs.BadInput, match=says):
        slices.where(expression, COLUMNS)


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    """Nothing else comes out."""
    try:
        found = slices.where(text, COLUMNS)
    except fs.BadInput:
        return
    assert found.mask.dtype == np.bool_ and found.mask.shape == (4,)


def test_names_select_what_they_hold() -> None:
    """Every usual slice's name is an expression for the same items, whatever the column or value is called."""
    rng = np.random.default_rng(0)
    columns = {
        "hospital": rng.choice([1000001.0, 1000002.0, 0.1 + 0.2], 60),
        "class": rng.choice(["it's", 'say "no"', "back\\slash"], 60),
        "\u00b5": rng.normal(size=60) * 1e6,
        "size in cm": rng.normal(size=60) / 1e6,
    }
    found = slices.usual(columns)
    assert len(found) == 3 + 3 + 2 + 2
    for part in found:
        assert np.array_equal(slices.where(part.name, columns).mask, part.mask), part.name


def test_usual_slices() -> None:
    """Few texts are a slice each, numbers their ends, texts that are all different none."""
    columns = {"kind": np.array(["a", "b"] * 50), "name": np.arange(100).astype(np.str_), "size": np.arange(100.0)}
    found = {part.name: int(part.mask.sum()) for part in slices.usual(columns)}
    assert found == {"kind == 'a'": 50, "kind == 'b'": 50, "size <= 19.8": 20, "size >= 79.2": 20}


def evidence(folder: Path, right: np.ndarray, **known: Any) -> evidences.Evidence:
    """Write evidence of right and wrong answers as a check would."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = [i.to_bytes(32, "big") for i in range(len(right))]
    key = pa.array(hashes, pa.binary(32))
    pq.write_table(pa.table({"sha256": key, "accuracy": right}), folder / "knn.parquet")
    pq.write_table(pa.table({"sha256": key, **{n: pa.array(v) for n, v in known.items()}}), folder / "items.parquet")
    mean = float(np.mean(right))
    measurements = [
        Measurement("knn.accuracy", mean, mean - 0.01, mean + 0.01, "items", len(right), "share", "", ""),
        Measurement("geometry.rank", 5.0, 4.0, 6.0, "draws", 8, "dimensions", "", "", better="neither"),
        Measurement("ood.x.auroc", mean / 2, 0.1, 0.9, "items", 10, "share", "", ""),
    ]
    lines = [json.dumps(m.to_dict()) for m in measurements]
    (folder / "measurements.jsonl").write_text("\n".join(lines) + "\n")
    return sealed(folder)


def sealed(folder: Path) -> evidences.Evidence:
    """Say that the files are those that were measured."""
    files = {name: sha256_file(folder / name) for name in ("knn.parquet", "items.parquet", "measurements.jsonl")}
    (folder / "evidence.json").write_text(json.dumps({"data": "somewhere", "files": files}))
    return evidences.read(folder)


def rehash(folder: Path, hashes: list[bytes]) -> None:
    """Give the items other bytes."""
    for name in ("knn", "items"):
        table = pq.read_table(folder / f"{name}.parquet")
        pq.write_table(table.set_column(0, "sha256", pa.array(hashes, pa.binary(32))), folder / f"{name}.parquet")
    sealed(folder)


def pair(tmp_path: Path, seed: int = 0, n: int = 2000) -> tuple[evidences.Evidence, evidences.Evidence]:
    """Two systems, 80% right, the second wrong more often in group b."""
    rng = np.random.default_rng(seed)
    group = np.where(np.arange(n) % 4 == 0, "b", "a")
    before = rng.random(n) < 0.8
    after = before & ~((group == "b") & (rng.random(n) < 0.2))
    order = rng.permutation(n)
    first = evidence(tmp_path / "a", before, group=group.tolist())
    second = evidence(tmp_path / "b", after, group=group.tolist())
    for name in ("knn", "items"):  # another order, as of another source
        pq.write_table(pq.read_table(second.folder / f"{name}.parquet").take(order), second.folder / f"{name}.parquet")
    return first, sealed(second.folder)


def test_paired_differences(tmp_path: Path) -> None:
    """On every slice the difference is that of the means, whatever the order; it lies in its interval."""
    before, after = pair(tmp_path)
    found = {d.slice: d for d in compare(before, after).differences if d.name == "knn.accuracy"}
    assert set(found) == {"all", "group == 'a'", "group == 'b'"}
    assert found["group == 'a'"].gain == 0 and found["group == 'a'"].n == 1500
    assert found["group == 'b'"].gain == pytest.approx(-0.8 * 0.2, abs=0.05)
    assert found["all"].gain == pytest.approx(found["group == 'b'"].gain / 4)
    assert all(d.low <= d.after - d.before <= d.high for d in found.values())
    back = {d.slice: d for d in compare(after, before).differences if d.name == "knn.accuracy"}
    for name, d in found.items():
        assert (back[name].gain, back[name].p_better) == pytest.approx((-d.gain, d.p_worse))
        assert (back[name].low, back[name].high) == pytest.approx((-d.high, -d.low), abs=0.002)


def test_counted_outcomes_and_drawn_ones_do_not_disturb_each_other() -> None:
    """Only what is not right or wrong is drawn, by the same items whatever else there is; gaps are passed over."""
    rng = np.random.default_rng(0)
    scores, right = rng.random((60, 2)), rng.integers(0, 2, (60, 2)).astype(float)
    scores[rng.random(60) < 0.2] = np.nan
    masks = {"all": np.ones(60, np.bool_), "few": np.arange(60) < 20, "none": np.zeros(60, np.bool_)}
    parts = [Slice(name, mask) for name, mask in masks.items()]
    jobs = [(name, part) for name in ("scores", "right") for part in parts]
    found = _intervals({"scores": scores, "right": right}, jobs, 0.9)
    assert found[2] is None and found[5] is None
    for place, part in enumerate(parts[:2]):
        table = np.where(part.mask[:, None], scores, np.nan)
        means = bootstrap_means(np.stack([table[:, 1] - table[:, 0], table[:, 1]], 1), derive(0, "comparison"))
        assert found[place] == tuple(pytest.approx(quantiles(m[~np.isnan(m)], 0.9)) for m in means.T)
        rows = right[part.mask]
        wins, losses = (rows[:, 1] > rows[:, 0]).sum(), (rows[:, 1] < rows[:, 0]).sum()
        assert found[3 + place] == (
            pytest.approx(paired_shares(wins, losses, len(rows), 0.9).tolist()),
            wilson(int(rows[:, 1].sum()), len(rows), 0.9),
        )


def test_pairing_narrows(tmp_path: Path) -> None:
    """The interval of a pair is that of the flips, far narrower than that of two groups of items."""
    before, after = pair(tmp_path)
    d = next(d for d in compare(before, after, []).differences if d.name == "knn.accuracy")
    flips = np.sqrt((d.before - d.after) * (1 - (d.before - d.after)) / d.n)
    assert d.high - d.low == pytest.approx(2 * 1.96 * flips, rel=0.15)


def test_equal_bytes_are_paired_in_order(tmp_path: Path) -> None:
    """Items with the same bytes keep their places."""
    folder = tmp_path / "a"
    first = evidence(folder, np.array([True, False, True]))
    rehash(folder, [b"\0" * 32] * 3)
    comparison = compare(first, first, [])
    assert comparison.outcomes["knn.accuracy"][:, 0].tolist() == [1, 0, 1]


def test_rounding_is_no_change(tmp_path: Path) -> None:
    """Numbers of which each is a little lower, as another processor rounds, are the same numbers."""
    values = np.random.default_rng(0).random(500)
    one, other = evidence(tmp_path / "a", values), evidence(tmp_path / "b", values - 1e-7)
    comparison = compare(one, other)
    assert not any(comparison.changes().values())
    assert all(d.gain == 0 for d in comparison.differences if d.name == "knn.accuracy")
    lower = compare(one, evidence(tmp_path / "c", values - 1e-3))
    assert any(d.name == "knn.accuracy" for d in lower.changes()["worse"])


def test_other_items(tmp_path: Path) -> None:
    """Evidence of other items cannot be compared, and nothing is made up."""
    one = evidence(tmp_path / "a", np.array([True, False]))
    other = evidence(tmp_path / "b", np.array([True, False]))
    rehash(other.folder, [b"x" * 32, b"y" * 32])
    with pytest.raises(fs.BadInput, match="different items"):
        compare(one, other)
    with pytest.raises(fs.BadInput, match="no evidence"):
        evidences.read(tmp_path)


def test_chance_of_a_drop() -> None:
    """The sign test for flips, Student's t for others; under no change small values are as rare as they say."""
    assert chance_of_drop([-1] * 5) == pytest.approx(1 / 32)
    assert chance_of_drop([0, 0]) == 1.0
    assert chance_of_drop([-0.5] * 3) == 1 / 8 and chance_of_drop([0.5]) == 0.5
    assert chance_of_drop([-0.1, -0.1 - 1e-9]) == 1 / 4  # two drops that are all but equal prove little
    assert chance_of_drop([-0.5, -0.5, 0, 0]) == 1 / 4  # nor do two among others that stayed
    rng = np.random.default_rng(0)
    found = [chance_of_drop(rng.choice([-1, 0, 1], size=200, p=[0.1, 0.8, 0.1])) for _ in range(1000)]
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.06
    found = [chance_of_drop(rng.normal(size=30)) for _ in range(1000)]
    assert 0.03 < np.mean(np.array(found) < 0.05) < 0.07


def figures(tmp_path: Path, called: str, *values: tuple[float, float, float], better: str = "higher") -> Any:
    """Write evidence of numbers without outcomes of single items."""
    made = evidence(tmp_path / called, np.array([True, False]))
    measurements = [
        Measurement(f"f.{i}", value, low, high, "draws", 10 + i, "share", "", "", better=better)
        for i, (value, low, high) in enumerate(values)
    ]
    lines = [json.dumps(m.to_dict()) for m in measurements]
    (made.folder / "measurements.jsonl").write_text("\n".join(lines) + "\n")
    return sealed(made.folder)


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_figures_without_items_add_their_intervals_as_independent(better: str, level: float, tmp_path: Path) -> None:
    """Like standard errors, each side for itself; a figure that is sure changes for sure."""
    one = figures(tmp_path, "a", (0.5, 0.4, 0.7), (0.5, 0.5, 0.5), (0.3, 0.3, 0.3), better=better)
    other = figures(tmp_path, "b", (0.6, 0.55, 0.8), (0.6, 0.6, 0.6), (0.3, 0.3, 0.3), better=better)
    first, sure, same = compare(one, other, [], level).differences[:3]
    times = norm.ppf(0.5 + level / 2) / norm.ppf(0.975)
    down, up = math.hypot(0.05, 0.2), math.hypot(0.2, 0.1)
    assert (first.low, first.high) == pytest.approx((0.1 - times * down, 0.1 + times * up))
    assert (first.after_low, first.after_high) == pytest.approx((0.6 - times * 0.05, 0.6 + times * 0.2))
    falls, rises = norm.cdf(0.1 / (up / 1.959964)), norm.cdf(-0.1 / (down / 1.959964))
    expected = (rises, falls) if better == "lower" else (falls, rises)
    assert (first.p_worse, first.p_better) == pytest.approx(expected, abs=1e-6)
    assert first.n == 10 and not first.paired
    assert (sure.p_worse, sure.p_better) == ((0.0, 1.0) if better == "lower" else (1.0, 0.0))
    assert (same.p_worse, same.p_better, same.gain) == (1.0, 1.0, 0.0)


def test_differences_of_scores_have_the_intervals_of_their_mean(tmp_path: Path) -> None:
    """Where outcomes are no yes or no: the mean's own width, on all and on each slice; of the later mean too."""
    rng = np.random.default_rng(0)
    before = rng.random(400)
    after = before + rng.normal(0.05, 0.2, 400)
    group = np.where(np.arange(400) < 100, "b", "a").tolist()
    one, other = (evidence(tmp_path / n, x, group=group) for n, x in (("a", before), ("b", after)))
    found = {d.slice: d for d in compare(one, other).differences if d.name == "knn.accuracy"}
    for name, rows in (("all", slice(None)), ("group == 'b'", slice(100)), ("group == 'a'", slice(100, None))):
        change, d = (after - before)[rows], found[name]
        half = 1.96 * change.std() / len(change) ** 0.5
        assert d.n == len(change) and d.after - d.before == pytest.approx(change.mean())
        assert (d.low, d.high) == pytest.approx((change.mean() - half, change.mean() + half), abs=0.15 * half)
        own = 1.96 * after[rows].std() / len(change) ** 0.5
        assert (d.after_low, d.after_high) == pytest.approx((d.after - own, d.after + own), abs=0.15 * own)
        assert d.p_worse == pytest.approx(chance_of_drop(change)) and d.p_better == pytest.approx(
            chance_of_drop(-change)
        )


def test_shares_have_the_intervals_of_shares(tmp_path: Path) -> None:
    before, after = pair(tmp_path)
    for level in (0.95, 0.8):
        d = next(d for d in compare(before, after, [], level).differences if d.name == "knn.accuracy")
        flips = round((d.before - d.after) * d.n)
        assert (d.low, d.high) == pytest.approx(tuple(paired_shares(0, flips, d.n, level)))
        assert (d.after_low, d.after_high) == pytest.approx(wilson(round(d.after * d.n), d.n, level))


def test_a_change_is_told_of_twenty_items_but_not_of_nineteen(tmp_path: Path) -> None:
    """All of these slices fell; of several the largest change for its width comes first; chance is shared out."""
    group = np.repeat(["a", "b", "c"], [19, 20, 400])
    before, after = np.ones(439, np.bool_), group == "c"
    after[100] = False
    one, other = (evidence(tmp_path / n, x, group=group.tolist()) for n, x in (("x", before), ("y", after)))
    comparison = compare(one, other)
    worse = [d.slice for d in comparison.changes()["worse"] if d.name == "knn.accuracy"]
    assert sorted(worse) == ["all", "group == 'b'"] and comparison.changes()["better"] == []
    assert [d.slice for d in compare(other, one).changes()["better"] if d.name == "knn.accuracy"] == worse
    found = {d.slice: d for d in comparison.differences if d.name == "knn.accuracy"}
    widths = [abs(found[name].gain) / (found[name].high - found[name].low) for name in worse]
    assert widths == sorted(widths, reverse=True)
    assert comparison.items_seen == 439


def verdict(comparison: Any, *rules: dict[str, Any]) -> Any:
    """Judge by rules."""
    return judge(Policy.model_validate({"rules": list(rules)}), comparison)


def test_the_gate(tmp_path: Path) -> None:
    """A slice that fell is refused by name, though the whole passes; floors, proofs and small slices do as they say."""
    comparison = compare(*pair(tmp_path))
    whole = {"measure": "knn.accuracy", "drop": 0.06}
    assert verdict(comparison, whole).passed
    refused = verdict(comparison, whole, {"measure": "knn.*", "by": "group", "drop": 0.05})
    assert [(j.rule, j.slice) for j in refused.refusals] == [(2, "group == 'b'")]
    assert "rule 2, knn.accuracy on group == 'b'" in str(refused)
    assert not verdict(comparison, {"measure": "knn.accuracy", "floor": 0.9}).passed
    assert verdict(comparison, {"measure": "ood.*", "ceiling": 0.5}).passed
    assert not verdict(comparison, {"measure": "ood.*", "ceiling": 0.5, "proof": "safety"}).passed
    drop = -next(d.gain for d in comparison.differences if d.name == "knn.accuracy" and d.slice == "all")
    assert verdict(comparison, {"measure": "knn.accuracy", "drop": drop + 0.001}).passed
    assert not verdict(comparison, {"measure": "knn.accuracy", "drop": drop + 0.001, "proof": "safety"}).passed
    small = verdict(comparison, {"measure": "knn.accuracy", "by": "group", "drop": 0.05, "items": 600})
    assert small.passed and [j.passed for j in small.judgements] == [True, None]
    both = {"measure": "knn.accuracy", "by": "group", "where": "group != 'b'", "drop": 0.05}
    assert verdict(comparison, both).passed


def test_chance_is_no_refusal(tmp_path: Path) -> None:
    """A drop beyond the margin in a few items that chance explains is let through."""
    n, rng = 200, np.random.default_rng(1)
    before = rng.random(n) < 0.5
    after = rng.random(n) < 0.5
    group = np.arange(n) % 20
    known = {"group": group.astype(np.str_).tolist()}
    comparison = compare(evidence(tmp_path / "a", before, **known), evidence(tmp_path / "b", after, **known))
    rule = {"measure": "knn.accuracy", "by": "group", "drop": 0.01, "items": 1}
    assert min(d.gain for d in comparison.differences if d.name == "knn.accuracy") < -0.2
    assert verdict(comparison, rule).passed
    assert not verdict(comparison, {**rule, "proof": "safety"}).passed


def test_the_level_is_that_of_the_intervals(tmp_path: Path) -> None:
    """What is safe at one level need not be at a higher one."""
    comparison = compare(*pair(tmp_path))
    low = next(d.low for d in comparison.differences if d.name == "knn.accuracy" and d.slice == "all")
    rule = {"measure": "knn.accuracy", "drop": -low + 0.001, "proof": "safety"}
    assert judge(Policy.model_validate({"rules": [rule], "level": 0.95}), comparison).passed
    assert not judge(Policy.model_validate({"rules": [rule], "level": 0.9999}), comparison).passed


def test_a_drop_from_nothing(tmp_path: Path) -> None:
    """A rule about a drop is not passed by a bundle that is compared with itself."""
    alone = pair(tmp_path)[0]
    with pytest.raises(fs.BadInput, match="rule 1: asks about a drop"):
        verdict(compare(alone, alone), {"measure": "knn.accuracy", "drop": 0.1})
    assert verdict(compare(alone, alone), {"measure": "knn.accuracy", "floor": 0.1}).passed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: [{measure: knn.accuracy}]", "rules.1: .*no limit"),
        ("rules: []", "at least 1"),
        ("rules: [{measure: a, drop: -1}]", "rules.1.drop"),
        ("rules: [{measure: a, drop: 0.1, slice: b}]", "rules.1.slice: Extra"),
        ("rules: [", "no YAML"),
        ("- a", "policy"),
    ],
)
def test_policies_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    """Each names file, field and what is wrong."""
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(fs.BadInput, match=rf"policy.yaml: .*{says}"):
        read_policy(path)


def test_rules_about_nothing(tmp_path: Path) -> None:
    """A rule that names what was not measured, or slices what has none, is a mistake and no pass."""
    comparison = compare(*pair(tmp_path))
    for rule, says in (
        ({"measure": "knn.acuracy", "floor": 0.1}, "measured: knn.accuracy"),
        ({"measure": "ood.x.auroc", "by": "group", "drop": 0.1}, "has no slices"),
        ({"measure": "knn.accuracy", "by": "vendor", "drop": 0.1}, "nothing is known of 'vendor'"),
        ({"measure": "geometry.rank", "drop": 0.1}, "neither better nor worse"),
        ({"measure": "knn.accuracy", "where": "group == 'c'", "floor": 0.1}, "no item is in its slices"),
        ({"measure": "knn.accuracy", "by": "group", "where": "group > 'b'", "floor": 0.1}, "no item is in its slices"),
    ):
        with pytest.raises(fs.BadInput, match=says):
            verdict(comparison, rule)


def test_nothing_to_judge_is_no_pass(tmp_path: Path) -> None:
    """Slices that are all too small, a number that is none, a figure that was dropped: none of them lets through."""
    comparison = compare(*pair(tmp_path))
    small = verdict(comparison, {"measure": "knn.accuracy", "by": "group", "floor": 0.1, "items": 5000})
    assert not small.passed and "nothing can be judged: fewer than 5000 items" in str(small)
    first, second = comparison.before, comparison.after
    none = replace(second.measurements[2], value=math.nan, low=-math.inf, high=math.inf)
    odd = compare(first, replace(second, measurements=[*second.measurements[:2], none]))
    assert "no number to judge by" in str(verdict(odd, {"measure": "ood.*", "drop": 0.5}))
    fewer = compare(first, replace(second, measurements=second.measurements[:2]))
    with pytest.raises(fs.BadInput, match=r"'ood.x.auroc' was measured of .*a and not of .*b"):
        verdict(fewer, {"measure": "*", "ceiling": 10})


def test_a_gate_wants_the_same_items(tmp_path: Path) -> None:
    """A few common items, other labels, or figures of another set are no ground to judge on."""
    right, n = np.ones(400, np.bool_), 400
    names = [i.to_bytes(32, "big") for i in range(397, 797)]
    one = evidence(tmp_path / "a", right, label=["x"] * n)
    evidence(tmp_path / "b", ~right, label=["x"] * n)
    rehash(tmp_path / "b", names)
    for rule in ({"measure": "knn.accuracy", "drop": 0.0}, {"measure": "knn.accuracy", "by": "label", "floor": 0.9}):
        with pytest.raises(fs.BadInput, match="only 3 items in common with the 400 of"):
            verdict(compare(one, evidences.read(tmp_path / "b")), rule)
    with pytest.raises(fs.BadInput, match=r"different labels \(150 of 400 items\)"):
        compare(one, evidence(tmp_path / "c", right, label=["y"] * 150 + ["x"] * 250))
    same = evidence(tmp_path / "d", right, label=["x"] * n)
    moved = [replace(m, data="another set") if m.name.startswith("ood") else m for m in same.measurements]
    with pytest.raises(fs.BadInput, match=r"'ood.x.auroc' was not measured of .* on the same items"):
        verdict(compare(one, replace(same, measurements=moved)), {"measure": "ood.*", "drop": 0.1})


def test_what_was_changed_is_no_evidence(tmp_path: Path) -> None:
    """A file that is not the one that was written, or is gone, is named; what lies there by chance is not read."""
    found = evidence(tmp_path / "a", np.array([True, False]))
    pq.write_table(pq.read_table(tmp_path / "a" / "knn.parquet"), tmp_path / "a" / "geometry.parquet")
    assert len(list(evidences.read(tmp_path / "a").outcomes())) == len(list(found.outcomes())) == 1
    for change in (lambda path: path.write_text(path.read_text().replace("0.5", "0.9")), Path.unlink):
        change(tmp_path / "a" / "measurements.jsonl")
        with pytest.raises(fs.BadInput, match=r"measurements.jsonl: missing, or not what was measured"):
            evidences.read(tmp_path / "a")


def test_safety_is_shown_by_many_items_only(tmp_path: Path) -> None:
    """Where nothing changed in few items a drop is not excluded; a floor is not proved by few right answers."""
    for n, passes in ((50, False), (1000, True)):
        right = np.ones(n, np.bool_)
        comparison = compare(*(evidence(tmp_path / f"{name}{n}", right) for name in "ab"))
        for rule in ({"drop": 0.01}, {"floor": 0.99}):
            assert verdict(comparison, {"measure": "knn.accuracy", "proof": "safety", **rule}).passed == passes


def test_paired_shares() -> None:
    """The equation that defines it, symmetry, and how often it errs."""
    low, high = paired_shares(1, 3, 44 + 3 + 1)  # a difference of -2 in 48
    for end in (low, high):
        b, c, n, d = 1, 3, 48, float(end)
        half = (2 * n - b + c) * d - b - c
        q = (math.sqrt(half**2 + 8 * n * c * d * (1 - d)) - half) / (4 * n)
        assert abs(b - c - n * d) / math.sqrt(n * (2 * q + d * (1 - d))) == pytest.approx(1.959964, abs=1e-4)
    assert low < -2 / 48 < high
    back = paired_shares(3, 1, 48)
    assert (back[0], back[1]) == pytest.approx((-high, -low), abs=1e-9)
    assert paired_shares(0, 0, 200, 0.99)[0] == pytest.approx(-6.6349 / 206.6349, abs=1e-4)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(200, [0.02, 0.05, 0.93], size=4000)
    ends = paired_shares(drawn[:, 0], drawn[:, 1], 200)
    assert 0.92 < ((ends[0] <= -0.03) & (ends[1] >= -0.03)).mean() < 0.97


def test_the_command_line(fastness: Any, tmp_path: Path) -> None:
    """Exit 0 with a page, 3 with the rule and slice that refused, 2 for a mistake."""
    pair(tmp_path)
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules: [{measure: knn.accuracy, drop: 0.06}]")
    passed = fastness("compare", "a", "b", "--gate", "policy.yaml", "--json")
    assert passed.status == 0 and json.loads(passed.out)["comparisons"][0]["gate"]["passed"]
    policy.write_text("rules: [{measure: knn.accuracy, by: group, drop: 0.05}]")
    refused = fastness("compare", "a", "b", "--gate", "policy.yaml", "--out", "page")
    assert refused.status == 3 and "group == 'b'" in refused.err and refused.err.count("\n") == 1
    page = (tmp_path / "page" / "compare.html").read_text()
    assert "The gate says no" in page and "http" not in page.replace("http://www.w3.org", "")
    assert "✗ refused" in page and "| group == 'b' |" in (tmp_path / "page" / "compare.md").read_text()
    wrong = fastness("compare", "a", "b", "--slice", "vendor == 1")
    assert wrong.status == 2 and "nothing is known of 'vendor'; known: group" in wrong.err
    missing = fastness("compare", "a", "nowhere")
    assert missing.status == 2 and "--data" in missing.err


def test_two_bundles_on_data(bundle: Path, labelled: Path, tmp_path: Path) -> None:
    """A bundle and itself differ nowhere; facts from metadata.csv are slices."""
    tree, mine = tmp_path / "tree", tmp_path / "mine"
    shutil.copytree(labelled, tree)
    shutil.copytree(bundle, mine)  # evidence is attached to it
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*.png"))
    rows = [f"{name},{'apple' if i % 2 else 'google'}" for i, name in enumerate(names)]
    (tree / "metadata.csv").write_text("file_name,vendor\n" + "\n".join(rows) + "\n")
    found = fs.compare(mine, mine, data=tree, checks=["knn"], out=tmp_path / "out", slices=["vendor", "label"])
    changes = found.comparisons[0].differences
    parts = {"vendor == 'apple'", "vendor == 'google'", "label == 'a'", "label == 'b'"}
    assert {d.slice for d in changes} == {"all", *parts}
    assert all(d.gain == 0 for d in changes)
    assert {"brightness", "contrast", "vendor", "label"} <= set(found.comparisons[0].known)


def test_all_are_compared_with_the_first(tmp_path: Path) -> None:
    """And one alone with itself."""
    folders = [
        evidence(tmp_path / name, np.arange(40) < hits).folder for name, hits in (("a", 30), ("b", 20), ("c", 35))
    ]
    found = fs.compare(*folders, out=tmp_path / "out")
    assert [(c.before.folder, c.after.folder) for c in found.comparisons] == [(folders[0], f) for f in folders[1:]]
    gains = [next(d.gain for d in c.differences if d.name == "knn.accuracy") for c in found.comparisons]
    assert gains == pytest.approx([-0.25, 0.125])
    assert "further places" not in (tmp_path / "out" / "compare.md").read_text()
    alone = fs.compare(folders[0], out=tmp_path / "alone")
    assert [(c.before.folder, c.after.folder) for c in alone.comparisons] == [(folders[0], folders[0])]


def test_labels_are_compared_where_both_have_them(tmp_path: Path) -> None:
    """What one piece of evidence does not say cannot contradict the other; another label does."""
    right = np.arange(40) < 30
    bare = evidence(tmp_path / "bare", right)
    one, other = (evidence(tmp_path / name, right, label=[name] * 40) for name in ("cat", "dog"))
    for before, after in ((bare, one), (one, bare), (one, one)):
        assert next(d.gain for d in compare(before, after, []).differences if d.name == "knn.accuracy") == 0
    with pytest.raises(fs.BadInput, match="40 of 40 items"):
        compare(one, other)


def test_evidence_of_one_second_has_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    made = [evidences.new_folder(tmp_path, "abcdefghij") for _ in range(3)]
    assert [folder.name for folder in made] == [f"20260101-000000-abcdefgh{end}" for end in ("", "-2", "-3")]
    assert all(folder.is_dir() and folder.parent == tmp_path / "evidence" for folder in made)


def fallen(tmp_path: Path, sizes: dict[str, int], lost: int) -> Any:
    """Two systems that were always right; the later is wrong on the first ``lost`` items of each group."""
    group = np.repeat(list(sizes), list(sizes.values()))
    place = np.concatenate([np.arange(n) for n in sizes.values()])
    one, other = (evidence(tmp_path / n, x, group=group.tolist())
                  for n, x in (("a", np.ones(len(group), np.bool_)), ("b", place >= lost)))  # fmt: skip
    return compare(one, other)


def test_a_rule_judges_slices_of_fifty_items_unless_it_says_how_many(tmp_path: Path) -> None:
    comparison = fallen(tmp_path, {"x": 49, "y": 50, "z": 200}, 20)
    rule = {"measure": "knn.accuracy", "by": "group", "drop": 0.3}
    found = {j.slice: j for j in verdict(comparison, rule).judgements}
    assert {name: j.passed for name, j in found.items()} == {
        "group == 'x'": None,
        "group == 'y'": False,
        "group == 'z'": True,
    }
    assert found["group == 'x'"].reason == "49 items, fewer than 50"
    assert found["group == 'z'"].reason == "before 1.000, now 0.900, 200 items"
    assert verdict(comparison, {**rule, "items": 49}).refusals[0].slice == "group == 'x'"
    none = verdict(comparison, {**rule, "items": 201})
    assert [j.passed for j in none.judgements] == [None, None, None, False]
    assert none.judgements[-1].slice == "3 slices" and "fewer than 201 items" in str(none)
    assert "3 slices too small" in str(none) and "1 slice too small" in str(verdict(comparison, rule))
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Policy.model_validate({"rules": [{**rule, "items": 0}]})


def test_limits_hold_what_lies_on_them(tmp_path: Path) -> None:
    """Of 200 items 20 fell: .9 is within a floor and a ceiling of .9; for safety the interval must be."""
    comparison = fallen(tmp_path, {"z": 200}, 20)
    for limit, within, beyond in (("floor", 0.9, 0.9001), ("ceiling", 0.9, 0.8999), ("drop", 0.1001, 0.0999)):
        assert verdict(comparison, {"measure": "knn.accuracy", limit: within}).passed
        refused = verdict(comparison, {"measure": "knn.accuracy", limit: beyond})
        assert not refused.passed and len(refused.refusals) == 1
    low, high = wilson(180, 200, 0.99)
    for limit, edge in (("floor", low), ("ceiling", high)):
        step = 1e-6 if limit == "ceiling" else -1e-6
        rule = {"measure": "knn.accuracy", "proof": "safety"}
        assert verdict(comparison, {**rule, limit: edge + step}).passed
        said = str(verdict(comparison, {**rule, limit: edge - step}))
        assert f"0.9 [{low:.4g}, {high:.4g}] is" in said and limit in said
    assert "0.9 is below the floor of 0.95" in str(verdict(comparison, {"measure": "knn.accuracy", "floor": 0.95}))
    with pytest.raises(fs.GateRefused, match=r"me: the gate says no: rule 1, knn.accuracy on all: .*\(and 1 more\)"):
        rule = {"measure": "knn.accuracy", "floor": 0.95, "drop": 0.01}
        verdict(comparison, rule, {"measure": "knn.*", "floor": 0.99}).enforce("me")
    with pytest.raises(fs.BadInput, match=r"'knn\.f1' was not measured; measured: knn\.accuracy$"):
        verdict(comparison, {"measure": "knn.f1", "floor": 0.5})
    with pytest.raises(fs.BadInput, match=r"measured: knn\.accuracy, geometry\.rank, ood\.x\.auroc"):
        verdict(comparison, {"measure": "nothing.at.all", "floor": 0.5})
