"""A batch larger than memory: the exact gradient of one loss over many parts.

Gao et al. 2021 (GradCache, arXiv 2101.06983). Each part is represented without a graph; the loss of all together
gives the gradient of every representation; each part is represented again, now with a graph, into which its share
of that gradient is fed. Twice the forward passes, the memory of one part.

What it cannot do: a layer that looks across its batch (batch normalisation in training mode) sees one part at a
time, so with such layers the result is that of parts, not of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from fastness.methods.base import Found, Known, Method, Outcome
from fastness.training.batches import Batch


def cached_step(
    method: Method,
    parts: Callable[[], Iterator[Batch]],
    backward: Callable[[torch.Tensor], None],
    seed: int,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Outcome:
    """Add the gradient of the loss of all parts together to the parameters' ``grad``.

    Args:
        method: in the mode (train, eval) that it should be in.
        parts: called twice; yields the same parts, in the same order, both times.
        backward: called with the scalars to differentiate.
        precision: gives the context (autocast) in which parts are represented.
        seed: of the random numbers drawn inside the method (dropout), which are the same in both passes.

    Returns:
        the outcome of the whole; its loss has no graph left.
    """
    buffers = [b.clone() for b in method.buffers()]
    found: list[Found] = []
    known: list[Known] = []
    with torch.no_grad():
        for number, part in enumerate(parts()):
            torch.manual_seed(seed + number)
            with precision():
                found.append(method.represent(part.views))
            known.append(part.known)
        for buffer, before in zip(method.buffers(), buffers, strict=True):
            buffer.copy_(before)  # the second pass is the one that counts
    whole = {name: torch.cat([f[name] for f in found]) for name in found[0]}
    learning = whole[method.learning].requires_grad_()
    with torch.autocast(next(iter(whole.values())).device.type, enabled=False):
        outcome = method.compare(whole, Known.of_parts(known))
    backward(outcome.loss)
    assert learning.grad is not None
    shares = torch.split(learning.grad, [len(f["features"]) for f in found])
    for number, part in enumerate(parts()):
        torch.manual_seed(seed + number)
        with precision():
            again = method.represent(part.views)[method.learning]
        backward((again * shares[number]).sum())  # the scalar whose gradient by ``again`` is its share
    return Outcome(outcome.loss.detach(), outcome.embeddings, outcome.watch)
