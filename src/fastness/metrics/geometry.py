"""Shape of a cloud of embeddings: is it spread, is it collapsed, do positives meet?"""

from __future__ import annotations

import torch

from fastness.metrics import rank


def alignment(x: torch.Tensor, y: torch.Tensor) -> float:
    """Mean squared distance of positives, ``[N, D]`` each, normalised; 0 is perfect.

    Wang and Isola 2020 (arXiv 2005.10242), with alpha = 2.
    """
    return float((x - y).square().sum(1).mean())


def uniformity(x: torch.Tensor, t: float = 2.0) -> float:
    """Log of the mean Gaussian potential between all pairs of ``[N, D]``, normalised; lower is more uniform.

    Wang and Isola 2020 (arXiv 2005.10242). 0 means that all points are one; uniform points on a sphere of
    many dimensions come near -2t. Uses N² memory, so give a sample of at most a few thousand rows.
    """
    return float(torch.pdist(x).square().mul(-t).exp().mean().log()) if len(x) > 1 else 0.0


def effective_rank(x: torch.Tensor) -> float:
    """Return the effective rank of ``[N, D]``, in [1, min(N - 1, D)]; see `rank.effective`."""
    if not bool(torch.isfinite(x).all()):
        return 1.0  # a network that has come apart
    return rank.effective(torch.linalg.svdvals((x - x.mean(0)).double()).detach().cpu().numpy())


def feature_std(x: torch.Tensor) -> float:
    """Mean standard deviation of a dimension of normalised ``[N, D]`` times sqrt(D).

    Near 1 for points spread over the sphere, 0 for one point (Chen and He 2021, arXiv 2011.10566, figure 2).
    """
    return float(x.std(0).mean() * x.shape[1] ** 0.5)
