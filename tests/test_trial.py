"""Trials: harm is shown where it is, nothing is promoted past its margin, and a stop changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastness.core.errors import BadInput
from fastness.index.exact import unit
from fastness.monitoring.trial.apart import Strangeness, disagreement, distance
from fastness.monitoring.trial.terms import LATENCY, MEASURES, WRONG, Limit, Terms, read_terms
from fastness.monitoring.trial.trial import Compared, Decision, Trial

Losses = dict[str, np.ndarray]
PAIRS = 2000


def good(lots: np.random.Generator, bad: bool) -> Losses:
    """Return losses of a candidate that is like production: a third of the neighbours are others."""
    return {
        "disagreement": lots.binomial(10, 0.3, 1) / 10,
        "abstained": lots.choice([-1.0, 0, 1], 1, p=[0.01, 0.98, 0.01]),
    }


def run(seed: int, losses: Callable[..., Losses] = good, slower: float = 1.0, errors: float = 0.0) -> Decision:
    """Return what is decided of a candidate whose losses on the twentieth part ``app=1`` may be others."""
    lots = np.random.default_rng(seed)
    trial = Trial(Terms(), [LATENCY, "disagreement", "abstained"])
    for number in range(PAIRS):
        for _ in range(9):
            trial.alone(failed=False)
        bad = bool(lots.random() < 0.05)
        before, after = np.exp(0.2 * lots.normal(size=2)) * (1, slower)
        slices = [[f"app={int(bad)}", f"country={lots.integers(3)}"]]
        if lots.random() < errors:
            trial.add(Compared(True))
        else:
            trial.add(Compared(False, (before, after), losses(lots, bad), slices))
        if number % 10 == 0 and (decision := trial.decision()).state != "running":
            return decision
    return trial.decision()


def test_an_equal_candidate_is_promoted() -> None:
    states = [run(seed).state for seed in range(10)]
    assert states.count("promote") >= 9


def broken(lots: np.random.Generator, bad: bool) -> Losses:
    """Return losses of a candidate that is lost on a slice."""
    return {**good(lots, bad), "disagreement": lots.binomial(10, 0.75 if bad else 0.3, 1) / 10}


def silent(lots: np.random.Generator, bad: bool) -> Losses:
    """Return losses of a candidate that says nothing more often."""
    return {**good(lots, bad), "abstained": np.array([float(lots.random() < 0.1)])}


@pytest.mark.parametrize(
    ("named", "changed"),
    [
        ("disagreement on app=1", {"losses": broken}),
        ("abstained", {"losses": silent}),
        ("latency", {"slower": 1.2}),
        ("errors", {"errors": 0.03}),
    ],
)
def test_a_harmful_candidate_is_sent_away_and_told_why(named: str, changed: dict[str, float]) -> None:
    decisions = [run(seed, **changed) for seed in range(6)]
    assert [decision.state for decision in decisions] == ["abort"] * 6
    assert all(f"tolerated: {named} " in decision.why for decision in decisions)


def test_what_is_at_the_margin_is_not_promoted_and_what_is_tolerated_is_not_sent_away() -> None:
    limit = Terms().limit("abstained")

    def losing(rate: float) -> Callable[..., Losses]:
        return lambda lots, bad: {**good(lots, bad), "abstained": np.array([float(lots.random() < rate)])}

    assert sum(run(seed, losing(limit.margin)).state == "promote" for seed in range(20)) <= 3
    assert sum(run(seed, losing(limit.tolerated)).state == "abort" for seed in range(20)) <= 1


def test_a_stop_changes_nothing_and_the_order_of_measures_neither() -> None:
    lots = np.random.default_rng(0)
    whole = Trial(Terms(), [LATENCY, "disagreement", "abstained", WRONG])
    broken_off = Trial.resumed(json.loads(json.dumps(whole.state())))
    for number in range(150):
        n = int(lots.integers(1, 4))
        losses = {"disagreement": lots.random(n), "abstained": lots.choice([-1.0, 0, 1], n)}
        slices = [[f"a={lots.integers(3)}", "b=1"][: lots.integers(3)] for _ in range(n)]
        seen = Compared(bool(lots.random() < 0.1), (1.0, float(lots.random())), losses, slices)
        for trial in (whole, broken_off):
            trial.alone(number % 7 == 0)
            trial.add(seen)
            trial.judged(losses["abstained"], slices)
        if number % 40 == 0:
            broken_off = Trial.resumed(json.loads(json.dumps(broken_off.state())))
    assert broken_off.decision() == whole.decision()
    assert json.dumps(broken_off.state()) == json.dumps(whole.state())


def test_what_there_is_no_figure_of_is_waited_for_and_labels_only_if_they_come() -> None:
    terms = Terms(least=10, most=400)
    known = {"distance": np.zeros(1)}
    for measures, state in (([LATENCY, "distance", "abstained"], "running"), ([LATENCY, "distance", WRONG], "promote")):
        trial = Trial(terms.model_copy(update={"limits": {"errors": Limit(tolerated=0.01, margin=0.05)}}), measures)
        for _ in range(300):
            trial.alone(failed=False)
            trial.add(Compared(False, (1.0, 1.0), known))
        assert trial.decision().state == state
    trial.judged(np.ones(1))
    assert trial.decision().state == "running"  # one label, and that one wrong
    for _ in range(101):
        trial.add(Compared(False, (1.0, 1.0), known))
    assert trial.decision().state == "undecided"


def test_nobody_is_promoted_of_whose_answers_nothing_is_known() -> None:
    for measures, labelled, state in (
        ([LATENCY], False, "undecided"),
        ([LATENCY, "abstained"], False, "undecided"),
        ([LATENCY, WRONG], False, "undecided"),
        ([LATENCY, WRONG], True, "promote"),
    ):
        trial = Trial(Terms(least=10, limits={"errors": Limit(tolerated=0.01, margin=0.05)}), measures)
        for _ in range(300):
            trial.alone(failed=False)
            trial.add(Compared(False, (1.0, 1.0), {"abstained": np.zeros(1)} if "abstained" in measures else {}))
            if labelled:
                trial.judged(np.zeros(1))
        assert trial.decision().state == state


def test_a_slice_cannot_be_worse_than_the_worst_and_is_not_waited_for() -> None:
    lots, trial = np.random.default_rng(0), Trial(Terms(least=10), ["disagreement"])
    for number in range(400):
        trial.add(Compared(False, None, {"disagreement": lots.binomial(10, 0.85, 1) / 10}, [[f"a={number % 2}"]]))
    assert {figure.state for figure in trial.figures() if figure.measure == "disagreement"} == {"safe"}


def test_only_so_many_slices_are_watched_and_none_of_a_column_of_ids() -> None:
    trial = Trial(Terms(slices=20), ["abstained"])
    for number in range(200):
        trial.add(Compared(False, None, {"abstained": np.zeros(1)}, [[f"id={number}", f"kind={number % 5}"]]))
    named = {figure.slice for figure in trial.figures()}
    assert {f"kind={i}" for i in range(5)} <= named and not any(name.startswith("id=") for name in named)


def test_columns_of_ids_leave_their_room_to_slices_that_come_later() -> None:
    """A country of many is watched as far as there is room; who asks and in which session is not."""
    lots, trial = np.random.default_rng(0), Trial(Terms(), ["abstained"])
    for number in range(400):
        late = [f"app={number % 20 == 19}"] if number >= 20 else []
        names = [f"user={number}", f"session={number // 2 * 2}", f"country={int(lots.exponential(6))}", *late]
        trial.add(Compared(False, None, {"abstained": np.zeros(1)}, [names]))
        if number % 50 == 0:
            trial = Trial.resumed(json.loads(json.dumps(trial.state())))
    named = {figure.slice.partition("=")[0] for figure in trial.figures()}
    assert named == {"", "session", "country", "app"}
    assert sum(figure.slice.startswith("country=") for figure in trial.figures()) == 12


def test_a_column_of_many_usual_values_is_not_taken_for_one_of_ids() -> None:
    """Nor if it is new after a while, or if the first request has more of them than there is room for."""
    lots = np.random.default_rng(0)
    for values, together in ((20, 32), (20, 1), (50, 1)):
        trial = Trial(Terms(slices=60), ["abstained"])
        for number in range(900):
            size = together if number in (0, 300) else 1
            columns = ["class", *(["late"] if number >= 300 else [])]
            names = [[f"{column}={lots.integers(values)}" for column in columns] for _ in range(size)]
            trial.add(Compared(False, None, {"abstained": np.zeros(size)}, names))
        named = Counter(figure.slice.partition("=")[0] for figure in trial.figures())
        assert named["class"] == named["late"] == 12


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 5))
def test_neighbours_agree_as_counted_one_by_one(seed: int, n: int, k: int) -> None:
    lots = np.random.default_rng(seed)
    ours, theirs = ([[str(i) for i in lots.permutation(8)[:k]] for _ in range(n)] for _ in range(2))
    expected = [sum(name not in other for name in one) / k for one, other in zip(ours, theirs, strict=True)]
    assert disagreement(ours, theirs) == pytest.approx(np.array(expected))
    assert not disagreement(ours, ours).any()


def test_distance_and_strangeness_are_those_of_a_naive_count_in_any_space() -> None:
    lots = np.random.default_rng(0)
    reference, items = (unit(lots.normal(size=(n, 8)).astype(np.float32)) for n in (40, 15))
    axes = np.linalg.qr(lots.normal(size=(8, 8)))[0].astype(np.float32)
    ranks = Strangeness(reference).ranks(items)
    own = [max(float(a @ b) for b in np.delete(reference, i, 0)) for i, a in enumerate(reference)]
    assert ranks == pytest.approx([np.mean([near > max(reference @ item) for near in own]) for item in items])
    assert np.abs(Strangeness(reference @ axes).ranks(items @ axes) - ranks).max() <= 1 / 40
    assert distance(items, items) == pytest.approx(np.zeros(15), abs=1e-6)
    assert distance(items, -items) == pytest.approx(np.full(15, MEASURES["distance"].high))


def test_terms_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    path = tmp_path / "terms.yaml"
    for text, said in (
        ("limits: {speed: {tolerated: 0, margin: 1}}", "no measure 'speed'"),
        ("limits: {errors: {tolerated: 0.2, margin: 0.1}}", "less than the margin"),
        ("lvl: 3", "lvl"),
        ("[", "no YAML"),
    ):
        path.write_text(text)
        with pytest.raises(BadInput, match=said):
            read_terms(path)
    with pytest.raises(BadInput, match="give terms"):
        read_terms(tmp_path / "none.yaml")
    path.write_text("level: 0.1\nlimits: {latency: {tolerated: 0.1, margin: 0.3}}")
    assert read_terms(path).bounds(LATENCY, "")[1] == pytest.approx(np.log(1.3))
