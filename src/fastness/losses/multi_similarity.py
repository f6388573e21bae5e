"""Multi-similarity: positives and negatives weighted by how they compare with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F

from fastness.core import distributed
from fastness.core.options import Option
from fastness.losses import LOSSES
from fastness.losses.base import Loss
from fastness.losses.pairs import Above, Pairs, extremes
from fastness.losses.precision import in_float32
from fastness.losses.stream import log_mass


@in_float32
def multi_similarity(
    pairs: Pairs, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1
) -> torch.Tensor:
    """Return the mean over anchors of a pull on mined positives and a push on mined negatives:

        log(1 + sum_p exp(-alpha (s_ip - base))) / alpha + log(1 + sum_n exp(beta (s_in - base))) / beta

    Wang et al. 2019 (arXiv 1904.06627), equations 7 to 9: a negative counts if it is more similar than the least
    similar positive less ``epsilon``, a positive if it is less similar than the most similar negative plus it.
    """
    a, b = pairs.anchors, pairs.candidates
    hardest, _ = extremes(pairs, pairs.negatives)
    furthest, _ = extremes(replace(pairs, anchors=-a), pairs.positives)
    least = -furthest  # cosine of the least similar positive; +inf without one
    far = Above(beta * (least - epsilon))
    # The logits of positives are -alpha * cosine: less similar than a bound is a logit above it.
    near = Above(-alpha * (hardest + epsilon))
    pull = log_mass(-alpha * a, b, (*pairs.positives, near)) + alpha * base
    push = log_mass(beta * a, b, (*pairs.negatives, far)) - beta * base
    return distributed.mean(F.softplus(pull) / alpha + F.softplus(push) / beta, pairs.positive_counts() > 0)


@LOSSES.register("multi-similarity")
class MultiSimilarity(Loss):
    """weights pairs by how they compare with each other; mines in the batch"""

    options: ClassVar[Mapping[str, Option]] = {
        "alpha": Option(2.0, 1e-3, help="how much hard positives weigh"),
        "beta": Option(50.0, 1e-3, help="how much hard negatives weigh"),
        "base": Option(0.5, -1, 1, help="cosine that separates positives from negatives"),
        "epsilon": Option(0.1, 0, 2, help="slack of the mining"),
    }
    uses_scale = False

    def forward(self, pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
        """See `multi_similarity`."""
        return multi_similarity(pairs, **self.settings)
