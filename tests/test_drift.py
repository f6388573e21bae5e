"""Drift tests: statistics against plain ones, a family that keeps its level, effects that are nothing by chance."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastness.core.errors import BadInput
from fastness.evaluation.slices import Slice
from fastness.monitoring.drift import DRIFT, Verdict, drifted
from fastness.monitoring.drift.family import adjusted, fused, normal_scores, permuted
from fastness.monitoring.drift.pooled import Labels, Member, Pooled
from fastness.monitoring.drift.spectral import RIDGES
from fastness.monitoring.explain.parts import divided
from fastness.monitoring.window import Window

N, M, D = 30, 20, 5
EVERY = tuple(DRIFT)


def vectors(n: int, seed: int = 0, dim: int = D, shift: float = 0.0) -> np.ndarray:
    """Return vectors of unlike spread and heavy tails, float32 ``[n, dim]``."""
    generator = np.random.default_rng(seed)
    return (generator.standard_t(4, (n, dim)) * np.linspace(0.2, 2, dim) + shift).astype(np.float32)


def columns(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return numbers with gaps and ties, and texts with gaps."""
    generator = np.random.default_rng(seed + 1000)
    numbers = generator.integers(0, 9, n).astype(np.float64)
    numbers[generator.random(n) < 0.1] = np.nan
    return {"size": numbers, "kind": generator.choice(["a", "b", "c", ""], n, p=[0.5, 0.3, 0.1, 0.1]).astype(object)}


def window(n: int, seed: int, **more: Any) -> Window:
    """Return a window that differs from others by its seed alone."""
    return Window(vectors(n, seed, **more), columns(n, seed))


def pooled(n: int = N, m: int = M, dim: int = D, seed: int = 0) -> Pooled:
    """Return items of two windows."""
    x = vectors(n + m, seed, dim)
    known = {k: v if v.dtype.kind == "f" else v.astype(np.str_) for k, v in columns(n + m, seed).items()}
    return Pooled(x - x.mean(0), known, [Slice("kind == 'a'", known["kind"] == "a")], n, m, seed)


def members(test: str, items: Pooled) -> dict[str, Member]:
    """Return what a test compares, by name."""
    return {member.what: member for member in DRIFT.get(test)().members(items)}


def assignments(items: Pooled, permutations: int = 6) -> Labels:
    """Return labels of a few assignments."""
    return np.concatenate(list(permuted(items.n, items.m, permutations, 3)))


def test_distance_of_means_is_mahalanobis_with_a_ridge() -> None:
    items = pooled()
    labels = assignments(items)
    found = members("mean", items)["embeddings"].statistics(labels)
    x = items.vectors.astype(np.float64)
    covariance = x.T @ x / len(x)
    strongest = np.linalg.eigvalsh(covariance)[-1]
    for ridge, row in zip(RIDGES, found, strict=True):
        for mask, value in zip(labels > 0, row, strict=True):
            apart = x[mask].mean(0) - x[~mask].mean(0)
            if np.isinf(ridge):
                plain = apart @ apart / strongest
            else:
                added = ridge * np.trace(covariance)
                plain = apart @ np.linalg.solve(covariance + added * np.eye(D), apart) * (1 + added / strongest)
            assert value == pytest.approx(plain, rel=1e-4)


def test_without_ridge_the_kernels_distance_is_mmd() -> None:
    """With a landmark at every item the approximation is exact; rows of one bandwidth, up to a factor, are its MMD²."""
    items = pooled()
    labels = assignments(items)
    found = members("mmd", items)["embeddings"].statistics(labels)[[0, len(RIDGES)]]
    x = items.vectors.astype(np.float64)
    squares = ((x[:, None] - x) ** 2).sum(-1)
    median = np.median(squares[np.triu_indices(len(x), 1)])
    for row, width in zip(found, (0.25, 1.0), strict=True):
        kernel = np.exp(-squares / (width * median))
        signs = np.where(labels > 0, 1 / N, -1 / M)
        mmd = np.einsum("pi,ij,pj->p", signs, kernel, signs)
        assert np.allclose(row / row[0], mmd / mmd[0], rtol=1e-3)


def test_classifier_is_ridge_regression_in_folds() -> None:
    items = pooled()
    labels = assignments(items)
    found = members("classifier", items)["embeddings"].statistics(labels)[0]
    folds = np.empty(N + M, np.int64)
    folds[items.drawn()] = np.arange(N + M) % 5
    x = items.vectors.astype(np.float64)
    ridge = 0.01 * (x**2).sum()
    for mask, value in zip(labels, found, strict=True):
        together = squares = 0.0
        for fold in range(5):
            train, test = folds != fold, folds == fold
            centred = x[train] - x[train].mean(0)
            direction = np.linalg.solve(centred.T @ centred + ridge * np.eye(D), centred.T @ mask[train])
            scores = (x[test] - x[test].mean(0)) @ direction
            together, squares = together + scores @ mask[test], squares + scores @ scores
        assert value == pytest.approx(together / np.sqrt(squares * N * M / (N + M)), rel=1e-3, abs=1e-5)


def test_numbers_are_kolmogorov_smirnov_with_gaps_last() -> None:
    items = pooled()
    labels = assignments(items)
    found = members("numbers", items)["size"].statistics(labels)[0]
    values = np.nan_to_num(items.columns["size"], nan=1e9)
    for mask, value in zip(labels > 0, found, strict=True):
        assert np.sqrt(value) == pytest.approx(stats.ks_2samp(values[mask], values[~mask]).statistic, abs=1e-6)


def test_categories_are_pearsons_chi_squared() -> None:
    items = pooled(60, 40)
    labels = assignments(items)
    found = members("categories", items)["kind"].statistics(labels)[0]
    values = items.columns["kind"]
    for mask, value in zip(labels > 0, found, strict=True):
        table = [[np.sum(values[side] == v) for v in np.unique(values)] for side in (mask, ~mask)]
        assert value * 100 == pytest.approx(stats.chi2_contingency(table, correction=False).statistic)


def test_shares_and_means_within_a_slice() -> None:
    items = pooled()
    labels = assignments(items)
    inside = items.slices[0].mask
    share = members("share", items)["kind == 'a'"].statistics(labels)[0]
    within = members("within", items)["kind == 'a'"].statistics(labels)
    part = Pooled(items.vectors[inside] - items.vectors[inside].mean(0), {}, [], N, M, 0)
    for row, mask in enumerate(labels > 0):
        assert np.sqrt(share[row]) == pytest.approx(abs(inside[mask].mean() - inside[~mask].mean()))
        alone = members("mean", part)["embeddings"].statistics(labels[row : row + 1, inside])
        n, ones = inside.sum(), inside[mask].sum()
        assert np.allclose(within[:, row], alone[:, 0] * ones * (n - ones) / n, rtol=1e-3)


@pytest.mark.parametrize("test", EVERY)
def test_it_does_not_matter_which_window_is_called_the_reference(test: str) -> None:
    items = pooled(25, 25)
    labels = assignments(items)
    for member in members(test, items).values():
        assert np.allclose(member.statistics(labels), member.statistics(1 - labels), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("test", EVERY)
def test_items_in_another_order_are_the_same_items(test: str) -> None:
    """Landmarks and folds follow the items, else a permutation of labels would not be like the real ones."""
    items, order = pooled(), np.random.default_rng(5).permutation(N + M)
    moved = Pooled(
        items.vectors[order],
        {name: values[order] for name, values in items.columns.items()},
        [Slice(part.name, part.mask[order]) for part in items.slices],
        N,
        M,
        items.seed,
    )
    labels = assignments(items)
    for (what, member), other in zip(members(test, items).items(), members(test, moved).values(), strict=True):
        assert np.allclose(member.statistics(labels), other.statistics(labels[:, order]), rtol=1e-2, atol=1e-5), what


def test_permutations_are_the_real_labels_and_shuffles_of_them() -> None:
    labels = np.concatenate(list(permuted(6, 4, 500, 0)))
    assert labels.shape == (501, 10)
    assert (labels[0] == [1] * 6 + [0] * 4).all()
    assert (labels.sum(1) == 6).all()
    assert abs(labels[1:].mean(0) - 0.6).max() < 0.1
    assert len({row.tobytes() for row in labels}) > 150  # of 210


def test_blocks_do_not_change_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(permuted(6, 4, 50, 0)))
    monkeypatch.setattr("fastness.monitoring.drift.family._CELLS", 70)
    assert (np.concatenate(list(permuted(6, 4, 50, 0))) == whole).all()


def test_normal_scores_treat_all_columns_alike_and_know_no_scale() -> None:
    """Moving the columns moves the scores and changes nothing else; on this the exactness rests."""
    generator = np.random.default_rng(0)
    x = generator.chisquare(3, (4, 200))
    order = generator.permutation(200)
    assert np.allclose(normal_scores(x)[:, order], normal_scores(x[:, order]))
    assert np.allclose(normal_scores(5 * x + 2), normal_scores(x))
    assert (np.argsort(normal_scores(x)[0]) == np.argsort(x[0])).all()
    weights = [0.4, 0.3, 0.2, 0.1]
    assert np.allclose(fused(normal_scores(x), weights)[order], fused(normal_scores(x[:, order]), weights))


@pytest.mark.parametrize("freedom", [1, 3, 30])
def test_normal_scores_are_normal(freedom: int) -> None:
    z = normal_scores(np.random.default_rng(freedom).chisquare(freedom, 20_000)[None])[0]
    for level in (0.05, 0.01, 0.001):
        assert np.mean(z > stats.norm.isf(level)) == pytest.approx(level, rel=0.35)


def test_adjusted_p_is_step_down_max_t() -> None:
    generator = np.random.default_rng(0)
    scores, weights = generator.normal(size=(4, 300)), np.array([0.5, 0.2, 0.2, 0.1])
    scores[:, 0] += [2.0, 0.5, 1.5, 3.0]
    surprise = -np.log(stats.norm.sf(scores) / weights[:, None])
    order = np.argsort(-surprise[:, 0])
    plain, least = np.empty(4), 0.0
    for place, row in enumerate(order):
        least = max(least, float(np.mean(surprise[order[place:]].max(0) >= surprise[row, 0])))
        plain[row] = least
    assert np.allclose(adjusted(scores, weights), plain)


def test_false_alarms_are_as_many_as_asked() -> None:
    """Embeddings, columns and slices together, on few items with heavy tails, ties and gaps."""
    trials, level = 500, 0.1
    alarms = sum(
        min(f.p for f in drifted(window(24, 2 * i), window(16, 2 * i + 1), level=level, slices=["kind"]).findings)
        < level + 1e-9
        for i in range(trials)
    )
    low, high = stats.binom.interval(0.999, trials, level)
    assert low <= alarms <= high


def test_slices_whose_items_are_the_same_do_not_alarm_however_their_shares_change() -> None:
    """Two sevenths of the reference, and all of the window: a weekend."""

    def part(items: int, share: float, seed: int) -> Window:
        weekend = np.random.default_rng(seed).random(items) < share
        shifted = vectors(items, seed) + weekend[:, None].astype(np.float32)
        return Window(shifted, {"day": np.where(weekend, "weekend", "weekday").astype(object)})

    trials, level = 150, 0.1
    alarms = sum(
        min(
            f.p
            for f in drifted(
                part(140, 2 / 7, i), part(200, 1, i + 1000), level=level, tests=["within"], slices=["day"]
            ).findings
        )
        < level + 1e-9
        for i in range(1, trials + 1)
    )
    assert alarms <= stats.binom.ppf(0.999, trials, level)


@pytest.mark.parametrize("test", EVERY)
def test_effects_are_nothing_on_average_if_nothing_has_changed(test: str) -> None:
    """Of their squares, which is what chance adds to; nothing is half in units of AUROC."""
    found = []
    for i in range(150):
        verdict = drifted(
            window(40, 2 * i), window(25, 2 * i + 1), level=0.5, tests=[test], slices=["kind == 'a'"], seed=i
        )
        effect = verdict.findings[0].effect - (0.5 if verdict.findings[0].unit == "AUROC" else 0)
        found.append(effect * abs(effect))
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))


@pytest.mark.parametrize("test", ["mean", "mmd", "classifier"])
def test_a_shift_along_a_quiet_direction_is_seen_and_measured(test: str) -> None:
    first, second = vectors(400, 0), vectors(400, 1)
    second[:, 0] += 0.2  # a spread of 0.28, beside another of 2.8
    verdict = drifted(Window(first), Window(second), tests=[test])
    assert verdict.alarm
    assert 0.6 < verdict.findings[0].effect < 0.8  # normal items would be at 0.69


def test_other_spread_and_a_new_cluster_are_seen() -> None:
    wide = vectors(300, 1) * 1.6
    assert drifted(Window(vectors(300)), Window(wide), tests=["mmd"]).alarm
    strange = vectors(300, 1)
    strange[:25] = 0.2 * strange[:25] + np.array([0, 3, 0, -3, 0], np.float32)
    assert drifted(Window(vectors(300)), Window(strange)).alarm


def test_what_moved_is_named() -> None:
    reference, moved = window(300, 0), window(300, 1)
    moved.columns["size"][::4] = np.nan
    assert [f.what for f in drifted(reference, moved).findings if f.alarm] == ["size"]
    moved = window(300, 1)
    inside = moved.columns["kind"] == "c"
    moved.vectors[inside] += 2
    alarms = {(f.test, f.what) for f in drifted(reference, moved, slices=["kind"]).findings if f.alarm}
    assert ("within", "kind == 'c'") in alarms
    assert not {what for _, what in alarms} & {"size", "kind", "kind == 'a'", "kind == 'b'"}


def test_significant_is_not_enough() -> None:
    reference, moved = Window(vectors(1000, 0)), Window(vectors(1000, 1, shift=0.2))
    verdict = drifted(reference, moved, tests=["mean"])
    assert verdict.alarm
    quiet = drifted(reference, moved, tests=["mean"], floors={"mean": 0.9})
    assert not quiet.alarm
    assert quiet.findings[0].p == verdict.findings[0].p
    assert "below its floor" in quiet.said


def test_the_same_seed_gives_the_same_verdict_and_it_is_json() -> None:
    first, second = (drifted(window(50, 0), window(40, 1), slices=["kind"], seed=7) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first.to_dict()))["n"] == 50
    assert first.permutations >= 20 / first.level - 1
    assert [f.p for f in first.findings] == sorted(f.p for f in first.findings)


def test_many_items_need_little_memory() -> None:
    windows = [Window(vectors(10_000, i, 64), columns(10_000, i)) for i in range(2)]
    tracemalloc.start()
    verdict = drifted(*windows, level=0.05)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(verdict.findings) == 4
    assert peak < 300e6


VALUES = st.one_of(st.floats(-1e3, 1e3, width=32), st.just(float("nan")), st.just(0.0))
TEXTS = st.sampled_from(["", "a", "b", "`", "a == 'b'", "\x00", "ß"])


@settings(max_examples=10)
@given(
    st.integers(10, 30),
    st.integers(10, 30),
    st.integers(1, 12),
    st.lists(VALUES, min_size=60, max_size=60),
    st.lists(TEXTS, min_size=60, max_size=60),
    st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
)
def test_whatever_comes_there_is_a_p(
    n: int, m: int, dim: int, numbers: list[float], texts: list[str], scale: float
) -> None:
    """Constant vectors, fewer items than numbers, gaps everywhere: a p above 0, and an effect that is a number."""
    parts = []
    for first, size, seed in ((0, n, 0), (n, m, 1)):
        known = {
            "number": np.array(numbers[first : first + size]),
            "text": np.array(texts[first : first + size], object),
        }
        parts.append(Window(vectors(size, seed, dim) * np.float32(scale) + np.float32(1), known))
    verdict = drifted(*parts, level=0.2, tests=EVERY, slices=["number < 1"])
    assert isinstance(verdict, Verdict)
    for finding in verdict.findings:
        assert 0 < finding.p <= 1
        assert np.isfinite(finding.effect)
        assert finding.alarm == (finding.p <= 0.2 and finding.effect >= finding.floor)
    if scale == 0:
        assert not any(finding.alarm for finding in verdict.findings if finding.what == "embeddings")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window": window(9, 1)}, "window: 9 items say too little; give 10 or more"),
        ({"reference": window(5, 1)}, "reference: 5 items"),
        ({"window": window(30, 1, dim=3)}, "vectors of 3 numbers, the reference has 5"),
        ({"level": 0}, "level 0"),
        ({"level": 1e-6}, "level 1e-06: must be 0.0001 at least"),
        ({"level": 0.9}, "level 0.9"),
        ({"tests": ["mmdd"]}, "did you mean 'mmd'"),
        ({"floors": {"meen": 1}}, "did you mean 'mean'"),
        ({"tests": ["share"]}, "nothing that they compare"),
        ({"tests": []}, "nothing that they compare"),
        ({"slices": ["colour == 'red'"]}, "colour"),
    ],
)
def test_what_cannot_be_judged_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as error:
        drifted(**{"reference": window(30, 0), "window": window(20, 1), **change})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_items_of_one_vector_are_dealt_out_blindly() -> None:
    """Else the real windows would be spread over folds more evenly than shuffled ones, and alarm by that."""
    rng, alarms = np.random.default_rng(0), 0
    kinds = vectors(8, 1)
    for seed in range(60):
        reference, new = (Window(kinds[rng.integers(8, size=60)], {}) for _ in range(2))
        alarms += drifted(reference, new, level=0.05, tests=["classifier"], seed=seed, floors={"classifier": 0}).alarm
    assert alarms <= stats.binom.ppf(0.999, 60, 0.05)


def test_a_gap_is_a_value_and_not_one_of_the_rare() -> None:
    rare = np.array([f"town {i}" for i in range(200)], object)
    before = Window(vectors(200, 0), {"city": rare})
    found = drifted(before, Window(vectors(200, 1), {"city": np.full(200, "", object)}), tests=["categories"])
    assert found.alarm
    towns = np.array(["", "", *["here"] * 198], object)  # two gaps alone are as rare as two towns, and one with them
    assert len(np.unique(divided(towns))) == len(np.unique(divided(np.where(towns == "", "there", towns)))) == 2
    assert len(np.unique(divided(np.array(["", "there", *["here"] * 198], object)))) == 2


def test_a_column_of_numbers_is_one_also_where_somebody_wrote_a_word() -> None:
    rng = np.random.default_rng(0)
    stars = rng.integers(1, 6, 400).astype(np.float64)
    texts = np.array([f"{x:.1f}" for x in rng.permutation(stars)], object)
    texts[7] = "n/a"
    found = drifted(Window(vectors(400, 0), {"stars": stars}), Window(vectors(400, 1), {"stars": texts}))
    assert not found.alarm and any(f.what == "stars" and f.test == "numbers" for f in found.findings)


def test_what_is_far_apart_has_a_p_like_all_else() -> None:
    scores = np.concatenate([np.full((3, 1), 900.0), np.random.default_rng(0).normal(size=(3, 99))], 1)
    found = fused(scores, [1.0, 1.0, 1.0])
    assert np.isfinite(found).all() and found.argmax() == 0


def test_the_level_is_used_to_the_last() -> None:
    """Of permutations and the real labels the most extreme share ``level`` alarms, no less."""
    level, verdicts = 0.5, []
    for seed in range(200):
        first, second = Window(vectors(24, 2 * seed)), Window(vectors(16, 2 * seed + 1))
        verdicts.append(drifted(first, second, level=level, tests=["mean"], floors={"mean": -9}, seed=seed))
    assert all(found.alarm == (found.findings[0].p <= level) for found in verdicts)
    assert any(found.findings[0].p == level for found in verdicts)


def test_one_item_of_a_slice_is_no_reference() -> None:
    """It may be one of the few that lie apart, and then all others of the slice seem to have moved."""

    def items(n: int, seed: int, kinds: list[str]) -> Window:
        apart = np.random.default_rng(seed).random(n) < 0.1
        return Window(vectors(n, seed) + 9 * apart[:, None].astype(np.float32), {"kind": np.array(kinds, object)})

    trials, level = 60, 0.05
    alarms = 0
    for seed in range(trials):
        old = items(120, 2 * seed, ["old"] * 119 + ["new"])
        now = items(100, 2 * seed + 1, ["new"] * 100)
        alarms += drifted(old, now, level=level, tests=["within"], slices=["kind"]).alarm
    assert alarms <= stats.binom.ppf(0.999, trials, level)


def test_what_many_items_have_in_common_does_not_hide_the_others() -> None:
    """Most texts are empty, say; of the few others some have moved."""
    same = np.zeros((320, D), np.float32)

    def items(seed: int, shift: float) -> Window:
        return Window(np.concatenate([same, vectors(80, seed, shift=shift)]))

    found = drifted(items(1, 0.0), items(2, 1.5), level=0.01, tests=["mmd"])
    assert found.findings[0].p <= 0.01
    quiet = [drifted(items(i, 0.0), items(100 + i, 0.0), level=0.05, tests=["mmd"]).findings[0].p for i in range(60)]
    assert sum(p <= 0.05 for p in quiet) <= stats.binom.ppf(0.999, len(quiet), 0.05)
