"""Bets keep their level at all times together, find what there is to find, and go on after a stop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastness.monitoring.trial.sequential import _PARTS, _STAKES, Bet, Bounds, Rates

RUNS, LEVEL = 300, 0.05
MOST = LEVEL * RUNS + 3.3 * math.sqrt(RUNS * LEVEL * (1 - LEVEL))  # 99.9% of runs with the level itself stay below


@pytest.mark.parametrize("side", ["above", "below"])
def test_a_bet_on_a_mean_keeps_its_level_however_long_one_looks(side: str) -> None:
    lots = np.random.default_rng(1)
    won = 0
    for _ in range(RUNS):
        bet = Bet(side, -1.0, 1.0)
        for value in lots.choice([-1.0, -0.2, 0.3, 1.0], 300, p=[0.2, 0.3, 0.3, 0.2]):
            bet.add(value, 0.03)  # the mean
        won += bet.most >= math.log(1 / LEVEL)
    assert won <= MOST


@pytest.mark.parametrize("side", ["above", "below"])
@pytest.mark.parametrize("rate", [0.002, 0.05])
def test_a_bet_on_rates_keeps_its_level_for_any_rate_of_production(side: str, rate: float) -> None:
    lots = np.random.default_rng(2)
    won = 0
    for _ in range(RUNS):
        bet = Rates(side, 0.01)
        both, outcomes = lots.random(3000) < 0.1, lots.random((3000, 2)) < (rate, rate + 0.01)
        for put, (before, after) in zip(both, outcomes, strict=True):
            if put:
                bet.add(bool(after))
            else:
                bet.before(bool(before))
        won += bet.most >= math.log(1 / LEVEL)
    assert won <= MOST


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_what_fails_for_both_from_some_moment_on_is_nobody_s_fault(share: float) -> None:
    """An index that both search, say: what production did an hour ago is not held against today's candidate."""
    lots, won = np.random.default_rng(5), 0
    for _ in range(RUNS):
        bet = Rates("above", 0.001)
        for rate in (0.0, 0.05):
            both, outcomes = lots.random(4000) < share, lots.random(4000) < rate
            for put, failed in zip(both, outcomes, strict=True):
                if put:
                    bet.add(bool(failed))
                else:
                    bet.before(bool(failed))
        won += bet.most >= math.log(1 / 0.01)
    assert won <= 0.01 * RUNS + 3.3 * math.sqrt(RUNS * 0.01)


def test_the_capital_is_that_of_a_naive_gambler() -> None:
    lots = np.random.default_rng(3)
    values, limits = lots.random(50), lots.uniform(0.3, 0.6, 50)
    bet, capital, most = Bet("above", 0.0, 1.0), np.array(_PARTS), 1.0
    for value, limit in zip(values, limits, strict=True):
        bet.add(value, limit)
        capital = capital * (1 + np.array(_STAKES) / limit * (value - limit))
        most = max(most, capital.sum())
    assert bet.most == pytest.approx(math.log(most))


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.sampled_from(["above", "below"]), st.integers(0, 8))
def test_a_block_of_outcomes_is_a_fair_bet_for_whatever_rates_there_are(
    past: list[bool], side: str, others: int
) -> None:
    # The mean of the capital after one more outcome of each, at the limit itself, is computed over all outcomes.
    limit = 0.1
    for other in (0.0, 0.2, 0.6):
        rate, total, before = other + limit, 0.0, 1.0
        for number in range(2 ** (others + 1)):
            outcomes = [bool(number >> place & 1) for place in range(others + 1)]
            chance = float(np.prod([other if o else 1 - other for o in outcomes[1:]])) * (
                rate if outcomes[0] else 1 - rate
            )
            bet = Rates(side, limit)
            for failed in past:
                bet.before(failed)
            bet.add(False)
            before = sum(part * math.exp(c) for part, c in zip(_PARTS, bet.capitals, strict=True))
            for failed in outcomes[1:]:
                bet.before(failed)
            bet.counted, bet.missed, bet.failures = (
                len(past),
                sum(past),
                [p - 0 for p in bet.failures if p >= len(past)],
            )
            bet.add(outcomes[0])
            total += chance * sum(part * math.exp(c) for part, c in zip(_PARTS, bet.capitals, strict=True))
        assert total <= before * (1 + 1e-9)


def test_rare_failures_are_found_and_their_absence_is_shown() -> None:
    lots = np.random.default_rng(4)
    for rate, side, limit in ((0.01, "above", 0.001), (0.0, "below", 0.005)):
        found = 0
        for _ in range(20):
            bet = Rates(side, limit)
            for number in range(20_000):
                if number % 10:
                    bet.before(False)
                else:
                    bet.add(bool(lots.random() < rate))
            found += bet.most > math.log(20)
        assert found >= 19


def test_an_interval_holds_at_all_times_together_and_shrinks() -> None:
    lots = np.random.default_rng(5)
    missed, widths = 0, []
    for _ in range(RUNS):
        bounds, out = Bounds(0.0, 2.0, LEVEL), False
        for value in 2 * lots.beta(1, 4, 300):
            bounds.add(value)
            low, high = bounds.interval
            assert 0 <= low <= high <= 2
            out |= not low <= 0.4 <= high
        missed += out
        widths.append(high - low)
    assert missed <= MOST and np.mean(widths) < 0.3
    assert Bounds(0.0, 2.0).interval == (0.0, 2.0) and Bounds(0.0, 2.0).mean == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40), st.integers(0, 40))
def test_what_is_resumed_goes_on_as_if_it_had_never_stopped(seen: list[tuple[float, bool]], stop: int) -> None:
    kinds = [Bet("above", 0.0, 1.0), Bet("below", 0.0, 1.0), Rates("above", 0.01), Bounds(0.0, 1.0)]
    for whole in kinds:
        broken = type(whole).resumed(json.loads(json.dumps(whole.state())))
        for place, (value, failed) in enumerate(seen):
            if place == stop:
                broken = type(whole).resumed(json.loads(json.dumps(broken.state())))
            for one in (whole, broken):
                if isinstance(one, Rates):
                    one.add(failed) if value > 0.5 else one.before(failed)
                elif isinstance(one, Bet):
                    one.add(value, 0.4)
                else:
                    one.add(value)
        assert broken == whole


def test_no_outcome_ruins_a_bet() -> None:
    for side, value in (("above", 0.0), ("below", 1.0)):
        bet = Bet(side, 0.0, 1.0)
        for limit in (0.0, 0.5, 1.0) * 50:
            bet.add(value, limit)
        assert all(map(math.isfinite, bet.capitals)) and bet.most < 0.1
