"""Moving and mixing pixels of whole batches: filters along an axis, zooms, and shifts of one's own for each image."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch


def separable(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return ``rows @ image @ columns.T`` for every channel of ``[B, C, H, W]``."""
    return rows.to(images.device) @ images @ columns.to(images.device).T


@functools.lru_cache(maxsize=64)
def gaussian_matrix(size: int, sigma: float, border: str, truncate: float = 4.0) -> torch.Tensor:
    """Return ``[size, size]``: a Gaussian filter along an axis, as SciPy's ``gaussian_filter`` has it.

    Args:
        border: ``nearest`` (the last pixel goes on) or ``reflect`` (mirrored, the last pixel twice).
        truncate: where the filter ends, in standard deviations.
    """
    radius = int(truncate * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    matrix = np.zeros((size, size))
    for tap, offset in zip(taps, range(-radius, radius + 1), strict=True):
        at = np.arange(size) + offset
        if border == "reflect":
            at %= 2 * size
            at = np.where(at >= size, 2 * size - 1 - at, at)
        np.add.at(matrix, (np.arange(size), np.clip(at, 0, size - 1)), tap)
    return torch.from_numpy(matrix).float()


def gaussian(images: torch.Tensor, sigma: float, border: str = "nearest", truncate: float = 4.0) -> torch.Tensor:
    """Filter ``[B, C, H, W]`` along both axes; see `gaussian_matrix`."""
    height, width = images.shape[-2:]
    rows, columns = (gaussian_matrix(size, sigma, border, truncate) for size in (height, width))
    return separable(images, rows, columns)


@functools.lru_cache(maxsize=64)
def zoom_matrix(size: int, factor: float) -> torch.Tensor:
    """Return ``[size, size]``: the middle ``1 / factor`` of an axis enlarged to the whole, linearly.

    As the published scripts do it with SciPy's ``zoom``: the middle's first and last pixel stand at the ends of what is
    enlarged, and of that the middle is cut out.
    """
    part = math.ceil(size / factor)
    start, enlarged = (size - part) // 2, round(part * factor)
    place = (np.arange(size) + (enlarged - size) // 2) * ((part - 1) / max(enlarged - 1, 1))
    below = np.minimum(place.astype(np.int64), max(part - 2, 0))
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size), start + below), 1 - (place - below))
    np.add.at(matrix, (np.arange(size), start + np.minimum(below + 1, part - 1)), place - below)
    return torch.from_numpy(matrix).float()


def zoomed(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Enlarge the middle of ``[B, C, S, S]``; see `zoom_matrix`."""
    matrix = zoom_matrix(images.shape[-1], factor)
    return separable(images, matrix, matrix)


def motion(images: torch.Tensor, radius: int, sigma: float, degrees: torch.Tensor) -> torch.Tensor:
    """Blur each image of ``[B, C, S, S]`` along a direction of its own, as ImageMagick's motion blur does.

    Half a Gaussian of ``2 radius + 1`` whole steps from the pixel on in the direction; beyond the border the last pixel
    goes on.

    Args:
        degrees: directions ``[B]``.
    """
    size, steps = images.shape[-1], 2 * radius + 1
    bell = np.exp(-0.5 * (np.arange(steps) / sigma) ** 2)
    weights: list[float] = (bell / bell.sum()).tolist()
    angle = torch.deg2rad(degrees.double())
    flat = images.flatten(2)
    out = flat * weights[0]
    at = torch.arange(size, device=images.device)
    for step in range(1, steps):
        if weights[step] < 1e-7:
            break
        right, down = (torch.ceil(step * part(angle) - 0.5).long()[:, None] for part in (torch.cos, torch.sin))
        rows, columns = (at + down).clamp_(0, size - 1), (at + right).clamp_(0, size - 1)
        source = (rows[:, :, None] * size + columns[:, None, :]).flatten(1)
        out.add_(flat.gather(2, source[:, None].expand_as(flat)), alpha=weights[step])
    return out.view_as(images)
