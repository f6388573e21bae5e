"""One of several processes: computes its part of a step and writes what it found; see test_distributed.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import fastness as fs
from conftest import on_pictures, required
from fastness.core import distributed
from fastness.core.recipe import Recipe
from fastness.encoders import Encoder, build
from fastness.encoders.batch_norm import synchronise
from fastness.encoders.image import ImageSpec
from fastness.losses import LOSSES
from fastness.methods import METHODS, Known, Method
from fastness.training import plan
from fastness.training.assembly import assemble, fitted, make_loop
from fastness.training.batches import Batch
from fastness.training.gradient_cache import cached_step
from fastness.training.loop import Loop, Settings

ITEMS = 12
CASES: list[tuple[str, dict[str, Any]]] = [
    ("simclr", {}),
    ("simclr", {"mask": "neighbours", "neighbours": 2}),
    ("simclr", {"mask": "label"}),
    ("simclr", {"memory": 16}),
    ("moco", {"queue": 20}),
    ("byol", {}),
    ("supcon", {"loss": "sigmoid", "memory": 16}),
    ("siamese", {}),
    ("triplet", {"mining": "all"}),
    ("triplet", {"mining": "hard"}),
    ("semi", {}),
    ("supervised", {}),
    *(("supcon", {"loss": loss}) for loss in LOSSES),
]
CASES += [(name, {}) for name in on_pictures() if METHODS.get(name).sides == 1 and name not in dict(CASES)]


def make(case: int, norm: bool) -> Method:
    """Return a small method in float64; without ``norm`` nothing in it looks across items."""
    name, options = CASES[case]
    torch.manual_seed(0)
    kind = METHODS.get(name)
    sizes = {option: size for option, size in (("projection", 5), ("hidden", 7)) if option in kind.options}
    encoder: Encoder = build(ImageSpec("resnet18", 8, {"width": 4, "stem": "small"}))
    method = kind(encoder, 0.3, classes=3, **required(name), **sizes, **options).double().train()
    if not norm:
        for part in method.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.eval()
    return method


def batch(rows: slice) -> Batch:
    """Return some items of the batch."""
    generator = torch.Generator().manual_seed(3)
    views = [torch.randn(ITEMS, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    labels = torch.randint(-1, 3, (ITEMS,), generator=generator)
    return Batch([view[rows] for view in views], Known(labels=labels[rows]))


def step(case: int, cached: bool) -> dict[str, torch.Tensor]:
    """Make two steps' gradients; return loss, gradients and buffers."""
    method = make(case, norm=not cached)
    if distributed.size() > 1:
        synchronise(method)
    items = ITEMS // distributed.size()
    first = items * distributed.rank()
    for _ in range(2):
        if cached:
            half = items // 2
            rows = [slice(first, first + half), slice(first + half, first + items)]
            halves = [batch(r) for r in rows]
            outcome = cached_step(method, lambda halves=halves: iter(halves), torch.Tensor.backward, 0)
        else:
            mine = batch(slice(first, first + items))
            outcome = method(mine.views, mine.known)
            outcome.loss.backward()
    distributed.average_gradients(method.parameters())
    found = {f"gradient/{n}": p.grad for n, p in method.named_parameters() if p.grad is not None}
    found |= {f"buffer/{name}": value for name, value in method.named_buffers()}
    return {**found, "loss": distributed.total(outcome.loss.detach()) / distributed.size()}


def everything() -> dict[str, torch.Tensor]:
    """Return what all cases give."""
    return {
        f"{case}/{cached}/{name}": value
        for case in range(len(CASES))
        for cached in (False, True)
        for name, value in step(case, cached).items()
    }


def loop(folder: Path) -> Loop:
    """Return the loop of a small run, before its first step."""
    dataset = fs.open_data("digits").split("train").select(np.arange(100))
    asked = Recipe(method="moco", width=4, size=16, batch_size=12, steps=6, precision="float32", options={"queue": 64})
    recipe = plan.complete(asked, dataset, torch.device("cpu"))
    images, encoder = fitted(recipe, dataset)
    method, views = assemble(images, recipe, encoder)
    return make_loop(method, views, images, recipe, torch.device("cpu"), folder, Settings())


def start_run(folder: Path, steps: int) -> None:
    """Make the first steps and save."""
    run = loop(folder)
    run.fix_length()
    source = run.source(0, run.total)
    while run.step < steps:
        run.update(source, run.step, run.total)
        run.step += 1
    run.save()


if __name__ == "__main__":
    distributed.start("cpu")
    if len(sys.argv) > 2:
        start_run(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        torch.save(everything(), Path(sys.argv[1]) / f"{distributed.size()}-{distributed.rank()}.pt")
    distributed.wait()
    distributed.stop()
