"""Losses against naive references, analytic values and symmetries."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from fastness.losses.info_nce import info_nce
from fastness.losses.nt_xent import nt_xent
from fastness.losses.regression import cosine_regression


def rows(n: int, dim: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def naive_nt_xent(z: torch.Tensor, views: int, temperature: float) -> float:
    n = len(z)
    items = n // views
    terms = []
    for i in range(n):
        below = sum(math.exp(cosine(z[i], z[j]) / temperature) for j in range(n) if j != i)
        positives = (j for j in range(n) if j != i and j % items == i % items)
        terms += [math.log(below) - cosine(z[i], z[j]) / temperature for j in positives]
    return sum(terms) / len(terms)


def naive_info_nce(query: torch.Tensor, key: torch.Tensor, negatives: torch.Tensor, temperature: float) -> float:
    total = 0.0
    for q, k in zip(query, key, strict=True):
        positive = math.exp(cosine(q, k) / temperature)
        others = sum(math.exp(cosine(q, n) / temperature) for n in negatives)
        total -= math.log(positive / (positive + others))
    return total / len(query)


@pytest.mark.parametrize("views", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("items", [1, 2, 5])
def test_nt_xent_is_the_naive_double_loop(views: int, temperature: float, items: int) -> None:
    z = rows(views * items)
    assert float(nt_xent(z, views, temperature)) == pytest.approx(naive_nt_xent(z, views, temperature), rel=1e-9)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("items", [2, 16, 100])
def test_nt_xent_of_equal_embeddings(views: int, items: int) -> None:
    z = torch.ones(views * items, 7)
    assert float(nt_xent(z, views, 0.07)) == pytest.approx(math.log(views * items - 1), rel=1e-5)


def test_nt_xent_of_perfect_embeddings() -> None:
    """Views of an item are equal, items orthogonal: log(e^(1/T) + 2(B - 1)) - 1/T."""
    items, temperature = 6, 0.5
    loss = float(nt_xent(torch.eye(items).repeat(2, 1), 2, temperature))
    assert loss == pytest.approx(math.log(math.exp(2) + 2 * (items - 1)) - 2, rel=1e-5)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_nt_xent_does_not_see_the_order_of_items_or_views_nor_lengths(views: int) -> None:
    z, items = rows(views * 6), 6
    expected = nt_xent(z, views, 0.2)
    parts = z.view(views, items, -1)
    for same in (
        parts[:, torch.tensor([3, 0, 5, 1, 4, 2])],
        parts.flip(0),
        parts.roll(1, 0),
        parts * rows(views * items, 1, seed=1).exp().view(views, items, 1),
    ):
        torch.testing.assert_close(nt_xent(same.reshape(len(z), -1), views, 0.2), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_info_nce_is_the_naive_loop(temperature: float) -> None:
    query, key = rows(4), rows(4, seed=1)
    negatives = torch.nn.functional.normalize(rows(9, seed=2), dim=1)
    expected = naive_info_nce(query, key, negatives, temperature)
    assert float(info_nce(query, key, negatives, temperature)) == pytest.approx(expected, rel=1e-9)


def test_info_nce_of_equal_embeddings() -> None:
    one = torch.eye(1, 8)
    assert float(info_nce(one.expand(3, -1), one.expand(3, -1), one.expand(20, -1), 0.1)) == pytest.approx(math.log(21))


def test_cosine_regression_is_the_squared_distance_of_directions() -> None:
    a, b = rows(6), rows(6, seed=1)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(cosine_regression(a, b), (unit(a) - unit(b)).square().sum(1).mean())
    assert float(cosine_regression(a, 3 * a)) == pytest.approx(0, abs=1e-12)
    assert float(cosine_regression(a, -2 * a)) == pytest.approx(4)
    assert 0 <= float(cosine_regression(a, b)) <= 4


def negatives(z: torch.Tensor) -> torch.Tensor:
    """Seven keys as a queue holds them: never in less than float32."""
    return torch.nn.functional.normalize(rows(7, seed=2), dim=1).to(torch.promote_types(z.dtype, torch.float32))


LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nt_xent-2": lambda z: nt_xent(z, 2, 0.3),
    "nt_xent-3": lambda z: nt_xent(z, 3, 0.3),
    "nt_xent-cold": lambda z: nt_xent(z, 2, 0.01),
    "info_nce": lambda z: info_nce(z[:3], z[3:], negatives(z), 0.3),
    "info_nce-cold": lambda z: info_nce(z[:3], z[3:], negatives(z), 0.01),
    "cosine_regression": lambda z: cosine_regression(z[:3], z[3:]),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@each_loss
def test_gradients_are_those_of_finite_differences(loss: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert torch.autograd.gradcheck(loss, (rows(6).requires_grad_(),))


@each_loss
@pytest.mark.parametrize("kind", ["zero row", "all zero", "equal", "opposite", "huge", "tiny"])
def test_loss_and_gradient_stay_finite(loss: Callable[[torch.Tensor], torch.Tensor], kind: str) -> None:
    z = rows(6, dtype=torch.float32)
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
    value = loss(z)
    value.backward()
    assert value.isfinite() and z.grad is not None and z.grad.isfinite().all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_under_autocast_is_the_float32_loss_of_the_rounded_inputs(
    loss: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
) -> None:
    z = rows(6).to(dtype)
    expected = loss(z.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(z), expected)
        assert torch.equal(loss(z.float()), expected)
    assert loss(z).dtype == torch.float32 and loss(z.double()).dtype == torch.float64


def test_keyword_arguments_are_widened_too() -> None:
    z = rows(6).bfloat16()
    assert torch.equal(nt_xent(z=z, views=2, temperature=0.2), nt_xent(z.float(), 2, 0.2))
