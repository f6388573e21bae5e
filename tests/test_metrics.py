"""Metrics against naive references, analytic values and coverage; the index against brute force."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from fastness.core.errors import BadInput
from fastness.index import VectorIndex
from fastness.metrics.geometry import alignment, effective_rank, feature_std, uniformity
from fastness.metrics.intervals import student, wilson
from fastness.metrics.knn import knn_predict

Floats = npt.NDArray[np.float32]


def vectors(n: int, dim: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def unit(x: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    wide = x.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def naive_votes(
    bank: Floats, labels: npt.NDArray[np.int64], query: Floats, k: int, t: float
) -> npt.NDArray[np.float64]:
    """Votes of each class for one query, largest 1, in float64."""
    similarity = unit(bank) @ unit(query[None])[0]
    votes = np.zeros(labels.max() + 1)
    for i in np.argsort(-similarity)[:k]:
        votes[labels[i]] += math.exp((similarity[i] - 1) / t)
    return votes / votes.max()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 40), m=st.integers(1, 6), dim=st.integers(2, 9), classes=st.integers(1, 5),
    k=st.integers(1, 60), temperature=st.sampled_from([0.07, 0.5, 5.0]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_knn_is_the_naive_vote(n: int, m: int, dim: int, classes: int, k: int, temperature: float, seed: int) -> None:
    bank, queries = vectors(n, dim, seed), vectors(m, dim, seed + 1)
    labels = np.random.default_rng(seed).integers(0, classes, n)
    predicted = knn_predict(bank, labels, queries, k=k, temperature=temperature)
    assert predicted.shape == (m,) and predicted.dtype == np.int64
    for query, given_class in zip(queries, predicted, strict=True):
        # Within rounding of the best: two classes may be level in float32.
        assert naive_votes(bank, labels, query, k, temperature)[given_class] > 1 - 1e-4


def test_knn_does_not_see_lengths_nor_the_order_of_the_bank() -> None:
    bank, queries, labels = vectors(50, 6), vectors(9, 6, 1), np.arange(50) % 4
    expected = knn_predict(bank, labels, queries)
    order = np.random.default_rng(2).permutation(50)
    assert (knn_predict(bank[order] * 7, labels[order], queries * 0.01) == expected).all()


def test_knn_in_chunks_is_knn_at_once() -> None:
    """A bank of 20,000 makes chunks of 1,000 queries; 1,100 are one and a bit."""
    bank, queries = vectors(20_000, 4), vectors(1_100, 4, 1)
    labels = np.random.default_rng(2).integers(0, 10, len(bank))
    parts = [knn_predict(bank, labels, queries[i : i + 550], k=5) for i in (0, 550)]
    assert (knn_predict(bank, labels, queries, k=5) == np.concatenate(parts)).all()


@pytest.mark.parametrize("k", [1, 20, 10**6])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_collapsed_bank_predicts_no_better_than_chance(k: int, value: float) -> None:
    """Ties must not favour the right answer, even with queries equal to the bank and in its order."""
    labels = np.arange(200) // 20
    same = np.full((200, 8), value, np.float32)
    predicted = knn_predict(same, labels, same, k=k)
    assert len(np.unique(predicted)) == 1 and (predicted == labels).mean() == pytest.approx(0.1)


def test_knn_with_more_classes_than_the_bank_has() -> None:
    assert set(knn_predict(vectors(5, 3), np.array([0, 1, 0, 1, 0]), vectors(4, 3, 1), classes=7)) <= {0, 1}


def test_geometry_of_one_point() -> None:
    x = torch.nn.functional.normalize(torch.ones(10, 4), dim=1)
    assert alignment(x, x) == 0 and uniformity(x) == pytest.approx(0, abs=1e-6)
    assert effective_rank(x) == 1 and feature_std(x) == pytest.approx(0, abs=1e-6)
    assert uniformity(x[:1]) == 0 and effective_rank(x[:1]) == 1


@pytest.mark.parametrize("dim", [2, 5, 16])
def test_geometry_of_orthonormal_points(dim: int) -> None:
    """All squared distances are 2; the centred points span dim - 1 equal directions."""
    x = torch.eye(dim)
    assert alignment(x, x.roll(1, 0)) == pytest.approx(2)
    assert alignment(x, -x) == pytest.approx(4)
    assert uniformity(x) == pytest.approx(-4) and uniformity(x, t=0.5) == pytest.approx(-1)
    assert effective_rank(x) == pytest.approx(dim - 1)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_of_an_isotropic_subspace(rank: int) -> None:
    cloud = torch.from_numpy(vectors(4000, rank)) @ torch.linalg.qr(torch.from_numpy(vectors(8, 8, 1)))[0][:rank]
    assert effective_rank(cloud) == pytest.approx(rank, rel=0.01)
    assert effective_rank(100 * cloud + 5) == pytest.approx(effective_rank(cloud), rel=1e-4)


def test_geometry_of_an_isotropic_gaussian_on_the_sphere() -> None:
    dim = 64
    x = torch.nn.functional.normalize(torch.from_numpy(vectors(2000, dim)), dim=1)
    assert feature_std(x) == pytest.approx(1, abs=0.02)
    assert effective_rank(x) == pytest.approx(dim, rel=0.02)
    # E exp(-2t(1 - cos)) with cos nearly N(0, 1/dim): log is -2t + (2t)²/(2 dim).
    assert uniformity(x) == pytest.approx(-4 + 16 / (2 * dim), abs=0.02)
    assert alignment(x[:1000], x[1000:]) == pytest.approx(2, abs=0.05)


def wilson_coverage(n: int, p: float, level: float) -> float:
    """How often the interval holds p, exactly: summed over the binomial's outcomes, not simulated."""
    inside = [low <= p <= high for low, high in (wilson(k, n, level) for k in range(n + 1))]
    return float(binom.pmf(np.arange(n + 1), n, p)[inside].sum())


@pytest.mark.parametrize(("n", "p"), [(10, 0.5), (50, 0.3), (200, 0.9), (1000, 0.5)])
def test_wilson_covers_its_level(n: int, p: float) -> None:
    assert 0.93 <= wilson_coverage(n, p, 0.95) <= 0.98


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_covers_its_level_on_average_over_shares(level: float) -> None:
    shares = np.linspace(0.01, 0.99, 50)
    assert np.mean([wilson_coverage(50, p, level) for p in shares]) == pytest.approx(level, abs=0.01)


def test_wilson_at_the_edges() -> None:
    assert wilson(0, 0) == (0, 1)
    assert wilson(0, 20)[0] == 0 and 0 < wilson(0, 20)[1] < 0.2
    assert wilson(20, 20)[1] == 1 and wilson(20, 20)[0] == pytest.approx(1 - wilson(0, 20)[1])
    assert wilson(3, 10) == pytest.approx((0.1078, 0.6032), abs=1e-4)  # Newcombe 1998's method 3


@pytest.mark.parametrize(("n", "level"), [(3, 0.95), (10, 0.95), (5, 0.8)])
def test_student_covers_its_level(n: int, level: float) -> None:
    draws = np.random.default_rng(0).normal(2.0, 3.0, size=(2000, n))
    inside = np.mean([low <= 2.0 <= high for _, low, high in (student(row, level) for row in draws)])
    assert abs(inside - level) < 4 * math.sqrt(level * (1 - level) / 2000)


def test_student_of_one_value_claims_nothing() -> None:
    assert student([3.0]) == (3.0, -math.inf, math.inf)
    assert student([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(2, 9), st.integers(1, 80), st.integers(0, 10**6))
def test_the_exact_index_is_brute_force(n: int, dim: int, k: int, seed: int) -> None:
    bank, queries = vectors(n, dim, seed), vectors(4, dim, seed + 1)
    before = bank.copy()
    index = VectorIndex(bank)
    scores, found = index.search(queries, k)
    similarity = unit(queries) @ unit(bank).T
    assert index.exact and len(index) == n and found.shape == scores.shape == (4, min(k, n))
    np.testing.assert_allclose(scores, -np.sort(-similarity, 1)[:, :k], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(similarity, found, 1), scores, atol=1e-5)
    assert (bank == before).all()


def test_the_graph_index_finds_nearly_all_neighbours() -> None:
    bank, queries = vectors(5000, 32), vectors(100, 32, 1)
    index = VectorIndex(bank, exact=False)
    _, found = index.search(queries, 10)
    _, true = VectorIndex(bank, exact=True).search(queries, 10)
    assert not index.exact
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, true, strict=True)]) > 0.95


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4)])
def test_an_index_of_no_vectors_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"\[N, D\]"):
        VectorIndex(np.zeros(shape, np.float32))


def test_zero_vectors_are_near_nothing() -> None:
    scores, _ = VectorIndex(np.zeros((3, 4), np.float32)).search(vectors(2, 4), 3)
    assert (scores == 0).all()
