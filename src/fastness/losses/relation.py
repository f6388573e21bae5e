"""The loss of a student whose neighbours are to be its teacher's."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastness.core import distributed
from fastness.losses.precision import in_float32, normalised


@in_float32
def relation(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean divergence of whom the student finds near each item from whom the teacher does.

    For each row the cosines to all other rows (of all processes), over the temperature, are two distributions; the
    divergence is KL(teacher, student). It is 0 where all cosines agree up to a constant, whatever the two lengths of
    vectors are. After SEED (Fang et al. 2021, arXiv 2101.04731), equation 3, with the batch in place of its queue and
    one temperature for both, so that the optimum are the teacher's own cosines.

    Args:
        student: float ``[B, D]``; need not be normalised, as the teacher's.
        teacher: float ``[B, E]``; without a gradient. B x B similarities are held.
        temperature: small ones look at the nearest alone.
    """
    theirs, ours = (_log_shares(vectors, temperature) for vectors in (teacher.detach(), student))
    return distributed.mean(F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1))


def _log_shares(vectors: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the logarithm of each row's share in what is near, ``[B, rows of all processes]``; the own has none."""
    unit = normalised(vectors)
    cosines = unit @ distributed.gathered(unit).T / temperature
    own = torch.arange(len(unit), device=unit.device) + distributed.rank() * len(unit)
    # Not minus infinity, whose product with a share of 0 is no number.
    return cosines.scatter(1, own[:, None], -1e4).log_softmax(1)
