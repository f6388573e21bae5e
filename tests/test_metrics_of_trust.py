"""Calibration, outliers, selective prediction, clusters, retrieval, intervals: equal to naive or other ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics as sk
from sklearn.covariance import LedoitWolf

from fastness.core.errors import BadInput
from fastness.metrics import calibration, clustering, intervals, outliers, retrieval, selective
from fastness.metrics.knn import knn_predict

tenths = st.integers(0, 10).map(lambda i: i / 10)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of up to four classes, often tied, and labels."""
    n, classes = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    logits = draw(hnp.arrays(np.float64, (n, classes), elements=st.integers(-3, 3)))
    return calibration.softmax(logits), draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))


@given(predictions(), st.integers(1, 20))
def test_calibration_error_is_the_plain_sum(made: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    """Over bins of equal width, open below and closed above."""
    p, y = made
    confidence, right = p.max(1), p.argmax(1) == y
    naive = 0.0
    for i in range(bins):
        mine = (np.ceil(confidence * bins) - 1).clip(0).astype(int) == i
        if mine.any():
            naive += mine.mean() * abs(confidence[mine].mean() - right[mine].mean())
    assert math.isclose(calibration.reliability(confidence, right, bins).error, naive, abs_tol=1e-12)


@given(predictions(), st.integers(1, 8), st.randoms())
def test_bins_of_equal_mass(made: tuple[np.ndarray, np.ndarray], bins: int, random: object) -> None:
    """All items once, the order does not matter, and equal confidences are never parted."""
    p, y = made
    confidence, right = p.max(1), p.argmax(1) == y
    found = calibration.reliability(confidence, right, bins, mass=True)
    assert found.count.sum() == len(y)
    assert len(found.count) <= bins
    assert math.isclose(float((found.count * found.accuracy).sum()), float(right.sum()), abs_tol=1e-9)
    order = np.argsort([random.random() for _ in y])  # type: ignore[attr-defined]
    assert math.isclose(
        calibration.reliability(confidence[order], right[order], bins, mass=True).error, found.error, abs_tol=1e-12
    )
    distinct = np.linspace(0, 1, 8 * bins)
    assert set(calibration.reliability(distinct, distinct > 0.5, bins, mass=True).count) == {8}


@given(predictions())
def test_brier_and_likelihood_are_scikit_learns(made: tuple[np.ndarray, np.ndarray]) -> None:
    """Means equal those of scikit-learn; votes that all agree are a label."""
    p, y = made
    classes = p.shape[1]
    onehot = np.eye(classes)[y]
    assert math.isclose(calibration.brier(p, y).mean(), float(((p - onehot) ** 2).sum(1).mean()), abs_tol=1e-12)
    assert np.allclose(calibration.nll(p, y), calibration.nll(p, onehot))
    if classes > 1:
        wanted = sk.log_loss(y, p, labels=np.arange(classes))
        assert math.isclose(float(calibration.nll(p, y).mean()), wanted, rel_tol=1e-9, abs_tol=1e-12)
    if classes == 2:
        assert math.isclose(calibration.brier(p, y).mean() / 2, sk.brier_score_loss(y, p[:, 1], pos_label=1))


def test_temperature_is_found_again() -> None:
    """Labels drawn at a temperature, logits shown without it; and no wrong answer at all means the least allowed."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 5)) * 3
    for truth in (0.5, 1.0, 3.0):
        p = calibration.softmax(logits, truth)
        labels = (rng.random((len(p), 1)) > p.cumsum(1)).sum(1).clip(0, 4)
        assert abs(calibration.best_temperature(logits, labels) / truth - 1) < 0.05
    assert calibration.best_temperature(logits, logits.argmax(1)) < 0.02
    assert np.isfinite(calibration.nll(calibration.softmax(logits, 0.01), logits.argmin(1))).all()


@given(st.floats(1, 500), st.integers(1, 40))
def test_temperature_of_the_very_sure(spread: float, wrong: int) -> None:
    """All answers equally sure, a known share of them wrong: the temperature makes the confidence that share."""
    labels = np.arange(100) % 3
    said = np.where(np.arange(100) < wrong, (labels + 1) % 3, labels)
    found = calibration.best_temperature(np.eye(3)[said] * spread, labels)
    wanted = spread / math.log(2 * (100 - wrong) / wrong)
    assert math.isclose(found, min(max(wanted, 0.01), 100), rel_tol=1e-3)


def test_what_stands_for_nothing_is_no_good_figure() -> None:
    """A label that is no class is refused; no items have no error; two clusters in one point are not apart."""
    for label in (-1, 2):
        with pytest.raises(BadInput, match=f"labels, row 1: {label} is none of the 2 classes"):
            calibration.nll([[0.5, 0.5]] * 2, [0, label])
    with pytest.raises(BadInput, match="labels, row 1: 5 is none"):
        calibration.nll([[0.5, 0.5]] * 3, [0, 5, 9])
    assert math.isnan(calibration.reliability([], []).error)
    assert math.isnan(clustering.dunn(np.zeros((4, 2)), [0, 0, 1, 1]))
    assert not len(knn_predict(np.eye(3, dtype=np.float32), np.arange(3), np.zeros((0, 3), np.float32)))


def test_small_differences_are_not_rounded_away() -> None:
    """Vectors that nearly all point one way, and answers that are nearly sure, keep their order."""
    rng = np.random.default_rng(0)
    inside, bank, outside = (rng.normal(size=(300, 128)) * width for width in (1e-4, 1e-4, 2e-4))
    base = np.eye(128)[0]
    known, near, far = ((base + part).astype(np.float32) for part in (bank, inside, outside))
    scores = [outliers.knn_distance(known, side, k=10) for side in (near, far)]
    assert outliers.detection(*scores)["auroc"] > 0.99
    sure, less = (np.eye(3)[np.zeros(200, int)] * rng.normal(m, 1, 200)[:, None] for m in (50, 40))
    assert outliers.detection(outliers.max_probability(sure), outliers.max_probability(less))["auroc"] > 0.99


@pytest.mark.parametrize("dim", (3, 64, 384))
def test_one_point_finds_nothing(dim: int) -> None:
    """However the products of equal vectors are rounded, the right answer stands last."""
    one = np.random.default_rng(dim).normal(size=dim).astype(np.float32)
    queries, bank = (np.tile(one / np.linalg.norm(one), (n, 1)) for n in (30, 77))
    places = retrieval.best_ranks(queries, bank, lambda rows: rows[:, None] == np.arange(77))
    assert (places == 77).all()
    labels = np.arange(77) % 7
    found = retrieval.by_label(bank, labels, queries, labels[:30])
    assert (found["mrr"] == 1 / (77 - 11 + 1)).all()


@given(st.lists(tenths, max_size=30), st.lists(tenths, max_size=30))
def test_detection_is_the_plain_count(inside: list[float], outside: list[float]) -> None:
    """AUROC by pairs, FPR95 by trying every threshold; nothing on one side means no number."""
    found = outliers.detection(inside, outside)
    if not inside or not outside:
        assert all(math.isnan(value) for value in found.values())
        return
    low, high = np.array(inside), np.array(outside)
    pairs = (high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean()
    rates = [(low >= t).mean() for t in np.unique(np.r_[low, high]) if (high >= t).mean() >= 0.95]
    assert math.isclose(found["auroc"], pairs, abs_tol=1e-12)
    assert math.isclose(found["fpr95"], min(rates), abs_tol=1e-12)
    truth = np.r_[np.zeros(len(low)), np.ones(len(high))]
    fpr, tpr, _ = sk.roc_curve(truth, np.r_[low, high], drop_intermediate=False)
    assert math.isclose(found["fpr95"], fpr[tpr >= 0.95 - 1e-12].min(), abs_tol=1e-12)
    assert math.isclose(found["auroc"], sk.roc_auc_score(truth, np.r_[low, high]), abs_tol=1e-12)
    assert math.isclose(found["aupr"], sk.average_precision_score(truth, np.r_[low, high]), abs_tol=1e-12)


@given(st.lists(tenths, min_size=1, max_size=30), st.lists(tenths, min_size=1, max_size=30), st.integers(0, 99))
def test_drawn_detection_is_that_of_the_drawn_items(inside: list[float], outside: list[float], seed: int) -> None:
    """Counting how often each score was drawn gives what the drawn scores themselves give."""
    low, high = np.array(inside), np.array(outside)
    generator = np.random.default_rng(seed)
    rows = [generator.integers(len(side), size=(7, len(side))) for side in (low, high)]
    drawn = outliers.detection_drawn(low, high, seed, draws=7)
    for i, (one, other) in enumerate(zip(*rows, strict=True)):
        for figure, value in outliers.detection(low[one], high[other]).items():
            assert math.isclose(drawn[figure][i], value, abs_tol=1e-12)


def test_distances_are_the_plain_ones() -> None:
    """The k-th neighbour by sorting all, Mahalanobis by the formula, each class's mean in turn."""
    rng = np.random.default_rng(0)
    bank, asked = rng.normal(size=(60, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    labels = rng.integers(0, 3, 60)
    b, q = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank.astype(float), asked.astype(float)))
    every = np.sort(np.linalg.norm(q[:, None] - b, axis=2), 1)
    assert np.allclose(outliers.knn_distance(bank, asked, 7), every[:, 6], atol=1e-3)
    assert np.allclose(outliers.knn_distance(bank, asked, 500), every[:, -1], atol=1e-3)
    for y in (labels, None):
        groups = np.zeros(60, int) if y is None else labels
        means = np.stack([b[groups == c].mean(0) for c in np.unique(groups)])
        precision = np.linalg.inv(LedoitWolf(assume_centered=True).fit(b - means[groups]).covariance_)
        wanted = [min(float((x - m) @ precision @ (x - m)) for m in means) for x in q]
        assert np.allclose(outliers.mahalanobis(bank, asked, y), wanted, rtol=1e-4)


def test_scores_of_logits() -> None:
    """Sure ones score low; the energy of equal logits is analytic."""
    logits = np.array([[5.0, 0, 0], [1, 1, 1], [1000, 0, 0]])
    assert np.allclose(outliers.energy(logits)[1], -1 - math.log(3))
    assert outliers.max_probability(logits)[1] == pytest.approx(2 / 3)
    assert outliers.max_probability(logits)[2] == 0


@given(st.lists(st.tuples(tenths, st.booleans()), min_size=1, max_size=20), st.randoms())
def test_risk_and_coverage(items: list[tuple[float, bool]], random: object) -> None:
    """The order does not matter; without ties it is the plain running mean; at full coverage the error."""
    c, wrong = np.array([x for x, _ in items]), np.array([w for _, w in items])
    covered, risk = selective.risk_coverage(c, wrong)
    assert covered[-1] == 1
    assert math.isclose(risk[-1], wrong.mean(), abs_tol=1e-12)
    order = np.argsort([random.random() for _ in items])  # type: ignore[attr-defined]
    assert np.allclose(selective.risk_coverage(c[order], wrong[order])[1], risk)
    plain = c + np.arange(len(c)) * 1e-6
    ranked = wrong[np.argsort(-plain)]
    assert np.allclose(selective.risk_coverage(plain, wrong)[1], np.cumsum(ranked) / np.arange(1, len(c) + 1))
    for limit in (0.0, 0.2, 1.0):
        share = selective.coverage_at(c, wrong, limit)
        thresholds = [t for t in np.unique(c) if wrong[c >= t].mean() <= limit + 1e-12]
        assert share == pytest.approx(max(((c >= t).mean() for t in thresholds), default=0.0))


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(2, 25), st.just(2)), elements=st.integers(-3, 3)),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_dunn_is_the_plain_one(x: np.ndarray, clusters: int, seed: int) -> None:
    """All pairs; one cluster gives no number, points alone no width."""
    y = np.random.default_rng(seed).integers(0, clusters, len(x))
    found = clustering.dunn(x, y)
    if len(np.unique(y)) < 2:
        assert math.isnan(found)
        return
    distance = np.linalg.norm(x[:, None] - x, axis=2)
    same = y[:, None] == y
    wide = distance[same].max()
    apart = distance[~same].min()
    wanted = apart / wide if wide > 0 else math.inf if apart > 0 else math.nan
    assert found == pytest.approx(wanted, abs=1e-9, nan_ok=True)


@given(st.integers(1, 25), st.integers(1, 8), st.integers(1, 3), st.integers(0, 99))
def test_retrieval_by_class_is_the_plain_one(n: int, m: int, classes: int, seed: int) -> None:
    """Each query sorted by itself, wrong items first among equals; without ties scikit-learn agrees on both means."""
    rng = np.random.default_rng(seed)
    bank, asked = (rng.integers(-1, 2, (size, 2)).astype(np.float32) for size in (n, m))
    y, wanted = rng.integers(0, classes, n), rng.integers(0, classes + 1, m)
    found = retrieval.by_label(bank, y, asked, wanted, (1, 5))
    for i in range(m):
        right = y == wanted[i]
        if not right.any():
            assert all(math.isnan(values[i]) for values in found.values())
            continue
        scores = bank @ asked[i]
        order = sorted(range(n), key=lambda j: (-scores[j], right[j]))
        hits = np.array([right[j] for j in order])
        precision = np.cumsum(hits) / np.arange(1, n + 1)
        assert found["map"][i] == pytest.approx(precision[hits].mean())
        assert found["mrr"][i] == pytest.approx(1 / (1 + hits.argmax()))
        gain = 1 / np.log2(np.arange(n) + 2)
        assert found["ndcg"][i] == pytest.approx((gain * hits).sum() / gain[: hits.sum()].sum())
        for k in (1, 5):
            if k <= n:
                p, r = hits[:k].mean(), hits[:k].sum() / hits.sum()
                assert found[f"precision@{k}"][i] == pytest.approx(p)
                assert found[f"recall@{k}"][i] == pytest.approx(r)
                assert found[f"f1@{k}"][i] == pytest.approx(2 * p * r / (p + r) if p + r else 0)
        if len(np.unique(scores)) == n:
            assert found["map"][i] == pytest.approx(sk.average_precision_score(right, scores))
            assert found["ndcg"][i] == pytest.approx(sk.ndcg_score([right], [scores]) if n > 1 else 1.0)


def test_all_alike_finds_nothing() -> None:
    """A collapsed encoder has its right answers last."""
    bank = np.ones((10, 3), np.float32)
    found = retrieval.by_label(bank, np.arange(10) % 5, bank[:1], np.zeros(1, np.int64), (1, 5))
    assert found["precision@5"][0] == 0
    assert found["mrr"][0] == pytest.approx(1 / 9)


def test_bootstrap_covers() -> None:
    """Over many samples the interval of a mean holds the truth about as often as it says, and pairs narrow it."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        x = rng.exponential(size=80)
        low, high = intervals.quantiles(intervals.bootstrap_means(x, trial, 400))
        held += low <= 1 <= high
    assert 0.89 <= held / 300 <= 0.98
    a = rng.normal(size=500)
    both = np.stack([a, a + 0.1 + 0.01 * rng.normal(size=500)], 1)
    means = intervals.bootstrap_means(both, 3)
    assert means.shape == (2000, 2)
    low, high = intervals.quantiles(means[:, 1] - means[:, 0])
    assert 0.09 < low < high < 0.11
    assert np.array_equal(means, intervals.bootstrap_means(both, 3))
    assert np.allclose(means.std(0), a.std() / 500**0.5, rtol=0.1)


def test_bootstrap_of_any_statistic() -> None:
    """A median; statistics that are not defined on a sample are left out; none at all bounds nothing."""
    x = np.random.default_rng(1).normal(size=201)
    low, high = intervals.quantiles(intervals.bootstrap(lambda rows: float(np.median(x[rows])), 201, 0))
    assert low < np.median(x) < high
    assert intervals.quantiles(intervals.bootstrap(lambda rows: float("nan"), 5, 0)) == (-math.inf, math.inf)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm(p: list[float]) -> None:
    """The plain step-down; never smaller than p nor larger than Bonferroni's; the order stays."""
    found = intervals.holm(p)
    ranked = sorted(range(len(p)), key=lambda i: p[i])
    highest = 0.0
    for place, i in enumerate(ranked):
        highest = max(highest, min(1.0, p[i] * (len(p) - place)))
        assert found[i] == pytest.approx(highest)
    assert (found >= np.array(p) - 1e-12).all()
    assert (found <= np.minimum(1, np.array(p) * len(p)) + 1e-12).all()


def test_holm_errs_seldom() -> None:
    """Of families of ten true hypotheses at most about one in twenty has a rejection."""
    p = stats.uniform.rvs(size=(2000, 10), random_state=0)
    assert np.mean([intervals.holm(row).min() < 0.05 for row in p]) < 0.065


@pytest.mark.parametrize("bad", (math.nan, math.inf, -math.inf))
def test_what_is_no_number_is_refused(bad: float) -> None:
    """With the row that holds it."""
    x = np.zeros((5, 2))
    x[3, 1] = bad
    column, nothing = x[:, 1], np.zeros((5, 2), np.float32)
    calls = {
        "logits": [lambda: calibration.softmax(x), lambda: outliers.energy(x), lambda: outliers.max_probability(x)],
        "confidences": [
            lambda: calibration.reliability(column, column == 0),
            lambda: selective.risk_coverage(column, column == 0),
        ],
        "vectors": [
            lambda: clustering.dunn(x, [0, 0, 1, 1, 1]),
            lambda: outliers.knn_distance(x.astype(np.float32), np.ones((1, 2), np.float32)),
            lambda: outliers.mahalanobis(x.astype(np.float32), np.ones((1, 2), np.float32)),
        ],
        "embeddings of answers": [
            lambda: retrieval.best_ranks(nothing[:2], nothing + x.astype(np.float32), lambda rows: rows[:, None] >= 0),
            lambda: retrieval.by_label(x.astype(np.float32), np.zeros(5, int), nothing, np.zeros(5, int)),
            lambda: retrieval.ranking(nothing, x.astype(np.float32), np.zeros(1, int), np.zeros(1, int), np.ones(1)),
        ],
        "embeddings of queries": [lambda: knn_predict(nothing, np.zeros(5, int), x.astype(np.float32))],
        "scores": [lambda: outliers.detection(column, [0.0]), lambda: outliers.detection([0.0], column)],
        "probabilities": [lambda: calibration.brier(x, [0] * 5), lambda: calibration.nll(x, [0] * 5)],
    }
    for what, some in calls.items():
        for call in some:
            with pytest.raises(BadInput, match=f"{what}.*row 3"):
                call()


@pytest.mark.parametrize("n", [150, 1000])
@pytest.mark.parametrize("wrong", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("mass", [False, True])
def test_the_interval_of_a_calibration_error_holds_what_outcomes_were_drawn_with(
    n: int, wrong: float, mass: bool
) -> None:
    """Of calibrated answers it reaches down to nothing, however large chance makes what is seen."""
    trials, level, held, sure = 200, 0.95, 0, 0
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.4, 0.95, n)
        rate = np.clip(confidence - wrong * np.where(confidence < 0.6, 1, 0.5), 0, 1)
        found = calibration.reliability(confidence, rng.random(n) < rate, mass=mass)
        low, high = calibration.error_interval(found, seed, level, draws=400)
        true = calibration.reliability(confidence, rate, mass=mass).error
        assert 0 <= low <= found.error
        held += low <= true <= high
        sure += low > 0
    assert held >= stats.binom.ppf(0.001, trials, level)
    if wrong == 0:
        assert sure <= stats.binom.ppf(0.999, trials, (1 - level) / 2)


def test_the_interval_of_no_calibration_error_is_that_of_few_answers() -> None:
    none = calibration.reliability([], [])
    assert calibration.error_interval(none, 0) == (-math.inf, math.inf)
    for n in (5, 500):
        low, high = calibration.error_interval(calibration.reliability([1.0] * n, [1] * n), 0)
        assert low == 0 and 0.5 / n < high < 5 / n
