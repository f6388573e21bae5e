"""Elementwise functions for `row_sum`: each returns values and slopes, both 0 at minus infinity.

Minus infinity marks pairs that do not count, so a function that is not 0 there strikes them out itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Pair = tuple[torch.Tensor, torch.Tensor]


def softplus(x: torch.Tensor) -> Pair:
    """Return ``log(1 + exp(x))``."""
    return F.softplus(x), torch.sigmoid(x)


def softplus_of_minus(x: torch.Tensor) -> Pair:
    """Return ``log(1 + exp(-x))``."""
    out = x == float("-inf")
    return F.softplus(-x).masked_fill_(out, 0), (-torch.sigmoid(-x)).masked_fill_(out, 0)


def squared_distance(x: torch.Tensor) -> Pair:
    """Return ``d^2 = 2 - 2 x`` of unit vectors with cosine ``x``."""
    out = x == float("-inf")
    return (2 - 2 * x).masked_fill_(out, 0), torch.full_like(x, -2).masked_fill_(out, 0)


def squared_shortfall(margin: float) -> Callable[[torch.Tensor], Pair]:
    """Return ``max(0, margin - d)^2`` of the distance ``d = sqrt(2 - 2 x)`` of unit vectors with cosine ``x``.

    Its slope is infinite at d = 0; there it is that at d = 1e-6 (two equal vectors have no direction apart).
    """

    def curve(x: torch.Tensor) -> Pair:
        distance = (2 - 2 * x).clamp_min(0).sqrt()
        lack = (margin - distance).clamp_min(0)
        return lack.square(), 2 * lack / distance.clamp_min(1e-6)

    return curve
