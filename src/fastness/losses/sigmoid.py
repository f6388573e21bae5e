"""Each pair judged alone: is it positive or negative?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from fastness.core import distributed
from fastness.core.options import Option
from fastness.losses import LOSSES
from fastness.losses.base import Loss
from fastness.losses.curves import softplus, softplus_of_minus
from fastness.losses.pairs import Pairs
from fastness.losses.precision import in_float32
from fastness.losses.stream import row_sum


@in_float32
def pairwise_sigmoid(pairs: Pairs, scale: torch.Tensor | float, bias: torch.Tensor | float) -> torch.Tensor:
    """Return ``mean_i sum_j log(1 + exp(-y_ij (s_ij + bias)))``, y = 1 for positives, -1 for negatives.

    Zhai et al. 2023 (SigLIP, arXiv 2303.15343), algorithm 1, with ``s = scale * cosine``.
    """
    a, b = scale * pairs.anchors, pairs.candidates
    shift = torch.as_tensor(bias, dtype=a.dtype, device=a.device).expand(len(a))
    terms = row_sum(a, b, softplus, pairs.negatives, shift) + row_sum(a, b, softplus_of_minus, pairs.positives, shift)
    return distributed.mean(terms)


@LOSSES.register("sigmoid")
class Sigmoid(Loss):
    """each pair judged alone, with a learned bias (SigLIP)"""

    options: ClassVar[Mapping[str, Option]] = {"bias": Option(-10.0, help="at the start; it is learned")}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.bias = nn.Parameter(torch.tensor(float(self.settings["bias"])))

    def forward(self, pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
        """See `pairwise_sigmoid`."""
        return pairwise_sigmoid(pairs, scale, self.bias)
