"""Estimates without labels, and counted quality: equal to naive or other ones, and right as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastness.metrics.calibration import reliability
from fastness.metrics.intervals import wilson
from fastness.monitoring import quality
from fastness.monitoring.estimate import Estimate, estimated, surer
from fastness.monitoring.window import Window

tenths = st.lists(st.integers(0, 10).map(lambda i: i / 10), min_size=1, max_size=40)
counts = st.tuples(st.integers(0, 30), st.integers(0, 30))


def window(n: int = 0, **columns: np.ndarray) -> Window:
    """Return a window of items of which columns are known."""
    n = n or len(next(iter(columns.values())))
    return Window(np.ones((n, 2), np.float32), columns)


def said(n: int, seed: int, sure: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw confidences, surer for more of ``sure``, and whether the answers are right: exactly as likely as said."""
    rng = np.random.default_rng(seed)
    confidence = 0.5 + 0.5 * rng.beta(sure, 2, size=n)
    return confidence, (rng.random(n) < confidence).astype(np.float64)


def estimate(reference: tuple[np.ndarray, np.ndarray], asked: np.ndarray, **more: float) -> Estimate:
    """Estimate, where enough is known."""
    found = estimated(window(confidence=reference[0], right=reference[1]), window(confidence=asked), **more)
    assert found is not None
    return found


@given(tenths, st.floats(0, 1))
def test_a_set_asked_about_itself_has_the_share_that_it_has(sure: list[float], share: float) -> None:
    """However many confidences are alike; and surer answers are never fewer right ones."""
    known = np.array(sure)
    assert math.isclose(surer(known, share, known), share, abs_tol=1e-9)
    assert surer(known, share, known + 0.05) >= share - 1e-9
    assert surer(known, share, np.array([2.0])) == 1
    assert surer(known, share, np.array([-1.0])) == 0


@given(st.integers(0, 500), st.integers(20, 60))
def test_estimates_are_the_plain_ones(seed: int, n: int) -> None:
    """The share above the confidence that as many are below as were wrong; means; what is unknown is left out.

    Where none was wrong it is the least confidence: what is less sure than all that was right is not known to be right.
    """
    (sure, right), (asked, _) = said(n, seed, 4), said(n + 3, seed + 1, 2)
    threshold = sorted(sure)[int((right == 0).sum())] if right.any() else 2.0
    found = estimate((np.append(sure, [np.nan, 0.9]), np.append(right, [1, np.nan])), np.append(asked, np.nan))
    if right.any():
        assert math.isclose(found.thresholded, np.mean([c >= threshold for c in asked]), abs_tol=1 / n + 1e-9)
    assert math.isclose(found.difference, right.mean() - sure.mean() + asked.mean(), abs_tol=1e-9)
    assert math.isclose(found.usual - found.drop, found.thresholded)
    assert (found.n, found.m) == (n, n + 3)


def test_intervals_hold_what_is_true() -> None:
    """Both of them, at 90%, of windows that are like the reference, and the difference's too if it is less sure."""
    hits = np.zeros(3)
    runs = 40
    for seed in range(runs):
        reference, (asked, right), (less, wrong) = (
            said(600, seed, 6),
            said(20_000, 1000 + seed, 6),
            said(20_000, seed, 2),
        )
        same = estimate(reference, asked[:400], level=0.9)
        harder = estimate(reference, less[:400], level=0.9)
        hits += (
            same.low <= right.mean() <= same.high,
            same.difference_low <= right.mean() <= same.difference_high,
            harder.difference_low <= wrong.mean() <= harder.difference_high,
        )
        assert harder.drop > 0
    assert (hits / runs >= 0.8).all()


def test_without_what_it_needs_there_is_no_estimate() -> None:
    """No head, no labels, or fewer than twenty items."""
    sure, right = said(50, 0, 4)
    assert estimated(window(confidence=sure), window(confidence=sure)) is None
    assert estimated(window(confidence=sure, right=right), window(50)) is None
    assert estimated(window(confidence=sure, right=right), window(confidence=sure[:19])) is None
    assert estimated(window(confidence=sure, right=np.full(50, np.nan)), window(confidence=sure)) is None


@given(counts, counts, st.floats(0.01, 0.99))
def test_tests_are_scipys(now: tuple[int, int], before: tuple[int, int], allowed: float) -> None:
    """Fisher's of two counts, the binomial of one, one-sided; the interval is Wilson's."""
    (hits, rest), (there, others) = now, before
    found = quality.against_counts("x", hits, hits + rest, (there, there + others))
    wanted = stats.fisher_exact([[hits, rest], [there, others]], alternative="greater").pvalue
    assert math.isclose(found.p, wanted, rel_tol=1e-6, abs_tol=1e-12)
    assert (found.low, found.high) == wilson(hits, hits + rest)
    if hits + rest:
        one = quality.against_share("x", hits, hits + rest, allowed)
        wanted = stats.binomtest(hits, hits + rest, allowed, alternative="greater").pvalue
        assert math.isclose(one.p, wanted, rel_tol=1e-6, abs_tol=1e-12)


def test_rates_alarm_no_more_often_than_they_say() -> None:
    """Outliers beyond a threshold, and the worst of many columns, of windows that are like the reference."""
    rng = np.random.default_rng(0)
    runs, alarms = 300, np.zeros(2)
    for _ in range(runs):
        sides = []
        for n in (500, 200):
            cells = {f"c{i}": np.where(rng.random(n) < 0.1, np.nan, 1.0) for i in range(5)}
            sides.append(window(novelty=rng.normal(size=n), **cells))
        rate = quality.outliers(*sides, threshold=1.6)
        assert rate is not None
        alarms += rate.p < 0.1, quality.missing(*sides)[0].p < 0.1
    assert (alarms / runs <= stats.binom.ppf(0.999, runs, 0.1) / runs).all()


def test_what_is_counted() -> None:
    """Outliers, abstentions and missing cells, against a reference that has fewer; the least likely column first."""
    n = 200
    half = np.arange(n) % 2 == 0
    usual = window(novelty=np.zeros(n), abstained=np.zeros(n), a=np.zeros(n), b=np.array(["x"] * n, object))
    now = window(
        novelty=np.where(half, np.nan, 9.0),
        abstained=half * 1.0,
        a=np.zeros(n),
        b=np.where(half, "", "x").astype(object),
    )
    found = quality.outliers(usual, now, 5.0)
    assert found is not None and (found.hits, found.n, found.usual) == (100, 100, 0.0) and found.p < 1e-10
    unanswered = quality.abstained(usual, now)
    assert unanswered is not None and (unanswered.hits, unanswered.n) == (100, 200) and unanswered.p < 1e-10
    rates = {rate.what: rate for rate in quality.missing(usual, now)}
    assert [rate.hits for rate in (rates["missing b"], rates["missing a"])] == [100, 0]
    assert rates["missing a"].p == 1
    assert quality.missing(usual, now)[0].what in {"missing b", "missing novelty"}
    assert quality.outliers(window(n), now, 5.0) is None and quality.abstained(usual, window(n)) is None


@given(st.integers(0, 100), st.integers(10, 40))
def test_spread_is_of_pairs(seed: int, n: int) -> None:
    """The mean cosine is that of all pairs; of the same items nothing is lost; of one point everything."""
    rng = np.random.default_rng(seed)
    cloud = Window(rng.normal(size=(n, 8)).astype(np.float32))
    found = quality.spread(cloud, cloud)
    unit = cloud.vectors / np.linalg.norm(cloud.vectors, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(n, dtype=bool)]
    assert found is not None
    assert math.isclose(found.cosine, pairs.mean(), abs_tol=1e-5)
    assert math.isclose(found.left, 1, rel_tol=1e-5)
    collapsed = quality.spread(cloud, Window(np.ones((n, 8), np.float32)))
    assert collapsed is not None and collapsed.rank < 1.5 and collapsed.cosine > 0.999
    assert quality.spread(cloud, cloud.select(np.arange(9))) is None


def test_late_labels() -> None:
    """Accuracy, its interval, and calibration are the plain ones; a fall against the reference has a small p."""
    sure, right = said(400, 0, 4)
    truth = np.where(right == 1, "a", "b").astype(object)
    found = quality.answered(np.array(["a"] * 400, object), sure, truth, right=right)
    assert found is not None
    assert (found.accuracy, found.usual, found.n) == (right.mean(), right.mean(), 400)
    assert (found.low, found.high) == wilson(int(right.sum()), 400)
    assert math.isclose(found.calibration, reliability(sure, right, mass=True).error)
    assert found.calibration_low < found.calibration_high
    assert f"calibration error {found.calibration:.3f}" in found.said
    assert found.p is not None and found.p > 0.1
    worse = quality.answered(np.array(["b"] * 400, object), np.full(400, np.nan), truth, right=right)
    assert worse is not None and worse.p is not None and worse.p < 1e-6 and math.isnan(worse.calibration)
    assert "calibration" not in worse.said
    alone = quality.answered(truth, sure, truth)
    assert alone is not None and alone.p is None and alone.usual is None and alone.accuracy == 1
    assert quality.answered(truth[:0], sure[:0], truth[:0]) is None


@pytest.mark.parametrize(("known", "labelled"), [(200, 2000), (60, 300), (1, 500)])
def test_a_fall_is_one_beyond_what_both_counts_allow(known: int, labelled: int) -> None:
    """Where nothing fell, a reference of few items does not make it a fall more often than the level says."""
    level, trials, lots = 0.95, 1000, np.random.default_rng(0)
    fell = 0
    for _ in range(trials):
        right = (lots.random(known) < 0.9).astype(float)
        truth = np.where(lots.random(labelled) < 0.9, "a", "b").astype(object)
        guess, unsure = np.array(["a"] * labelled, object), np.full(labelled, np.nan)
        found = quality.answered(guess, unsure, truth, right=right, level=level)
        assert found is not None and found.drop_low is not None
        assert found.drop_low <= (found.usual or 0) - found.accuracy
        fell += found.drop_low > 0
    assert fell <= stats.binom.ppf(0.999, trials, (1 - level) / 2)


@pytest.mark.parametrize("hits", [0, 5])
def test_of_nothing_nothing_is_said(hits: int) -> None:
    """No items have no share; without hits nothing is more often than usual."""
    assert quality.against_counts("x", 0, 0, (hits, 10)).share == 0
    assert quality.against_counts("x", 0, 10, (hits, 10)).p == 1
    assert quality.against_share("x", 0, 10, 0.0).p == 1
    assert quality.against_share("x", hits, 10, 1.0).p == 1
    assert quality.against_share("x", 1, 10, 0.0).p == 0
