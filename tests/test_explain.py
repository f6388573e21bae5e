"""What explains a change: information by its definition, candidates blind to sides, planted causes, no invention."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastness.core.errors import BadInput
from fastness.monitoring.explain import parts
from fastness.monitoring.explain.explain import explain
from fastness.monitoring.explain.explanation import Explanation, Past, Signature
from fastness.monitoring.explain.information import gains, shuffled, together, told
from fastness.monitoring.sketching import of_window
from fastness.monitoring.window import Window

CENTRES = np.random.default_rng(0).normal(size=(8, 24))
GLOOM = np.random.default_rng(1).normal(size=24)


def items(rng: np.random.Generator, n: int, shares: dict[int, float] | None = None, **more: Any) -> Window:
    """Return items of clusters 0 to 6 (7 has to be asked for), a tenth of them in the dark, of two vendors.

    Args:
        shares: of clusters, at the cost of all others.
        more: ``dark`` or ``new vendor``: share of these; ``lighter``: what is added to every brightness.
    """
    which = rng.integers(0, 7, n)
    for cluster, share in (shares or {}).items():
        which = np.where(which == cluster, rng.integers(0, cluster or 7, n), which)
        which[rng.random(n) < share] = cluster
    dark = rng.random(n) < more.get("dark", 0.1)
    brightness = np.where(dark, rng.uniform(0, 40, n), rng.normal(140, 25, n)) + more.get("lighter", 0)
    vendor = np.where(rng.random(n) < more.get("vendor", 0.0), "c", np.array(["a", "b"])[rng.integers(0, 2, n)])
    vectors = CENTRES[which] + 0.7 * rng.normal(size=(n, 24)) + dark[:, None] * 0.4 * GLOOM
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    novelty = (which == 7) + rng.random(n)
    columns = {"brightness": brightness, "vendor": vendor.astype(object), "novelty": novelty}
    return Window(vectors.astype(np.float32), columns, [f"item {i}" for i in range(n)])


def explained(seed: int, n: int = 400, **more: Any) -> tuple[Explanation, Window]:
    """Explain items of one kind by those of another."""
    rng = np.random.default_rng(seed)
    new = items(rng, n, **{"dark": 0.1, **more})
    return explain(items(rng, n), new, seed=seed), new


def entropy(*columns: np.ndarray) -> float:
    counts = np.array(list(Counter(zip(*(c.tolist() for c in columns), strict=True)).values())) / len(columns[0])
    return float(-(counts * np.log(counts)).sum())


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 4), st.floats(0, 1))
def test_gain_is_the_conditional_information_of_its_definition(seed: int, n: int, strata: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask, new, held = rng.random(n) < share, rng.random(n) < 0.5, rng.integers(0, strata, n)
    # I(a; b | c) = H(a, c) + H(b, c) - H(a, b, c) - H(c)
    wanted = entropy(mask, held) + entropy(new, held) - entropy(mask, new, held) - entropy(held)
    assert gains(mask[:, None], new[:, None], held)[0, 0] == pytest.approx(wanted, abs=1e-9)


@given(st.integers(0, 10_000), st.integers(5, 60))
def test_what_two_values_tell_is_the_gain_less_what_chance_gives(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    mask, new, held = rng.random(n) < 0.4, rng.random(n) < 0.5, np.zeros(n, np.int64)
    both = 0 < mask.sum() < n
    wanted = gains(mask[:, None], new[:, None], held)[0, 0] - both / (2 * n)
    assert told(mask.astype(np.int64), new, held) == pytest.approx(wanted, abs=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 4))
def test_a_permutation_moves_nothing_between_strata(seed: int, n: int, strata: int) -> None:
    rng = np.random.default_rng(seed)
    new, held = rng.random(n) < 0.5, rng.integers(0, strata, n)
    found = shuffled(new, held, 7, rng)
    assert found.shape == (n, 8) and (found[:, 0] == new).all()
    for stratum in range(strata):
        assert (found[held == stratum].sum(0) == new[held == stratum].sum()).all()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_strata_divided_are_equal_exactly_where_both_are(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs).T
    found = together(first, second)
    assert len(set(zip(found.tolist(), pairs, strict=True))) == len(set(pairs)) == len(set(found.tolist()))


def test_candidates_do_not_know_the_sides() -> None:
    rng = np.random.default_rng(3)
    both = items(rng, 300)
    order = rng.permutation(300)
    turned = both.select(order)

    def told_of(window: Window) -> tuple[dict[str, frozenset[str]], set[frozenset[str]]]:
        names = np.array(window.ids)
        known = {p.what: frozenset(names[p.mask]) for p in parts.of_columns(parts.as_known(window.columns))}
        return known, {frozenset(names[p.mask]) for p in parts.found_clusters(window.vectors)}

    assert told_of(both) == told_of(turned)


def test_an_expression_selects_what_it_holds() -> None:
    both = items(np.random.default_rng(4), 300)
    columns = parts.as_known(both.columns)
    found = parts.of_columns(columns, ["brightness < 90 and vendor == 'a'", "unheard_of == 'x'"])
    assert len(found) > 50 and all(5 <= p.mask.sum() <= 295 for p in found)
    from fastness.evaluation.slices import where

    for part in found:
        assert (where(part.what, columns).mask == part.mask).all(), part.what


PLANTED = {
    "cluster new": ({"shares": {7: 0.15}}, "cluster new", "near"),
    "vendor": ({"vendor": 0.2}, "slice", "vendor == 'c'"),
    "dark": ({"dark": 0.35}, "slice", "brightness <="),
    "lighter": ({"lighter": 25}, "column", "brightness"),  # a range of it tells two thirds of this
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_named_first(name: str) -> None:
    more, kind, what = PLANTED[name]
    right = 0
    for seed in range(4):
        found, _ = explained(seed, **more)
        first = found.causes[0]
        right += first.kind == kind and first.what.startswith(what) and first.effect > 0.5
        assert first.p <= 0.01 and 0 <= found.left <= 1
    assert right == 4


def test_items_of_a_cause_are_those_that_it_speaks_of() -> None:
    found, new = explained(0, vendor=0.2)
    cause = found.causes[0]
    assert {new.columns["vendor"][row] for row in cause.rows} == {"c"}
    assert len(cause.rows) == (new.columns["vendor"] == "c").sum() == round(cause.after * len(new))
    found, new = explained(0, shares={7: 0.15})
    of_it = {row for row in range(len(new)) if new.columns["novelty"][row] > 1}
    assert len(set(found.causes[0].rows) & of_it) >= 0.9 * max(len(of_it), len(found.causes[0].rows))
    assert len({d.row for d in found.drivers} & of_it) >= 0.8 * len(found.drivers)
    assert all(new.ids[d.row] == d.id and d.odds > 0 for d in found.drivers) and all(d.odds < 0 for d in found.missed)


def test_two_causes_are_both_named_and_share_what_differs() -> None:
    found, _ = explained(1, n=800, shares={7: 0.15}, vendor=0.2)
    assert {c.kind for c in found.causes[:2]} == {"cluster new", "slice"}
    assert {"vendor == 'c'"} < {c.what for c in found.causes}
    assert sum(c.effect for c in found.causes) + found.left == pytest.approx(1)


def test_a_cluster_that_is_gone_is_told_by_items_of_the_reference() -> None:
    rng = np.random.default_rng(5)
    old, new = items(rng, 400, {3: 0.2}), items(rng, 400, {3: 0.0})
    first = explain(old, new).causes[0]
    assert first.kind == "cluster vanished" and first.gone and first.before > 0.15 > 0.05 > first.after
    assert max(first.rows) < len(old)


def test_clusters_of_a_sketch_are_named() -> None:
    rng = np.random.default_rng(6)
    old = items(rng, 600)
    sketch = of_window(old, {})
    found = explain(sketch, items(rng, 600, {2: 0.45}))
    assert found.causes[0].kind == "cluster grew" and any(n in found.causes[0].what for n in sketch.names)
    assert {s.name for s in found.clusters} == set(sketch.names)
    assert (
        sum(s.before for s in found.clusters) == pytest.approx(1) == pytest.approx(sum(s.after for s in found.clusters))
    )
    assert sum(found.signature.clusters) == pytest.approx(0, abs=1e-3)


def test_where_nothing_changed_nothing_is_named() -> None:
    named = 0
    for seed in range(40):
        rng = np.random.default_rng(1000 + seed)
        named += bool(explain(items(rng, 60), items(rng, 60), seed=seed).causes)
    assert named <= 4  # of 40; a cause or «all moved», at 1 % each: more than 4 in one of 1,000


def test_the_same_change_is_recognised() -> None:
    past = [
        Past(name, name, explained(seed, **more)[0].signature)
        for seed, (name, (more, _, _)) in enumerate(PLANTED.items(), 50)
    ]
    for seed, (name, (more, _, _)) in enumerate(PLANTED.items()):
        rng = np.random.default_rng(seed)
        found = explain(items(rng, 400), items(rng, 400, **more), past=past)
        assert found.nearest is not None and found.nearest[0].id == name
        told = json.loads(json.dumps(found.to_dict()))
        assert told["nearest"]["id"] == name and told["causes"] and Signature(**told["signature"]) == found.signature


@given(st.lists(st.floats(-1, 1), max_size=4), st.lists(st.sampled_from("abc"), max_size=3), st.integers(0, 4))
@example([0.0], ["a"], 0)  # a mean that did not move has no direction
def test_likeness_is_mutual_and_a_change_is_most_like_itself(
    shift: list[float], causes: list[str], length: int
) -> None:
    one, other = Signature(shift, [], causes), Signature(shift[:length], [0.5, -0.5], ["a"])
    assert one.alike(other) == pytest.approx(other.alike(one)) and -1 <= one.alike(other) <= 1 + 1e-9
    assert one.alike(one) >= one.alike(other) - 1e-9


def test_columns_of_one_side_are_told_and_not_compared() -> None:
    rng = np.random.default_rng(7)
    old, new = items(rng, 100), items(rng, 100)
    del new.columns["vendor"]
    found = explain(old, new)
    assert found.only == ["vendor"] and not any("vendor" in c.what for c in found.causes)


def test_many_items_are_sampled_and_missing_cells_are_no_numbers() -> None:
    rng = np.random.default_rng(8)
    old, new = items(rng, 2500), items(rng, 2500)
    new.columns["brightness"][rng.random(2500) < 0.3] = np.nan
    first = explain(old, new).causes[0]
    assert first.what == "brightness is missing" and np.isnan(new.columns["brightness"][list(first.rows)]).all()


def test_bad_input_is_named() -> None:
    rng = np.random.default_rng(9)
    with pytest.raises(BadInput, match="the new items: 9 items"):
        explain(items(rng, 50), items(rng, 9))
    short = Window(np.eye(12, dtype=np.float32))
    with pytest.raises(BadInput, match="length 24 and the new ones 12"):
        explain(items(rng, 50), short)


def test_items_of_a_column_are_new_ones_whichever_way_it_moved() -> None:
    """The largest part may be one of which the new items have less: then those without it tell."""
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        before, new = items(rng, 600), items(rng, 120)
        odd = np.where(np.arange(10) % 2, 0.16, 0.04)
        for window, mix in zip((before, new), (odd, 0.2 - odd), strict=True):
            window.columns["kind"] = rng.choice(list("abcdefghij"), len(window), p=mix).astype(object)
        found += [cause for cause in explain(before, new, seed=seed).causes if cause.kind == "column"]
    assert found
    for cause in found:
        assert cause.rows and not cause.gone and max(cause.rows) < 120
