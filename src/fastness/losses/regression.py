"""The loss of methods without negatives."""

from __future__ import annotations

import torch

from fastness.core import distributed
from fastness.losses.precision import in_float32, normalised


@in_float32
def cosine_regression(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``2 - 2 cos``, the squared distance of normalised vectors.

    Grill et al. 2020 (BYOL, arXiv 2006.07733), equation 2.

    Args:
        prediction, target: float ``[B, D]``; need not be normalised. Detach the target yourself.
    """
    return distributed.mean(2 - 2 * (normalised(prediction) * normalised(target)).sum(1))
