"""Pictures of ice on glass, made from nothing but a seed: feathers that branch, over a rough white film."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import torch

from fastness.core.seeds import numpy_generator

Plane = npt.NDArray[np.float64]

_PICTURES = 6
_MEAN, _DEVIATION = 0.45, 0.2  # of their brightness, about that of photographs of iced panes
_TINT = (0.90, 0.97, 1.0)  # of ice: red, green, blue


@functools.lru_cache(maxsize=4)
def textures(size: int, scale: float) -> torch.Tensor:
    """Return six pictures of ice, float32 ``[6, 3, size, size]`` in [0, 1], the same on every call.

    Args:
        size: side in pixels.
        scale: how much smaller than life: at .2 a feather is a fifth as wide.
    """
    pictures = [_picture(size, scale, number) for number in range(_PICTURES)]
    return torch.from_numpy(np.stack(pictures)).float()


def _picture(size: int, scale: float, number: int) -> Plane:
    generator = numpy_generator(0, "frost", number)
    film = _rough(size, 60 * scale, generator) + _rough(size, 12 * scale, generator)
    ice = film + 1.5 * _feathers(size, scale, generator) + generator.normal(0, 0.1, (size, size))
    level = _MEAN + _DEVIATION * (ice - ice.mean()) / ice.std()
    tinted: Plane = np.clip(level, 0, 1)[None] * np.array(_TINT)[:, None, None]
    return tinted


def _rough(size: int, length: float, generator: np.random.Generator) -> Plane:
    """Return smooth noise from 0 to 1 whose bumps are about ``length`` pixels wide."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(generator.normal(size=(size, size)), max(0.5, length / 2), mode="wrap")
    scaled: Plane = (noise - noise.min()) / np.ptp(noise)
    return scaled


def _feathers(size: int, scale: float, generator: np.random.Generator) -> Plane:
    """Return crystals that grow from random points in random directions and branch at 60 degrees, from 0 to about 1."""
    from scipy.ndimage import gaussian_filter

    canvas = np.zeros((size, size))
    count = 4 + int(3 * (size / (200 * scale)) ** 2)
    tips = [(*generator.uniform(0, size, 3), generator.uniform(100, 300) * scale) for _ in range(count)]
    while tips:
        y, x, turned, length = tips.pop()
        steps = np.arange(0, length, 0.5)
        bend = turned + np.cumsum(generator.normal(0, 0.02, len(steps)))
        rows, columns = y + np.cumsum(0.5 * np.sin(bend)), x + np.cumsum(0.5 * np.cos(bend))
        np.add.at(canvas, (rows.astype(int) % size, columns.astype(int) % size), 0.5)
        for at in range(int(16 * scale), len(steps), max(8, int(32 * scale))):
            shorter = 0.4 * length * (1 - at / len(steps)) * generator.uniform(0.5, 1)
            if shorter > max(3.0, 8 * scale):
                tips += [(rows[at], columns[at], bend[at] + side * np.pi / 3, shorter) for side in (-1, 1)]
    soft: Plane = gaussian_filter(np.minimum(canvas, 1), max(0.5, 2 * scale), mode="wrap")
    return soft
