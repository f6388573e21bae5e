"""Cross entropy of positives among all others: NT-Xent, InfoNCE, SupCon and CLIP's loss are this one function.

They differ in who is compared with whom, which is what `Pairs` says.
"""

from __future__ import annotations

import torch

from fastness.core import distributed
from fastness.losses import LOSSES
from fastness.losses.base import Loss
from fastness.losses.pairs import Pairs, among, between
from fastness.losses.precision import in_float32, normalised
from fastness.losses.stream import log_mass


@in_float32
def cross_entropy(pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
    """Return ``mean_i [ log sum_{j != i} exp(s_ij) - mean_{p in P(i)} s_ip ]`` with ``s = scale * cosine``.

    * a batch of views against itself: NT-Xent, Chen et al. 2020 (arXiv 2002.05709), equation 1;
    * with labels as keys: SupCon, Khosla et al. 2020 (arXiv 2004.11362), equation 2;
    * against a queue: InfoNCE, Oord et al. 2018 (arXiv 1807.03748), He et al. 2020 (arXiv 1911.05722), equation 1;
    * one side against the other: half of CLIP's, Radford et al. 2021 (arXiv 2103.00020), section 2.3; see `symmetric`.

    N vectors that are all equal give log(N - 1). Memory is that of `log_mass`.
    """
    mass = log_mass(scale * pairs.anchors, pairs.candidates, pairs.others)
    counted = pairs.positive_counts() > 0
    return distributed.mean(mass.where(counted, mass.new_zeros(())) - pairs.positive_means(scale), counted)


def nt_xent(z: torch.Tensor, views: int, temperature: float) -> torch.Tensor:
    """Return SimCLR's loss of ``z``, float ``[views * B, D]``, view after view; see `cross_entropy`."""
    items = len(z) // views
    keys = distributed.rank() * items + torch.arange(items, device=z.device)
    return cross_entropy(among(z, keys.repeat(views)), 1 / temperature)


@in_float32
def info_nce(query: torch.Tensor, key: torch.Tensor, negatives: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return MoCo's loss: query ``i [B, D]`` finds key ``i`` among it and the queue ``[K, D]`` of unit vectors.

    The keys of other items of the batch are not compared with; else it is `cross_entropy`.
    """
    query, key = normalised(query) / temperature, normalised(key)
    positive = (query * key).sum(1)
    return distributed.mean(torch.logaddexp(positive, log_mass(query, negatives.to(query.dtype))) - positive)


def clip(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """Return the symmetric loss of two sides, float ``[B, D]`` each: row i of one belongs to row i of the other."""
    keys = distributed.rank() * len(x) + torch.arange(len(x), device=x.device)
    return (cross_entropy(between(x, y, keys), scale) + cross_entropy(between(y, x, keys), scale)) / 2


@LOSSES.register("nt-xent")
class NTXent(Loss):
    """cross entropy of positives among all others (NT-Xent, InfoNCE, SupCon)"""

    def forward(self, pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
        """See `cross_entropy`."""
        return cross_entropy(pairs, scale)
