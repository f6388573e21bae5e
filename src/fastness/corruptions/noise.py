"""Noise: Gaussian, shot, impulse, speckle."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from fastness.corruptions.image import corruption, normal

_PARTS = 8  # of a batch; not the number of threads, so that results do not depend on it


@corruption("gaussian_noise", (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))
def gaussian_noise(images: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Add normal noise of standard deviation ``sigma``."""
    return normal(images.shape, generator).mul_(sigma).add_(images)


@corruption("shot_noise", (500, 250, 100, 75, 50), (60, 25, 12, 5, 3))
def shot_noise(images: torch.Tensor, photons: int, generator: torch.Generator) -> torch.Tensor:
    """Count photons: Poisson numbers, ``photons`` for full brightness."""
    rate = images * photons
    if rate.device.type != "cpu":
        return torch.poisson(rate, generator=generator).div_(photons)
    # Torch draws them on one core: parts of the batch draw from seeds of their own, side by side.
    seeds = torch.randint(1 << 62, (_PARTS,), generator=generator).tolist()

    def drawn(part: torch.Tensor, seed: int) -> torch.Tensor:
        return torch.poisson(part, generator=torch.Generator().manual_seed(seed))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.cat(list(pool.map(drawn, rate.tensor_split(_PARTS), seeds))).div_(photons)


@corruption("impulse_noise", (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))
def impulse_noise(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Salt and pepper: a share of all values becomes 0 or 1, as often one as the other."""
    lots = torch.rand(images.shape, generator=generator, device=images.device)
    return torch.where(lots < share, (lots < share / 2).to(images.dtype), images)


@corruption("speckle_noise", (0.06, 0.10, 0.12, 0.16, 0.20), (0.15, 0.20, 0.35, 0.45, 0.60))
def speckle_noise(images: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Multiply by normal noise around 1."""
    return normal(images.shape, generator).mul_(sigma).add_(1).mul_(images)
