"""Sums over all pairs of anchors and candidates that never hold all pairs at once.

Anchors ``a [N, D]`` and candidates ``b [M, D]`` have the logits ``a @ b.T``. They are computed a few rows at a
time, reduced, and thrown away; backward computes them again. Memory is N + M vectors and ``CHUNK`` logits,
whatever N, M and the number of positives.

Which pairs take part is said by rules (`fastness.losses.pairs`), which strike logits out by setting them to
minus infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from fastness.losses.precision import in_float32

CHUNK = 1 << 20
"""Logits held at a time (4 MiB in float32), so that they stay in the processor's cache ..."""
ROWS = 128
"""... but never fewer rows than this, as a product with few rows is slow: 32 MiB at 65,536 candidates."""


class Rule(Protocol):
    """Strikes out pairs. A rule depends on the data alone, so that forward and backward agree."""

    def __call__(self, logits: torch.Tensor, rows: slice) -> None:
        """Set the logits ``[rows, M]`` of pairs that do not count to minus infinity, in place."""
        ...


Curve = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""An elementwise function: from logits to its values and its slopes; both 0 at minus infinity."""


def chunks(anchors: int, candidates: int) -> Iterator[slice]:
    """Yield the rows that are worked on together."""
    rows = max(ROWS, CHUNK // max(1, candidates))
    for first in range(0, anchors, rows):
        yield slice(first, min(first + rows, anchors))


def logits_of(a: torch.Tensor, b: torch.Tensor, rows: slice, rules: Sequence[Rule]) -> torch.Tensor:
    """Return the logits ``[rows, M]``, minus infinity where a rule strikes out."""
    logits = a[rows] @ b.T
    for rule in rules:
        rule(logits, rows)
    return logits


@in_float32
def log_mass(a: torch.Tensor, b: torch.Tensor, rules: Sequence[Rule] = ()) -> torch.Tensor:
    """Return ``log sum_j exp(a_i . b_j)`` over the candidates that no rule strikes out.

    Args:
        a: float ``[N, D]``; b: float ``[M, D]``.

    Returns:
        float ``[N]``, minus infinity (with gradient 0) where no candidate is left.
    """
    return _LogMass.apply(a, b, tuple(rules))  # type: ignore[no-any-return]


@in_float32
def row_sum(
    a: torch.Tensor, b: torch.Tensor, curve: Curve, rules: Sequence[Rule] = (), shift: torch.Tensor | None = None
) -> torch.Tensor:
    """Return ``sum_j f(a_i . b_j + shift_i)`` over the candidates that no rule strikes out.

    Args:
        a: float ``[N, D]``; b: float ``[M, D]``; shift: float ``[N]``.
        curve: ``f``.

    Returns:
        float ``[N]``.
    """
    shift = a.new_zeros(len(a)) if shift is None else shift
    return _RowSum.apply(a, b, shift, curve, tuple(rules))  # type: ignore[no-any-return]


class _LogMass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, rules: tuple[Rule, ...]) -> torch.Tensor:
        out = a.new_empty(len(a))
        for rows in chunks(len(a), len(b)):
            logits = logits_of(a, b, rows, rules)
            top = logits.amax(1, keepdim=True).clamp_min(torch.finfo(a.dtype).min)
            out[rows] = logits.sub_(top).exp_().sum(1).log_().add_(top[:, 0])
        ctx.save_for_backward(a, b, out)
        ctx.rules = rules
        return out

    @staticmethod
    @in_float32  # backward() may be called inside autocast
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        a, b, out = ctx.saved_tensors
        # Nothing left: any finite number serves, as exp(-inf - 0) = 0.
        out = torch.where(out.isinf(), torch.zeros_like(out), out)
        da, db = torch.empty_like(a), torch.zeros_like(b)
        for rows in chunks(len(a), len(b)):
            weights = logits_of(a, b, rows, ctx.rules).sub_(out[rows, None]).exp_().mul_(grad[rows, None])
            torch.mm(weights, b, out=da[rows])
            if ctx.needs_input_grad[1]:
                db.addmm_(weights.T, a[rows])
        return da, db if ctx.needs_input_grad[1] else None, None


class _RowSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, shift: torch.Tensor, curve: Curve, rules: tuple[Rule, ...]
    ) -> torch.Tensor:
        out = a.new_empty(len(a))
        for rows in chunks(len(a), len(b)):
            out[rows] = curve(logits_of(a, b, rows, rules).add_(shift[rows, None]))[0].sum(1)
        ctx.save_for_backward(a, b, shift)
        ctx.curve, ctx.rules = curve, rules
        return out

    @staticmethod
    @in_float32  # backward() may be called inside autocast
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        a, b, shift = ctx.saved_tensors
        da, db, dshift = torch.empty_like(a), torch.zeros_like(b), torch.empty_like(shift)
        for rows in chunks(len(a), len(b)):
            slopes = ctx.curve(logits_of(a, b, rows, ctx.rules).add_(shift[rows, None]))[1].mul_(grad[rows, None])
            torch.mm(slopes, b, out=da[rows])
            db.addmm_(slopes.T, a[rows])
            dshift[rows] = slopes.sum(1)
        return da, db, dshift, None, None
