"""Methods: what each must do on any encoder, momentum and queue against their definitions."""

from __future__ import annotations

import copy
import math
from collections import deque
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conftest import on_pictures, required
from fastness.core.errors import BadInput
from fastness.encoders import build
from fastness.encoders.image import ImageSpec
from fastness.losses.nt_xent import info_nce
from fastness.methods import METHODS, Known, Method
from fastness.methods.momentum import Queue, Teacher, rising
from fastness.views import VIEWS

# Strict: whoever mends the bug is told to take the mark away.
each_method = pytest.mark.parametrize("name", list(METHODS))
each_on_pictures = pytest.mark.parametrize("name", on_pictures())
SMALL: dict[str, dict[str, int]] = {
    "simclr": {"projection": 8, "hidden": 16},
    "moco": {"projection": 8, "hidden": 16, "queue": 20},
    "byol": {"projection": 8, "hidden": 16},
    **{name: {"projection": 8, "hidden": 16} for name in ("supcon", "siamese", "triplet", "semi", "pairs")},
}


def make(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    encoder = build(ImageSpec("resnet18", 16, {"width": 4}))
    return METHODS.get(name)(encoder, 0.2, classes=3, **{**required(name), **SMALL.get(name, {}), **options})


def batch(items: int = 6, views: int = 2, size: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(items, 3, size, size, generator=generator) for _ in range(views)]


def usual(method: Method) -> int:
    """Return how many views the method gets of a picture if nothing is asked."""
    views = VIEWS.get("image")
    return sum(spec.count for spec in (views.usual if method.views_taken[0] > 1 else views.plain))


KNOWN = Known(labels=torch.tensor([0, 1, 2, 0, 1, 2]), scores=torch.tensor([0.1, 0.9, math.nan, 0.4, 0.3, 0.8]))


@each_on_pictures
def test_a_step_gives_a_finite_loss_whose_gradient_reaches_the_encoder_only(name: str) -> None:
    method = make(name)
    views = batch(views=usual(method))
    outcome = method(views, KNOWN)
    assert outcome.loss.shape == () and outcome.loss.isfinite() and outcome.loss.dtype == torch.float32
    outcome.loss.backward()
    for key, parameter in method.named_parameters():
        if key.startswith("teacher."):
            assert not parameter.requires_grad and parameter.grad is None
        else:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    assert all(p.grad.abs().max() > 0 for p in method.encoder.parameters() if p.grad is not None)
    assert [tuple(e.shape) for e in outcome.embeddings] == [(6, method.encoder.dim)] * len(views)
    assert not any(t.requires_grad for t in (*outcome.embeddings, *outcome.watch.values()))


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_each_view_is_compared_with_the_teachers_other_view(name: str) -> None:
    method, (one, other) = make(name).eval(), batch()
    method.teacher[1][-1].bias.data.add_(torch.randn(8))  # the teacher says something of its own

    def says(view: torch.Tensor) -> torch.Tensor:
        z = method.encoder(view)
        return method.head(z) if name == "moco" else method.predictor(method.projector(z))

    def loss(view: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        key = nn.functional.normalize(method.teacher(target), dim=1)
        if name == "moco":
            return info_nce(says(view), key, method.queue.keys, method.temperature)
        return (nn.functional.normalize(says(view), dim=1) - key).square().sum(1).mean()

    expected = (loss(one, other) + loss(other, one)) / 2
    torch.testing.assert_close(method((one, other)).loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["simclr", "byol", "supervised"])
def test_a_few_steps_on_one_batch_lower_the_loss(name: str) -> None:
    """Not so MoCo: on one batch its negatives soon are the very keys that it should find."""
    method = make(name)
    views = batch(views=usual(method))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    losses = []
    for step in range(8):
        loss = method(views, KNOWN).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step / 8)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@each_on_pictures
def test_state_dict_carries_the_whole_method(name: str) -> None:
    """Also the teacher, the queue and its position: a resumed run goes on as if never stopped."""
    method, views = make(name), batch()
    method(views, KNOWN)
    method.after_step(0.5)
    again = make(name)
    again.load_state_dict(copy.deepcopy(method.state_dict()))
    assert torch.equal(method(views, KNOWN).loss, again(views, KNOWN).loss)


@each_method
@pytest.mark.parametrize("options", [{"projektion": 8}, {"temperature2": 1}])
def test_an_unknown_option_is_refused_with_the_known_ones(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(options))) as refusal:
        make(name, **options)
    assert all(known in str(refusal.value) for known in METHODS.get(name).options)


OUT_OF_RANGE: list[tuple[str, dict[str, Any]]] = [
    ("simclr", {"projection": 8.5}), ("simclr", {"projection": -1}), ("moco", {"projection": 0}),
    ("simclr", {"hidden": True}), ("byol", {"projection": 0}),
    ("byol", {"hidden": -1}), ("byol", {"momentum": 2}), ("moco", {"queue": 0}), ("moco", {"queue": 8.5}),
    ("supervised", {"smoothing": 2}),
]  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"memory": 20}, {"mask": "similar"}])
def test_without_a_projection_the_loss_sees_the_features(options: dict[str, Any]) -> None:
    method = make("simclr", projection=0, **options)
    found = method.represent(batch())
    assert torch.equal(found["z"], found["features"]) and found["z"].requires_grad
    for _ in range(2):  # the second step meets what the first left in memory
        outcome = method.compare(method.represent(batch()), KNOWN)
    assert outcome.loss.isfinite() and not list(method.head.parameters())


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simclr", {"projection": "8"}),
        ("moco", {"queue": None}),
        *OUT_OF_RANGE,
    ],
)
def test_an_impossible_value_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(options))):
        make(name, **options)


@pytest.mark.parametrize(("name", "views"), [("byol", 1), ("byol", 3), ("moco", 1), ("moco", 3), ("simclr", 1)])
def test_a_wrong_number_of_views_is_refused(name: str, views: int) -> None:
    with pytest.raises(BadInput, match="views"):
        make(name)(batch(views=views))


@pytest.mark.parametrize(("name", "expected"), [("moco", lambda p: 0.9), ("byol", lambda p: rising(0.9, p))])
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
@torch.no_grad()
def test_the_teacher_follows_by_the_formula(name: str, expected: Any, progress: float) -> None:
    method = make(name, momentum=0.9)
    student = nn.Sequential(method.encoder, method.head if name == "moco" else method.projector)
    for parameter in student.parameters():
        parameter.add_(torch.randn_like(parameter))
    before = [p.clone() for p in method.teacher.parameters()]
    m = expected(progress)
    method.after_step(progress)
    for old, new, own in zip(before, method.teacher.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(new, m * old + (1 - m) * own)


def test_a_teacher_is_apart_and_equal() -> None:
    net = nn.Linear(3, 2)
    teacher = Teacher(net)
    (weight, bias), x = teacher.parameters(), torch.randn(5, 3)
    assert (
        torch.equal(weight, net.weight)
        and weight is not net.weight
        and set(teacher.state_dict()) == {"0.weight", "0.bias"}
    )
    assert not weight.requires_grad and not bias.requires_grad and net.weight.requires_grad
    assert (
        torch.equal(teacher.of_views([x, -x]), torch.stack([net(x), net(-x)], 1))
        and not teacher.of_views([x]).requires_grad
    )
    before = weight.clone()
    with torch.no_grad():
        net.weight.add_(1)
    teacher.follow(1.0)
    assert torch.equal(weight, before)


def test_momentum_rises_on_a_cosine() -> None:
    values = [rising(0.99, i / 10) for i in range(11)]
    assert values[0] == pytest.approx(0.99) and values[-1] == 1 and values == sorted(values)
    assert values[5] == pytest.approx(0.995)
    assert values[2] == pytest.approx(1 - 0.01 * (math.cos(math.pi * 0.2) + 1) / 2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(length=st.integers(1, 12), pushes=st.lists(st.integers(0, 30), max_size=8))
def test_the_queue_holds_the_last_keys_oldest_first(length: int, pushes: list[int]) -> None:
    queue = Queue(length, 2)
    model = deque(map(tuple, queue.keys.tolist()), maxlen=length)
    number = 0
    for size in pushes:
        keys = torch.arange(number, number + size).float()[:, None].repeat(1, 2)
        number += size
        queue.push(keys)
        model.extend(map(tuple, keys.tolist()))
        at = int(queue.position)
        assert 0 <= at < length
        assert list(map(tuple, queue.keys.roll(-at, 0).tolist())) == list(model)


def test_moco_enters_normalised_keys_when_training_only() -> None:
    method, views = make("moco"), batch()
    start = method.queue.keys.clone()
    torch.testing.assert_close(start.norm(dim=1), torch.ones(20))
    method.eval()(views)
    assert torch.equal(method.queue.keys, start) and int(method.queue.position) == 0
    method.train()(views)
    assert int(method.queue.position) == 6 and torch.equal(method.queue.keys[6:], start[6:])
    assert not torch.equal(method.queue.keys[:6], start[:6])
    torch.testing.assert_close(method.queue.keys.norm(dim=1), torch.ones(20))


def test_views_of_several_sizes_keep_their_order() -> None:
    method = make("simclr").eval()
    views = [*batch(views=2), *batch(views=2, size=8), *batch(views=1)]
    for features, view in zip(method.encode(views).unbind(1), views, strict=True):
        torch.testing.assert_close(features, method.encoder(view), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("views", [1, 2])
def test_supervised_passes_over_items_without_a_label(smoothing: float, views: int) -> None:
    method = make("supervised", smoothing=smoothing).eval()
    labels = torch.tensor([0, -1, 2, -1, 1, -1])
    known = labels >= 0
    every, x = batch(views=views), [v[known] for v in batch(views=views)]
    ours, expected = method(every, Known(labels)), method(x, Known(labels[known]))
    torch.testing.assert_close(ours.loss, expected.loss)
    torch.testing.assert_close(ours.watch["accuracy"], expected.watch["accuracy"])


def test_supervised_takes_a_batch_without_any_label() -> None:
    outcome = make("supervised")(batch(), Known(torch.full((6,), -1)))
    outcome.loss.backward()
    assert outcome.loss.isfinite()
