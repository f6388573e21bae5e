"""Decoupled contrastive learning: the positive leaves the denominator."""

from __future__ import annotations

import torch

from fastness.core import distributed
from fastness.losses import LOSSES
from fastness.losses.base import Loss
from fastness.losses.pairs import Pairs
from fastness.losses.precision import in_float32
from fastness.losses.stream import log_mass


@in_float32
def decoupled(pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
    """Return ``mean_i [ log sum_{n in N(i)} exp(s_in) - mean_{p in P(i)} s_ip ]`` with ``s = scale * cosine``.

    Yeh et al. 2022 (arXiv 2110.06848), equation 6. Can be negative; N equal pairs of vectors that are all equal
    give log(2N - 2). Anchors without a negative are not counted.
    """
    mass = log_mass(scale * pairs.anchors, pairs.candidates, pairs.negatives)
    counted = (pairs.positive_counts() > 0) & mass.isfinite()
    return distributed.mean(mass.where(counted, mass.new_zeros(())) - pairs.positive_means(scale), counted)


@LOSSES.register("decoupled")
class Decoupled(Loss):
    """positives leave the denominator: less sensitive to small batches (DCL)"""

    def forward(self, pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
        """See `decoupled`."""
        return decoupled(pairs, scale)
