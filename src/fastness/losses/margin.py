"""The loss of Siamese networks: positives together, negatives at least a margin apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from fastness.core import distributed
from fastness.core.options import Option
from fastness.losses import LOSSES
from fastness.losses.base import Loss
from fastness.losses.curves import squared_distance, squared_shortfall
from fastness.losses.pairs import Pairs
from fastness.losses.precision import in_float32
from fastness.losses.stream import log_mass, row_sum


@in_float32
def margin_contrastive(pairs: Pairs, margin: float = 1.0) -> torch.Tensor:
    """Return the mean over all positive pairs of ``d^2`` plus that over all negative pairs of ``max(0, margin - d)^2``.

    Hadsell, Chopra, LeCun 2006, equation 4 (without its factor 1/2), ``d`` being the distance of unit vectors;
    positives and negatives have equal weight, since a batch has many more negatives.
    """
    dtype, pairs = pairs.anchors.dtype, pairs.in_float64()
    a, b = pairs.anchors, pairs.candidates
    with torch.no_grad():
        negatives = log_mass(torch.zeros_like(a), b, pairs.negatives).exp()
    near = row_sum(a, b, squared_distance, pairs.positives)
    far = row_sum(a, b, squared_shortfall(margin), pairs.negatives)
    return (_share(near, pairs.positive_counts()) + _share(far, negatives)).to(dtype)


def _share(sums: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    return sums.sum() * distributed.size() / distributed.total(numbers.sum().to(sums.dtype)).clamp_min(1)


@LOSSES.register("margin")
class Margin(Loss):
    """positives together, negatives a margin apart (Siamese networks)"""

    options: ClassVar[Mapping[str, Option]] = {"margin": Option(1.0, 0, 2, help="distance that negatives should have")}
    uses_scale = False

    def forward(self, pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
        """See `margin_contrastive`."""
        return margin_contrastive(pairs, self.settings["margin"])
