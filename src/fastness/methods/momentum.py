"""Momentum encoders, queues, memories: what methods keep from one step to the next."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from fastness.losses.pairs import NOBODY


class Teacher(nn.Sequential):
    """Copies of an encoder and a head that get no gradients and slowly follow them.

    Batch statistics are the teacher's own, gathered in its own forward passes.
    """

    def __init__(self, *students: nn.Module) -> None:
        super().__init__(*copy.deepcopy(students))
        self._students = students  # in a tuple, so that they are not parts of the teacher
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def of_views(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what it says of each view, ``[B, V, D]``."""
        return torch.stack(self(torch.cat(list(views))).chunk(len(views)), 1)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move its parameters towards the students': ``t = m t + (1 - m) s``."""
        ours: list[torch.Tensor] = list(self.parameters())
        theirs = [p.detach() for student in self._students for p in student.parameters()]
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


class Memory(nn.Module):
    """Unit vectors of earlier batches and their keys: further candidates that get no gradient.

    Wang et al. 2020 (cross-batch memory, arXiv 1912.06798). Vectors whose keys mean nothing in another batch are
    nobody's positives; so is the memory before it is filled.

    Args:
        length: how many vectors are kept.
        dim: their length.
    """

    vectors: torch.Tensor
    keys: torch.Tensor
    filled: torch.Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(length, dim))
        self.register_buffer("keys", torch.full((length,), NOBODY))
        self.register_buffer("filled", torch.zeros(1, dtype=torch.long))

    def held(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return copies of the vectors ``[K, D]`` held so far, and of their keys ``[K]``."""
        number = int(self.filled)
        return self.vectors[:number].clone(), self.keys[:number].clone()

    @torch.no_grad()
    def push(self, vectors: torch.Tensor, keys: torch.Tensor | None, views: int) -> None:
        """Enter unit vectors ``[B * views, D]``, the newest first; ``keys`` int64 ``[B]``."""
        length = len(self.vectors)
        new = vectors.new_full((len(vectors),), NOBODY, dtype=torch.long)
        if keys is not None:
            new = keys.repeat_interleave(views)
        self.vectors.copy_(torch.cat([vectors.to(self.vectors.dtype), self.vectors])[:length])
        self.keys.copy_(torch.cat([new, self.keys])[:length])
        self.filled.copy_((self.filled + len(vectors)).clamp_max(length))
