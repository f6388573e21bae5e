"""The gradient cache: parts of a batch give the gradient of the whole, for every loss and every method."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from conftest import on_pictures, required
from fastness.encoders.image import ImageEncoder, ImageSpec
from fastness.losses import LOSSES
from fastness.methods import METHODS, Known, Method
from fastness.training.batches import Batch
from fastness.training.gradient_cache import cached_step

ITEMS, VIEWS, PART = 12, 2, 4


class Net(nn.Module):
    """A small network that looks at each item alone, with dropout if asked."""

    dim = 6

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 10), nn.Tanh(), nn.Dropout(dropout), nn.Linear(10, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


def method(name: str, dropout: float = 0.0, **options: object) -> Method:
    torch.manual_seed(0)
    encoder = ImageEncoder(Net(dropout), ImageSpec("module", 4))
    sizes = {"projection": 5, "hidden": 7} if "projection" in METHODS.get(name).options else {}
    if name == "moco":
        sizes["queue"] = 20
    made = METHODS.get(name)(encoder, 0.3, classes=3, **{**required(name), **sizes, **options}).double().train()
    for part in made.modules():  # heads look at each item alone too
        if isinstance(part, nn.BatchNorm1d):
            part.eval()
    return made


def parts(size: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(3)
    views = [torch.randn(ITEMS, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(VIEWS)]
    labels = torch.randint(-1, 3, (ITEMS,), generator=generator)
    groups = torch.randint(0, 5, (ITEMS,), generator=generator)
    scores = torch.rand(ITEMS, generator=generator)
    scores[1] = torch.nan
    for first in range(0, ITEMS, size):
        rows = slice(first, first + size)
        yield Batch([view[rows] for view in views], Known(labels[rows], groups[rows], scores[rows]))


def whole(made: Method) -> torch.Tensor:
    batch = next(parts(ITEMS))
    outcome = made(batch.views, batch.known)
    outcome.loss.backward()
    return outcome.loss.detach()


CASES = [
    *((name, {}) for name in on_pictures()),
    *(("simclr", {"loss": loss}) for loss in LOSSES),
    *(("supcon", {"loss": loss}) for loss in LOSSES),
    ("simclr", {"learned_temperature": True}),
    ("supcon", {"memory": 30}),
    *(("simclr", {"mask": mask}) for mask in ("label", "group", "similar", "neighbours")),
    *(("triplet", {"mining": mining}) for mining in ("all", "hard")),
]


@pytest.mark.parametrize("part", [PART, 3, ITEMS])
@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{'-'.join(map(str, o.values()))}" for n, o in CASES])
def test_gradients_losses_and_state_are_those_of_the_whole_batch(name: str, options: dict, part: int) -> None:
    one, other = method(name, **options), method(name, **options)
    for step in range(2):  # the second step meets what the first left in queue and memory
        expected = whole(one)
        outcome = cached_step(other, lambda: parts(part), torch.Tensor.backward, seed=step)
        torch.testing.assert_close(outcome.loss, expected, rtol=1e-9, atol=1e-12)
    for (key, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), key
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-6, atol=1e-12, msg=key)
    for (key, a), b in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-12, msg=key)


def test_random_states_are_replayed() -> None:
    """With dropout: the gradient is that of the very values that the loss saw, by finite differences."""
    made = method("simclr", dropout=0.5)
    weight = made.encoder.backbone.layers[1].weight

    def loss() -> torch.Tensor:
        return cached_step(made, lambda: parts(PART), lambda x: None if x.grad_fn is None else x.backward(), 7).loss

    made.zero_grad()
    loss()
    assert weight.grad is not None
    gradient = weight.grad.clone()
    step = 1e-6
    for at in [(0, 0), (3, 20), (9, 47)]:
        with torch.no_grad():
            weight[at] += step
        above = loss()
        with torch.no_grad():
            weight[at] -= 2 * step
        below = loss()
        with torch.no_grad():
            weight[at] += step
        torch.testing.assert_close(gradient[at], (above - below) / (2 * step), rtol=1e-4, atol=1e-7)


def test_batch_statistics_are_those_of_the_parts_and_counted_once() -> None:
    """What it cannot do, said in its docstring: running statistics follow the parts, one after the other."""
    made = method("byol")
    norm = next(m for m in made.projector if isinstance(m, nn.BatchNorm1d)).train()
    cached_step(made, lambda: parts(PART), torch.Tensor.backward, 0)
    assert int(norm.num_batches_tracked) == ITEMS // PART
