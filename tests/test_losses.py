"""Losses against naive references written from the papers, their gradients, analytic values and symmetries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastness.core.errors import BadInput
from fastness.losses import LOSSES, stream
from fastness.losses.cosent import cosent
from fastness.losses.debiased import debiased
from fastness.losses.decoupled import decoupled
from fastness.losses.margin import margin_contrastive
from fastness.losses.multi_similarity import multi_similarity
from fastness.losses.nt_xent import clip, cross_entropy, info_nce, nt_xent
from fastness.losses.pairs import NOBODY, Neighbours, Pairs, SameSecond, Similar, among, between, nearest_others
from fastness.losses.precision import normalised
from fastness.losses.regression import cosine_regression
from fastness.losses.sigmoid import pairwise_sigmoid
from fastness.losses.triplet import triplet

Tensor = torch.Tensor
unit = torch.nn.functional.normalize


def rows(n: int, dim: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on 16 rows at a time, so that every test of more rows has several chunks."""
    monkeypatch.setattr(stream, "CHUNK", 1)
    monkeypatch.setattr(stream, "ROWS", 16)


# --- naive references: loops over anchors and pairs, from the formulas --------------------------------------

Anchor = tuple[Tensor, list[Tensor], list[Tensor]]


def anchors_of(z: Tensor, keys: Tensor) -> Iterator[Anchor]:
    """Yield each vector with its cosines to positives and to negatives."""
    z = unit(z, dim=1)
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        same = [j for j in others if keys[i] == keys[j] and keys[i] != NOBODY]
        positives, negatives = [z[i] @ z[j] for j in same], [z[i] @ z[j] for j in others if j not in same]
        yield z[i], positives, negatives


def mean(terms: list[Tensor], z: Tensor) -> Tensor:
    return torch.stack(terms).mean() + 0 * z.sum() if terms else z.sum() * 0


def naive_cross_entropy(z: Tensor, keys: Tensor, scale: float) -> Tensor:
    terms = []
    for _, positives, negatives in anchors_of(z, keys):
        if positives:
            mass = torch.logsumexp(scale * torch.stack(positives + negatives), 0)
            terms.append(mass - scale * torch.stack(positives).mean())
    return mean(terms, z)


def naive_decoupled(z: Tensor, keys: Tensor, scale: float) -> Tensor:
    terms = []
    for _, positives, negatives in anchors_of(z, keys):
        if positives and negatives:
            terms.append(torch.logsumexp(scale * torch.stack(negatives), 0) - scale * torch.stack(positives).mean())
    return mean(terms, z)


def naive_debiased(z: Tensor, keys: Tensor, scale: float, prior: float, hardness: float) -> Tensor:
    terms = []
    for _, positives, negatives in anchors_of(z, keys):
        if positives and negatives:
            p, n = scale * torch.stack(positives), scale * torch.stack(negatives)
            weights = (hardness * n).exp() / (hardness * n).exp().mean()
            drawn = (weights * n.exp()).sum()
            true = (drawn - prior * len(n) * p.exp().mean()) / (1 - prior)
            floor = torch.tensor(len(n) * math.exp(-scale), dtype=z.dtype)
            terms.append((1 + torch.maximum(true, floor) / p.exp()).log().mean())
    return mean(terms, z)


def naive_sigmoid(z: Tensor, keys: Tensor, scale: float, bias: float) -> Tensor:
    terms = []
    for _, positives, negatives in anchors_of(z, keys):
        judged = [-(scale * s + bias) for s in positives] + [scale * s + bias for s in negatives]
        terms.append(sum((torch.logaddexp(x, x.new_zeros(())) for x in judged), z.new_zeros(())))
    return mean(terms, z)


def distance(cosine: Tensor) -> Tensor:
    return (2 - 2 * cosine).sqrt()


def naive_margin(z: Tensor, keys: Tensor, margin: float) -> Tensor:
    near, far = [], []
    for _, positives, negatives in anchors_of(z, keys):
        near += [distance(s).square() for s in positives]
        far += [(margin - distance(s)).clamp_min(0).square() for s in negatives]
    return mean(near, z) + mean(far, z)


def naive_triplet(z: Tensor, keys: Tensor, margin: float, mining: str) -> Tensor:
    terms = []
    for _, positives, negatives in anchors_of(z, keys):
        near, far = [distance(s) for s in positives], [distance(s) for s in negatives]
        if not near or not far:
            continue
        if mining == "all":
            terms += [p - n + margin for p in near for n in far]
        elif mining == "hard":
            terms.append(max(near, key=Tensor.item) - min(far, key=Tensor.item) + margin)
        else:
            for p in near:
                further = [n for n in far if n > p]
                terms.append(p - (min(further, key=Tensor.item) if further else max(far, key=Tensor.item)) + margin)
    return mean([t for t in terms if t > 0], z)


def naive_multi_similarity(z: Tensor, keys: Tensor, alpha: float, beta: float, base: float, epsilon: float) -> Tensor:
    terms = []
    for _, positives, negatives in anchors_of(z, keys):
        if positives:
            near = [s for s in positives if negatives and s - epsilon < max(negatives, key=Tensor.item)]
            far = [s for s in negatives if s + epsilon > min(positives, key=Tensor.item)]
            pull = sum(((-alpha * (s - base)).exp() for s in near), z.new_zeros(()))
            push = sum(((beta * (s - base)).exp() for s in far), z.new_zeros(()))
            terms.append((1 + pull).log() / alpha + (1 + push).log() / beta)
    return mean(terms, z)


OURS_AND_NAIVE: dict[str, tuple[Callable[[Pairs, float], Tensor], Callable[[Tensor, Tensor, float], Tensor]]] = {
    "nt-xent": (cross_entropy, naive_cross_entropy),
    "decoupled": (decoupled, naive_decoupled),
    "debiased": (lambda p, s: debiased(p, s, 0.1), lambda z, k, s: naive_debiased(z, k, s, 0.1, 0)),
    "hard": (lambda p, s: debiased(p, s, 0.1, 0.7), lambda z, k, s: naive_debiased(z, k, s, 0.1, 0.7)),
    "sigmoid": (lambda p, s: pairwise_sigmoid(p, s, -3.0), lambda z, k, s: naive_sigmoid(z, k, s, -3.0)),
    "margin": (lambda p, s: margin_contrastive(p, 1.2), lambda z, k, s: naive_margin(z, k, 1.2)),
    **{
        f"triplet-{mining}": (
            lambda p, s, mining=mining: triplet(p, 0.3, mining),  # type: ignore[misc]
            lambda z, k, s, mining=mining: naive_triplet(z, k, 0.3, mining),  # type: ignore[misc]
        )
        for mining in ("all", "hard", "semi-hard")
    },
    "multi-similarity": (
        lambda p, s: multi_similarity(p, 2.0, 10.0, 0.5, 0.1),
        lambda z, k, s: naive_multi_similarity(z, k, 2.0, 10.0, 0.5, 0.1),
    ),
}
each_loss = pytest.mark.parametrize("name", OURS_AND_NAIVE)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, float]:
    """Vectors, keys with any number of positives (also none, also nobody's) and a temperature."""
    n, dim = draw(st.integers(2, 24)), draw(st.integers(2, 9))
    kinds = draw(st.integers(1, n))
    seed = draw(st.integers(0, 1 << 30))
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    keys = torch.randint(0, kinds, (n,), generator=generator)
    if draw(st.booleans()):
        keys[torch.rand(n, generator=generator) < 0.2] = NOBODY
    return z, keys, draw(st.floats(0.005, 1.0))


@each_loss
@settings(max_examples=40, deadline=None)
@given(batch=batches())
def test_values_and_gradients_are_those_of_the_naive_reference(name: str, batch: tuple[Tensor, Tensor, float]) -> None:
    ours, naive = OURS_AND_NAIVE[name]
    z, keys, temperature = batch
    here, there = z.clone().requires_grad_(), z.clone().requires_grad_()
    value, expected = ours(among(here, keys), 1 / temperature), naive(there, keys, 1 / temperature)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)
    assert here.grad is not None and there.grad is not None
    torch.testing.assert_close(here.grad, there.grad, rtol=1e-6, atol=1e-6 * float(there.grad.abs().max()) + 1e-12)


@each_loss
@settings(max_examples=25, deadline=None)
@given(batch=batches())
def test_float32_is_near_float64(name: str, batch: tuple[Tensor, Tensor, float]) -> None:
    """Both get the same rounded vectors. Gradients are differences of terms as large as 1 / temperature."""
    ours, _ = OURS_AND_NAIVE[name]
    z, keys, temperature = batch
    narrow = z.float().requires_grad_()
    wide = narrow.detach().double().requires_grad_()
    value, expected = ours(among(narrow, keys), 1 / temperature), ours(among(wide, keys), 1 / temperature)
    value.backward()
    expected.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-4)
    assert narrow.grad is not None and wide.grad is not None
    torch.testing.assert_close(
        narrow.grad.double(), wide.grad, rtol=1e-4, atol=1e-4 * float(wide.grad.abs().max()) + 1e-6 / temperature
    )


@each_loss
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    ours, _ = OURS_AND_NAIVE[name]
    keys = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    assert torch.autograd.gradcheck(lambda z: ours(among(z, keys), 4.0), (rows(7).requires_grad_(),))


@each_loss
@pytest.mark.parametrize("kind", ["zero row", "all zero", "equal", "opposite", "huge", "tiny"])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_loss_and_gradient_stay_finite(name: str, kind: str, scale: float) -> None:
    z, keys = rows(6, dtype=torch.float32), torch.tensor([0, 1, 2, 0, 1, 2])
    if kind == "zero row":
        z[2] = 0
    elif kind == "all zero":
        z.zero_()
    elif kind == "equal":
        z[:] = z[0]
    elif kind == "opposite":
        z[3:] = -z[:3]
    else:
        z *= 1e12 if kind == "huge" else 1e-12
    z.requires_grad_()
    value = OURS_AND_NAIVE[name][0](among(z, keys), scale)
    value.backward()
    assert value.isfinite() and z.grad is not None and z.grad.isfinite().all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_float32_loss_of_the_rounded_inputs(name: str, dtype: torch.dtype) -> None:
    z, keys = rows(6).to(dtype).requires_grad_(), torch.tensor([0, 1, 2, 0, 1, 2])
    ours, _ = OURS_AND_NAIVE[name]
    expected = ours(among(z.detach().float(), keys), 10.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ours(among(z, keys), 10.0)
    value.backward()
    assert torch.equal(value, expected) and z.grad is not None and z.grad.isfinite().all()


@each_loss
def test_the_gradient_does_not_depend_on_where_it_is_asked_for(name: str) -> None:
    z, keys = rows(6).float().requires_grad_(), torch.tensor([0, 1, 2, 0, 1, 2])
    ours, _ = OURS_AND_NAIVE[name]
    expected = torch.autograd.grad(ours(among(z, keys), 10.0), z)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = torch.autograd.grad(ours(among(z, keys), 10.0), z)[0]
    torch.testing.assert_close(within, expected, rtol=1e-5, atol=1e-7)


@each_loss
def test_the_order_of_items_and_the_lengths_of_vectors_do_not_matter(name: str) -> None:
    ours, _ = OURS_AND_NAIVE[name]
    z, keys = rows(12), torch.arange(12) % 4
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    expected = ours(among(z, keys), 5.0)
    torch.testing.assert_close(ours(among(z[order], keys[order]), 5.0), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(ours(among(z * rows(12, 1).exp(), 7 - keys), 5.0), expected, rtol=1e-9, atol=0)


@each_loss
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_the_size_of_a_chunk_does_not_matter(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    z, keys = rows(70).requires_grad_(), torch.arange(70) % 11
    ours, _ = OURS_AND_NAIVE[name]
    expected = torch.autograd.grad(ours(among(z, keys), 5.0), z)[0]
    monkeypatch.setattr(stream, "CHUNK", chunk)
    torch.testing.assert_close(torch.autograd.grad(ours(among(z, keys), 5.0), z)[0], expected, rtol=1e-9, atol=1e-12)


@each_loss
@pytest.mark.parametrize("scale", [2.0, 14.0])
def test_a_collapsed_batch_is_never_perfect(name: str, scale: float) -> None:
    """It scores worse than a batch whose items are told apart, and further from nothing than a rounding error."""
    ours, _ = OURS_AND_NAIVE[name]
    keys = torch.arange(8).repeat(2)
    collapsed, apart = torch.ones(16, 8), torch.eye(8).repeat(2, 1)
    told = float(ours(among(apart, keys), scale))
    assert float(ours(among(collapsed, keys), scale)) > max(told, 0) + 0.05


@pytest.mark.parametrize("items", [2, 16, 100])
def test_what_equal_embeddings_score(items: int) -> None:
    keys, z = torch.arange(items).repeat(2), torch.ones(2 * items, 7)
    pairs = among(z, keys)
    assert float(nt_xent(z, 2, 0.07)) == pytest.approx(math.log(2 * items - 1), rel=1e-5)
    assert float(decoupled(pairs, 10.0)) == pytest.approx(math.log(2 * items - 2), rel=1e-5)
    assert float(debiased(pairs, 10.0)) == pytest.approx(math.log(2 * items - 1), rel=1e-5)
    assert float(debiased(pairs, 10.0, 0.1, 1.0)) == pytest.approx(math.log(2 * items - 1), rel=1e-4)
    assert float(margin_contrastive(pairs, 0.7)) == pytest.approx(0.49, rel=1e-4)
    for mining in ("all", "hard", "semi-hard"):
        assert float(triplet(pairs, 0.3, mining)) == pytest.approx(0.3, rel=1e-4)


def test_nt_xent_of_perfect_embeddings() -> None:
    """Views of an item are equal, items orthogonal: log(e^(1/T) + 2(B - 1)) - 1/T."""
    items, temperature = 6, 0.5
    loss = float(nt_xent(torch.eye(items).repeat(2, 1), 2, temperature))
    assert loss == pytest.approx(math.log(math.exp(2) + 2 * (items - 1)) - 2, rel=1e-5)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_nt_xent_is_cross_entropy_whose_keys_are_the_items(views: int) -> None:
    z = rows(5 * views)
    keys = torch.arange(5).repeat(views)
    torch.testing.assert_close(nt_xent(z, views, 0.2), naive_cross_entropy(z, keys, 5.0))
    torch.testing.assert_close(cross_entropy(among(z, keys % 3), 5.0), naive_cross_entropy(z, keys % 3, 5.0))


def naive_info_nce(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    query, key = unit(query, dim=1), unit(key, dim=1)
    terms = []
    for q, k in zip(query, key, strict=True):
        logits = torch.stack([q @ k, *(q @ n for n in negatives)]) / temperature
        terms.append(-logits.log_softmax(0)[0])
    return torch.stack(terms).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_of_length_one_and_none_where_there_is_no_direction(dtype: torch.dtype) -> None:
    """A row of length 1e-8 or less is zero and gets no gradient; all others have length 1, in float32 at least."""
    z = torch.tensor([[3.0, 4.0], [0.0, 0.0], [6e-9, 8e-9], [3e-9, 4e-9], [-3e-7, 4e-7]], dtype=dtype)
    z.requires_grad_()
    made = normalised(z)
    made.sum().backward()
    assert made.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert made.norm(dim=1)[[0, 4]].tolist() == pytest.approx([1, 1], rel=1e-2)
    assert made[[1, 3]].eq(0).all() and z.grad is not None and z.grad[[1, 3]].eq(0).all()
    assert z.grad[[0, 4]].ne(0).all() and z.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.005, 0.1, 1.0])
def test_info_nce_is_the_naive_loop(temperature: float) -> None:
    query, key, negatives = rows(40).requires_grad_(), rows(40, seed=1).requires_grad_(), unit(rows(9, seed=2), dim=1)
    ours, naive = info_nce(query, key, negatives, temperature), naive_info_nce(query, key, negatives, temperature)
    torch.testing.assert_close(ours, naive, rtol=1e-9, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(ours, (query, key)), torch.autograd.grad(naive, (query, key)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_clip_is_the_cross_entropy_of_rows_and_columns_and_symmetric(scale: float) -> None:
    x, y = rows(33).requires_grad_(), rows(33, seed=1).requires_grad_()
    logits = scale * unit(x, dim=1) @ unit(y, dim=1).T
    own = torch.arange(33)
    naive = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
    ours = clip(x, y, scale)
    torch.testing.assert_close(ours, naive)
    torch.testing.assert_close(clip(y, x, scale), ours)
    for one, other in zip(torch.autograd.grad(ours, (x, y)), torch.autograd.grad(naive, (x, y)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", ["nt-xent", "sigmoid"])
def test_a_temperature_and_a_bias_are_learned(loss: str) -> None:
    """Their gradients are those of finite differences."""
    keys = torch.arange(6).repeat(2)
    module = LOSSES.get(loss)().double()
    log_scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    z = rows(12)
    assert torch.autograd.gradcheck(lambda s: module(among(z, keys), s.exp()), (log_scale,))
    for parameter in module.parameters():
        module(among(z, keys), 3.0).backward()
        step = 1e-5
        with torch.no_grad():
            parameter += step
            above = module(among(z, keys), 3.0)
            parameter -= 2 * step
            below = module(among(z, keys), 3.0)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, (above - below) / (2 * step), rtol=1e-4, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 20), levels=st.integers(1, 5), seed=st.integers(0, 1 << 30), scale=st.floats(1, 50))
def test_cosent_is_the_naive_double_loop(n: int, levels: int, seed: int, scale: float) -> None:
    x, y = rows(n, seed=seed).requires_grad_(), rows(n, seed=seed + 1).requires_grad_()
    scores = torch.randint(0, levels, (n,), generator=torch.Generator().manual_seed(seed)).double()
    cosine = (unit(x, dim=1) * unit(y, dim=1)).sum(1)
    above = [scale * (cosine[j] - cosine[i]) for i in range(n) for j in range(n) if scores[i] > scores[j]]
    naive = torch.logsumexp(torch.stack([cosine.sum() * 0, *above]), 0)
    ours = cosent(x, y, scores, scale)
    torch.testing.assert_close(ours, naive, rtol=1e-6, atol=1e-9)
    for one, other in zip(torch.autograd.grad(ours, (x, y)), torch.autograd.grad(naive, (x, y)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_an_unknown_mining_and_a_wrong_option_are_refused() -> None:
    with pytest.raises(BadInput, match="semi-hard"):
        triplet(among(rows(4), torch.tensor([0, 0, 1, 1])), mining="soft")
    with pytest.raises(BadInput, match="margin"):
        LOSSES.get("triplet")(margin=-1.0)
    with pytest.raises(BadInput, match="no option 'margin'"):
        LOSSES.get("nt-xent")(margin=1.0)


def test_cosine_regression_is_the_squared_distance_of_directions() -> None:
    a, b = rows(6), rows(6, seed=1)
    torch.testing.assert_close(cosine_regression(a, b), (unit(a) - unit(b)).square().sum(1).mean())
    assert float(cosine_regression(a, 3 * a)) == pytest.approx(0, abs=1e-12)
    assert float(cosine_regression(a, -2 * a)) == pytest.approx(4)


# --- false negatives -----------------------------------------------------------------------------------------


def without(z: Tensor, keys: Tensor, struck: Callable[[int, int], bool], scale: float) -> Tensor:
    """Return NT-Xent by loops, leaving out the negatives that ``struck`` names."""
    z = unit(z, dim=1)
    terms = []
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if j != i and keys[j] == keys[i]]
        negatives = [j for j in range(len(z)) if keys[j] != keys[i] and not struck(i, j)]
        mass = torch.logsumexp(scale * torch.stack([z[i] @ z[j] for j in positives + negatives]), 0)
        terms.append(mass - scale * torch.stack([z[i] @ z[j] for j in positives]).mean())
    return torch.stack(terms).mean()


def masked(pairs: Pairs, rule: stream.Rule, scale: float = 5.0) -> Tensor:
    return cross_entropy(replace(pairs, ignored=(rule,)), scale)


@pytest.mark.parametrize("seed", range(5))
def test_negatives_that_share_a_second_key_are_left_out(seed: int) -> None:
    z, keys = rows(40, seed=seed), torch.arange(20).repeat(2)
    seconds = torch.randint(-1, 4, (20,), generator=torch.Generator().manual_seed(seed)).repeat(2)
    pairs = among(z, keys)
    expected = without(z, keys, lambda i, j: bool(seconds[i] == seconds[j] != NOBODY), 5.0)
    torch.testing.assert_close(masked(pairs, SameSecond(pairs, seconds, seconds)), expected)


@pytest.mark.parametrize("seed", range(5))
def test_negatives_more_similar_than_a_threshold_are_left_out(seed: int) -> None:
    z, keys = rows(40, 3, seed=seed), torch.arange(20).repeat(2)
    evidence = unit(rows(40, 3, seed=seed + 9), dim=1)
    near = evidence @ evidence.T > 0.8
    pairs = among(z, keys)
    expected = without(z, keys, lambda i, j: bool(near[i, j]), 5.0)
    torch.testing.assert_close(masked(pairs, Similar(pairs, evidence, evidence, 0.8)), expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 3])
def test_negatives_that_are_each_others_neighbours_are_left_out(seed: int, k: int) -> None:
    z, keys = rows(40, seed=seed), torch.arange(20).repeat(2)
    evidence = unit(rows(20, 3, seed=seed + 9), dim=1)
    near = evidence @ evidence.T - 9 * torch.eye(20)
    nearest = near.argsort(1, descending=True)[:, :k]
    friends = {(i, int(j)) for i in range(20) for j in nearest[i] if i in nearest[j]}
    pairs = among(z, keys)
    expected = without(z, keys, lambda i, j: (i % 20, j % 20) in friends, 5.0)
    torch.testing.assert_close(masked(pairs, Neighbours(pairs, evidence, keys, keys, k)), expected)


def test_a_collapsed_batch_is_not_excused_as_false_negatives() -> None:
    keys, same = torch.arange(10).repeat(2), torch.ones(20, 4)
    pairs = among(same, keys)
    evidence = unit(same, dim=1)
    whole = math.log(19)
    assert float(masked(pairs, Similar(pairs, evidence, evidence, 0.5))) == pytest.approx(whole, rel=1e-5)
    assert float(masked(pairs, Neighbours(pairs, evidence[:10], keys, keys, 3))) > math.log(19 - 2 * 3) - 1e-4


def test_nearest_others_are_those_of_a_full_search() -> None:
    vectors = unit(rows(50), dim=1)
    expected = (vectors @ vectors.T - 9 * torch.eye(50)).argsort(1, descending=True)[:, :4]
    assert torch.equal(nearest_others(vectors, 4), expected)
    assert nearest_others(vectors[:3], 9).shape == (3, 2)


def test_two_sides_and_a_queue() -> None:
    """A queue's vectors are nobody's positives, and rows of two sides belong together by key."""
    x, y, queue = rows(4), rows(4, seed=1), unit(rows(6, seed=2), dim=1)
    pairs = between(x, y, torch.arange(4), queue)
    assert pairs.first is None and pairs.positive_counts().tolist() == [1] * 4
    logits = 5 * unit(x, dim=1) @ torch.cat([unit(y, dim=1), queue]).T
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(4))
    torch.testing.assert_close(cross_entropy(pairs, 5.0), expected)
