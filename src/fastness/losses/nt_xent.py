"""NT-Xent, the normalised temperature-scaled cross entropy of SimCLR."""

from __future__ import annotations

import torch

from fastness.losses.precision import in_float32, normalised


@in_float32
def nt_xent(z: torch.Tensor, views: int, temperature: float) -> torch.Tensor:
    """Pull views of one item together against all other items of the batch.

    Chen et al. 2020 (arXiv 2002.05709), equation 1. With more than two views each anchor has several
    positives and the loss is the mean of their log-probabilities (Khosla et al. 2020, arXiv 2004.11362,
    equation 2). Equal embeddings give log(views * B - 1).

    Args:
        z: float ``[views * B, D]``, view after view; need not be normalised.
        views: how many views each item has, at least 2.
        temperature: divides the cosine similarities; positive.

    Returns:
        the mean over all anchors, a scalar.
    """
    n = len(z)
    z = normalised(z)
    logits = z @ z.T / temperature
    itself = torch.eye(n, dtype=torch.bool, device=z.device)
    log_p = logits.masked_fill(itself, float("-inf")).log_softmax(1)
    row = torch.arange(n, device=z.device)
    positives = [log_p[row, (row + k * (n // views)) % n] for k in range(1, views)]
    return -torch.stack(positives).mean()
