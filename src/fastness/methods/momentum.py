"""Momentum encoders and queues: the parts that MoCo and BYOL share."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """Return a copy that gets no gradients."""
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher's parameters towards the student's: ``t = m t + (1 - m) s``.

    Batch statistics are the teacher's own, gathered in its own forward passes.
    """
    ours: list[torch.Tensor] = list(teacher.parameters())
    theirs = [p.detach() for p in student.parameters()]
    torch._foreach_lerp_(ours, theirs, 1 - momentum)


def rising(start: float, progress: float) -> float:
    """Return a momentum that rises from ``start`` to 1 on a cosine (BYOL, arXiv 2006.07733, section 3.2)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


class Queue(nn.Module):
    """The last ``length`` keys, oldest replaced first; part of the state, so that a resumed run has it too."""

    keys: torch.Tensor
    position: torch.Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        start = torch.nn.functional.normalize(torch.randn(length, dim, generator=generator), dim=1)
        self.register_buffer("keys", start)
        self.register_buffer("position", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: torch.Tensor) -> None:
        """Enter normalised keys ``[B, D]``; of more than fit, the last."""
        keys = keys[-len(self.keys) :].to(self.keys.dtype)
        at = (self.position + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[at] = keys
        self.position.copy_((self.position + len(keys)) % len(self.keys))
