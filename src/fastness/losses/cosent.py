"""CoSENT: pairs with a higher score should be more similar than pairs with a lower one."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastness.core import distributed
from fastness.losses.precision import in_float32, normalised


@in_float32
def cosent(x: torch.Tensor, y: torch.Tensor, scores: torch.Tensor, scale: float = 20.0) -> torch.Tensor:
    """Return ``log(1 + sum over pairs i, j with score_i > score_j of exp(scale (cos_j - cos_i)))``.

    Su 2022, «CoSENT: a more efficient sentence vector scheme than Sentence-BERT» (kexue.fm/archives/8847). Sorted
    by score, the inner sum is a running one: time P log P and memory P for P pairs, not their square.

    Args:
        x, y: float ``[P, D]``, any length; row i of one is compared with row i of the other.
        scores: float ``[P]``; equal scores are not compared, pairs with NaN not at all.
    """
    logits = scale * distributed.gathered((normalised(x) * normalised(y)).sum(1))
    scores = distributed.gathered(scores)
    logits, scores = logits[~scores.isnan()], scores[~scores.isnan()]  # only now: every process has as many
    scores, order = scores.sort(descending=True)
    logits = logits[order]
    higher = torch.searchsorted(-scores, -scores)  # how many have a score above mine
    running = torch.logcumsumexp(-logits, 0)
    counted = higher > 0
    mass = logits[counted] + running[higher[counted] - 1]
    return F.softplus(torch.logsumexp(mass, 0)) if len(mass) else logits.sum() * 0
