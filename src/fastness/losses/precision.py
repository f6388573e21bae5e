"""Losses compute in float32 whatever the precision around them: similarities over a small temperature
leave bfloat16's 8 bits no room."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F

P = ParamSpec("P")
T = TypeVar("T")


def in_float32(loss: Callable[P, T]) -> Callable[P, T]:
    """Return ``loss`` run outside autocast with its floating-point tensor arguments in float32."""

    @functools.wraps(loss)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        given = (getattr(a, "anchors", a) for a in (*args, *kwargs.values()))
        device = next((a.device.type for a in given if isinstance(a, torch.Tensor)), "cpu")

        def widen(value: object) -> object:
            return widened(value) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

        with torch.autocast(device, enabled=False):
            return loss(*map(widen, args), **{k: widen(v) for k, v in kwargs.items()})  # type: ignore[arg-type]

    return run


def widened(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` in float32, or as it is if it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def normalised(z: torch.Tensor) -> torch.Tensor:
    """Return rows of length 1 in at least float32; a row of length below 1e-8 becomes zero and gets no gradient."""
    z = widened(z)
    there = z.norm(dim=-1, keepdim=True) > 1e-8
    return F.normalize(torch.where(there, z, 0.0), dim=-1, eps=1e-8)
