"""InfoNCE against a queue of negatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastness.losses.precision import in_float32, normalised


@in_float32
def info_nce(query: torch.Tensor, key: torch.Tensor, negatives: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross entropy of each query's own key among it and the negatives.

    Oord et al. 2018 (arXiv 1807.03748); with a queue, He et al. 2020 (MoCo, arXiv 1911.05722), equation 1.

    Args:
        query, key: float ``[B, D]``, row i of one belongs to row i of the other; need not be normalised.
        negatives: float ``[K, D]``, normalised.
        temperature: divides the cosine similarities; positive.

    Returns:
        the mean over the queries, a scalar.
    """
    query, key = normalised(query), normalised(key)
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ negatives.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))
