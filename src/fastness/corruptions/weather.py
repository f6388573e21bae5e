"""Weather: snow, frost, fog."""

from __future__ import annotations

import torch

from fastness.corruptions.frost import textures
from fastness.corruptions.image import corruption, normal, uniform
from fastness.corruptions.resample import motion, zoomed

_GRAY = (0.299, 0.587, 0.114)


@corruption(
    "snow",
    (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
)
def snow(images: torch.Tensor, storm: tuple[float, ...], generator: torch.Generator) -> torch.Tensor:
    """Whiten, and add flakes that fall steeply, the same again turned by 180 degrees."""
    mean, deviation, zoom, threshold, radius, sigma, share = storm
    count, size = len(images), images.shape[-1]
    flakes = normal((count, 1, size, size), generator).mul_(deviation).add_(mean)
    if zoom > 1:
        flakes = zoomed(flakes, zoom)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp_(0, 1).mul_(255).floor_().div_(255)
    flakes = motion(flakes, int(radius), sigma, uniform((count,), -135, -45, generator))
    red, green, blue = images.unbind(1)
    gray = (_GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue)[:, None]
    whiter = torch.maximum(images, gray * 1.5 + 0.5).mul_(1 - share).add_(images, alpha=share)
    return whiter.add_(flakes).add_(flakes.flip(2, 3))


@corruption(
    "frost",
    ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
)
def frost(images: torch.Tensor, mixture: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """Lay a random piece of one of six ice pictures over the image."""
    size, small = images.shape[-1], images.shape[-1] < 128
    ice = textures(256 if small else max(512, 2 * size), 0.2 if small else 1.0).to(images.device)
    room = ice.shape[-1] - size
    which, top, left = (
        torch.randint(high, (len(images),), generator=generator, device=images.device)
        for high in (len(ice), room + 1, room + 1)
    )
    at = torch.arange(size, device=images.device)
    pieces = ice[which[:, None, None], :, top[:, None, None] + at[:, None], left[:, None, None] + at]
    return pieces.movedim(-1, 1).mul(mixture[1]).add_(images, alpha=mixture[0])


@corruption(
    "fog",
    ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
)
def fog(images: torch.Tensor, mixture: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """Add a fractal cloud and darken, so that the brightest value stays what it was."""
    amount, decay = mixture
    size = images.shape[-1]
    brightest = images.amax((1, 2, 3), keepdim=True)
    clouds = plasma(len(images), max(32, 1 << (size - 1).bit_length()), decay, generator)[:, None, :size, :size]
    return clouds.mul(amount).add(images).mul_(brightest / (brightest + amount))


def plasma(count: int, size: int, decay: float, generator: torch.Generator) -> torch.Tensor:
    """Return fractal clouds by diamond and square on a torus, float32 ``[count, size, size]`` from 0 to 1.

    At each halving of the step every new point is the mean of its four neighbours and a uniform number within the
    square of an amplitude that starts at 100 and falls by ``decay``. Fournier, Fussell, Carpenter 1982.

    Args:
        size: a power of two.
    """
    cloud = torch.zeros(count, size, size, device=generator.device)
    step, amplitude = size, 100.0
    while step >= 2:
        half = step // 2

        def rough(four: torch.Tensor, reach: float = amplitude**2) -> torch.Tensor:
            return four / 4 + uniform(four.shape, -reach, reach, generator)

        corners = cloud[:, ::step, ::step]
        right = corners + corners.roll(-1, 2)
        cloud[:, half::step, half::step] = rough(right + right.roll(-1, 1))
        centres = cloud[:, half::step, half::step]
        cloud[:, ::step, half::step] = rough(centres + centres.roll(1, 1) + right)
        cloud[:, half::step, ::step] = rough(centres + centres.roll(1, 2) + corners + corners.roll(-1, 1))
        step, amplitude = half, amplitude / decay
    cloud -= cloud.amin((1, 2), keepdim=True)
    return cloud.div_(cloud.amax((1, 2), keepdim=True))
