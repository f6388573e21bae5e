"""Negatives of which some are false, and negatives weighted by how hard they are: one estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch

from fastness.core import distributed
from fastness.core.options import Option
from fastness.losses import LOSSES
from fastness.losses.base import Loss
from fastness.losses.curves import softplus_of_minus
from fastness.losses.pairs import Pairs
from fastness.losses.precision import in_float32
from fastness.losses.stream import log_mass, row_sum


@in_float32
def debiased(pairs: Pairs, scale: torch.Tensor | float, prior: float = 0.0, hardness: float = 0.0) -> torch.Tensor:
    """Return ``mean_i mean_{p in P(i)} log(1 + G_i / exp(s_ip))`` with ``s = scale * cosine``.

    ``G_i`` estimates the mass of ``n`` true negatives from ``n`` drawn ones, of which a share ``prior`` is false,
    weighting each by ``exp(hardness * s)``:

        G = max( (n * R - prior * n * mean_p exp(s_ip)) / (1 - prior),  n * exp(-scale) )
        R = sum_n exp((1 + hardness) s_in) / sum_n exp(hardness * s_in)

    Chuang et al. 2020 (arXiv 2007.00224), equation 8; Robinson et al. 2021 (arXiv 2010.04592), section 3. With
    ``prior = hardness = 0`` and one positive it is NT-Xent. Anchors without a negative are not counted.

    Args:
        prior: share of drawn negatives that are false, in [0, 1).
        hardness: at least 0.
    """
    a, b = scale * pairs.anchors, pairs.candidates
    scale = torch.as_tensor(scale, dtype=a.dtype, device=a.device)
    with torch.no_grad():
        number = log_mass(torch.zeros_like(a), b, pairs.negatives)  # log n
    counts = pairs.positive_counts()
    counted = (counts > 0) & number.isfinite()
    nothing = a.new_zeros(())
    mean = log_mass((1 + hardness) * a, b, pairs.negatives) - (
        log_mass(hardness * a, b, pairs.negatives) if hardness else number
    )
    mean = mean.where(counted, nothing)  # log R
    if prior:
        positive = log_mass(a, b, pairs.positives).where(counted, nothing) - counts.clamp_min(1).log()
        free = math.log(1 - prior)
        mean = _log_minus(mean, math.log(prior) + positive, free - scale) - free
    terms = row_sum(a, b, softplus_of_minus, pairs.positives, shift=-(mean + number.where(counted, nothing)))
    return distributed.mean(terms / counts.clamp_min(1), counted)


def _log_minus(x: torch.Tensor, y: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """Return ``log(exp(x) - exp(y))``, and ``floor`` where that is less or not defined."""
    gap = (y - x).clamp_max(-1e-6)
    out = x + torch.log(-torch.expm1(gap))
    return torch.where((y < x - 1e-6) & (out > floor), out, floor.expand_as(out))


class _Estimated(Loss):
    def forward(self, pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
        """See `debiased`."""
        return debiased(pairs, scale, **self.settings)


_PRIOR = Option(0.1, 0, 0.99, help="share of negatives that are false")


@LOSSES.register("debiased")
class Debiased(_Estimated):
    """corrects for the share of negatives that are false"""

    options: ClassVar[Mapping[str, Option]] = {"prior": _PRIOR}


@LOSSES.register("hard")
class Hard(_Estimated):
    """weights negatives by how hard they are, and corrects for false ones"""

    options: ClassVar[Mapping[str, Option]] = {
        "prior": _PRIOR,
        "hardness": Option(0.5, 0, help="0 weights all negatives alike"),
    }
