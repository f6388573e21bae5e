"""Spatter: drops of water, or of mud, on the lens."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastness.corruptions.image import corruption, normal
from fastness.corruptions.resample import gaussian

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_NEAR = 20  # pixels: further from an outline all is as far
_ROUNDING = 1e-4  # what float32 means may lack of a whole number
_RELIEF = ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0))


@corruption(
    "spatter",
    (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
)
def spatter(images: torch.Tensor, splash: tuple[float, ...], generator: torch.Generator) -> torch.Tensor:
    """Cover what exceeds a threshold in smooth noise: with pale water that shines at its outlines, or with mud."""
    mean, deviation, smooth, threshold, amount, mud = splash
    count, size = len(images), images.shape[-1]
    liquid = gaussian(normal((count, 1, size, size), generator).mul_(deviation).add_(mean), smooth)
    liquid = torch.where(liquid < threshold, 0.0, liquid)
    if mud:
        cover = gaussian((liquid > threshold).float(), amount)
        cover = torch.where(cover < 0.8, 0.0, cover)
        return images * (1 - cover) + cover * _colour(_MUD, images)
    shine = _relief((liquid * 255).floor_())
    cover = liquid * shine
    cover = cover / cover.amax((1, 2, 3), keepdim=True).clamp_min(1e-6) * amount
    return (images + cover * _colour(_WATER, images)).clamp_(0, 1)


def _colour(parts: tuple[float, float, float], images: torch.Tensor) -> torch.Tensor:
    return torch.tensor(parts, device=images.device)[:, None, None]


def _relief(levels: torch.Tensor) -> torch.Tensor:
    """Return how much light each pixel of a film throws, from its distance to the film's outlines."""
    away = _distance(_outlines(levels)).clamp_max_(_NEAR)
    # The published script cuts the blurred distance off to whole levels, and blurs whole levels at the end.
    away = _equalised((F.avg_pool2d(F.pad(away, [1] * 4, mode="reflect"), 3, 1) + _ROUNDING).floor_())
    relief = torch.tensor(_RELIEF, device=levels.device)[None, None]
    thrown = F.conv2d(F.pad(away, [1] * 4, mode="reflect"), relief).clamp_(0, 255)
    return F.avg_pool2d(F.pad(thrown, [1] * 4, mode="reflect"), 3, 1).round_()


def _outlines(levels: torch.Tensor) -> torch.Tensor:
    """Return bool ``[B, 1, S, S]``: outlines as Canny 1986 finds them, with thresholds 50 and 150."""
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=levels.device)
    padded = F.pad(levels, [1] * 4, mode="replicate")
    slope = F.conv2d(padded, torch.stack([sobel, sobel.T])[:, None])
    dx, dy = slope[:, :1], slope[:, 1:]
    steep = dx.abs() + dy.abs()
    around = F.pad(steep, [1] * 4)
    size = levels.shape[-1]

    def beside(down: int, right: int) -> torch.Tensor:
        return around[:, :, 1 + down : 1 + down + size, 1 + right : 1 + right + size]

    tangent = 0.41421356  # of 22.5 degrees
    level, upright = dy.abs() < tangent * dx.abs(), dx.abs() < tangent * dy.abs()
    same = dx * dy > 0
    before = torch.where(
        level, beside(0, -1), torch.where(upright, beside(-1, 0), torch.where(same, beside(-1, -1), beside(-1, 1)))
    )
    after = torch.where(
        level, beside(0, 1), torch.where(upright, beside(1, 0), torch.where(same, beside(1, 1), beside(1, -1)))
    )
    crest = (steep > before) & torch.where(level | upright, steep >= after, steep > after)
    weak, found = crest & (steep > 50), crest & (steep > 150)
    while True:
        grown = weak & (F.max_pool2d(found.float(), 3, 1, 1) > 0)
        if bool((grown == found).all()):
            return found
        found = grown


def _distance(outlines: torch.Tensor) -> torch.Tensor:
    """Return each pixel's distance to the nearest outline, at most a little over `_NEAR`, float32."""
    far = float(2 * _NEAR) ** 2
    squares = torch.where(outlines, 0.0, far)
    for axis in (2, 3):
        size = squares.shape[axis]
        nearest = squares.clone()
        for step in range(1, min(_NEAR, size - 1) + 1):
            here, there = squares.narrow(axis, step, size - step), squares.narrow(axis, 0, size - step)
            nearest.narrow(axis, 0, size - step).copy_(
                torch.minimum(nearest.narrow(axis, 0, size - step), here + step**2)
            )
            nearest.narrow(axis, step, size - step).copy_(
                torch.minimum(nearest.narrow(axis, step, size - step), there + step**2)
            )
        squares = nearest
    return squares.sqrt_()


def _equalised(levels: torch.Tensor) -> torch.Tensor:
    """Return grey levels by their rank in the image, 0 to 255: an equalised histogram."""
    flat = levels.flatten(1).long()
    counts = torch.zeros(len(flat), 256, device=levels.device).scatter_add_(1, flat, torch.ones_like(flat).float())
    below = counts.cumsum(1)
    lowest = counts.gather(1, flat.amin(1, keepdim=True))
    scale = 255 / (flat.shape[1] - lowest).clamp_min(1)
    ranks = ((below - lowest) * scale).round().clamp_(0, 255)
    return ranks.gather(1, flat).view_as(levels)
