"""Blur: Gaussian, defocus, glass, motion, zoom."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F

from fastness.corruptions.image import corruption, uniform
from fastness.corruptions.resample import gaussian, motion, zoomed


@corruption("gaussian_blur", (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0))
def gaussian_blur(images: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Filter with a Gaussian of so many pixels."""
    return gaussian(images, sigma)


@functools.lru_cache(maxsize=16)
def _disk(radius: float, alias: float) -> torch.Tensor:
    """Return a disk, softened by a small Gaussian; at least 17 pixels wide, float ``[K, K]`` with sum 1."""
    half, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    grid = np.arange(-half, half + 1)
    disk = (grid[:, None] ** 2 + grid[None, :] ** 2 <= radius**2).astype(float)
    disk /= disk.sum()
    soft = np.exp(-0.5 * ((np.arange(taps) - taps // 2) / alias) ** 2)
    soft /= soft.sum()
    padded = np.pad(disk, taps // 2, mode="reflect")
    padded = sum(w * padded[i : i + len(grid)] for i, w in enumerate(soft))
    softened = sum(w * padded[:, i : i + len(grid)] for i, w in enumerate(soft))
    used = int(np.abs(grid[np.nonzero(softened > 1e-12)[0]]).max())  # what is nothing needs no products
    return torch.from_numpy(softened[half - used : half + used + 1, half - used : half + used + 1]).float()


@corruption(
    "defocus_blur",
    ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
)
def defocus_blur(images: torch.Tensor, lens: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """Filter with a disk; at the border the image is mirrored, the last pixel once."""
    kernel = _disk(*lens).to(images.device)
    pad = kernel.shape[0] // 2
    padded = F.pad(images, [pad] * 4, mode="reflect") if pad else images
    return F.conv2d(padded, kernel.expand(images.shape[1], 1, -1, -1), groups=images.shape[1])


@corruption(
    "glass_blur",
    ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
)
def glass_blur(images: torch.Tensor, glass: tuple[float, int, int], generator: torch.Generator) -> torch.Tensor:
    """Blur, let each pixel in turn take its value from one nearby, blur.

    The published script means to exchange two pixels, but reads one through the other, so one value is copied onto the
    other's place; figures that are known were made so.
    """
    sigma, reach, turns = glass
    pixels = gaussian(images, sigma).clamp_(0, 1).mul_(255).add_(1e-4).floor_()
    count, size = len(pixels), pixels.shape[-1]
    inner = size - 2 * reach
    for _ in range(turns):
        shift = torch.randint(-reach, reach, (2, inner * inner, count), generator=generator, device=images.device)
        walk = _walk if reach > 1 else _stride
        pixels = walk(pixels, shift.view(2, inner, inner, count), reach)
    return gaussian(pixels / 255, sigma)


def _walk(pixels: torch.Tensor, shift: torch.Tensor, reach: int) -> torch.Tensor:
    """Visit the inner pixels of ``[B, C, S, S]`` from the last to the first; each takes the value ``shift`` away.

    Args:
        shift: down and right, in [-reach, reach), ``[2, S - 2 reach, S - 2 reach, B]`` in the order of the visits.
    """
    count, channels, size, _ = pixels.shape
    cells = pixels.permute(2, 3, 1, 0).contiguous().view(size * size, channels, count)  # a pixel of all in one piece
    away = shift[0] * size + shift[1]
    for i, row in enumerate(range(size - reach, reach, -1)):
        for j, column in enumerate(range(size - reach, reach, -1)):
            here = row * size + column
            cells[here] = cells.gather(0, (away[i, j] + here)[None, None].expand(1, channels, count))[0]
    return cells.view(size, size, channels, count).permute(3, 2, 0, 1)


def _stride(pixels: torch.Tensor, shift: torch.Tensor, reach: int) -> torch.Tensor:
    """Do the same at once, for a reach of 1: shifts are up and left then, to pixels that are not visited before."""
    size = pixels.shape[-1]
    at = torch.arange(size, device=pixels.device)
    source = (at[:, None] * size + at).expand(len(pixels), size, size).clone()
    source[:, reach + 1 :, reach + 1 :] += (shift[0] * size + shift[1]).permute(2, 0, 1).flip(1, 2)
    return pixels.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, pixels.shape[1], -1)).view_as(pixels)


@corruption(
    "motion_blur",
    ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
)
def motion_blur(images: torch.Tensor, way: tuple[int, float], generator: torch.Generator) -> torch.Tensor:
    """Blur along a direction within 45 degrees of the horizontal."""
    return motion(images, *way, uniform((len(images),), -45, 45, generator))


@corruption(
    "zoom_blur",
    [np.arange(1, end, 0.01) for end in (1.06, 1.11, 1.16, 1.21, 1.26)],
    [np.arange(1, end, step) for end, step in ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))],
)
def zoom_blur(images: torch.Tensor, factors: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    """Take the mean of the image and of its middle at many enlargements."""
    total = images.clone()
    for factor in factors:
        total += zoomed(images, float(factor))
    return total.div_(len(factors) + 1)
