"""Gaussian blur with one sigma an item, as two batched matrix products."""

from __future__ import annotations

import functools

import torch


@functools.lru_cache(maxsize=32)
def _taps(size: int, kernel: int, device: str) -> torch.Tensor:
    """Return 0/1 counts ``[kernel, size, size]``: tap t of output i reads input j, reflected at the border."""
    radius = kernel // 2
    at = torch.arange(size)[None, :] + torch.arange(-radius, radius + 1)[:, None]
    at = at.abs()
    at = torch.where(at >= size, 2 * (size - 1) - at, at)
    return torch.nn.functional.one_hot(at, size).float().to(device)


def kernel_size(size: int) -> int:
    """Return the odd kernel width for images of side ``size``: a tenth of it, as SimCLR has it, at least 3."""
    return max(3, int(0.1 * size) // 2 * 2 + 1)


def gaussian_blur(images: torch.Tensor, sigma: torch.Tensor, chosen: torch.Tensor, kernel: int) -> torch.Tensor:
    """Blur the chosen items of ``[B, C, S, S]``.

    Args:
        sigma: standard deviation in pixels, ``[B]``.
        chosen: bool ``[B]``.
        kernel: odd width of the kernel, at most ``2 S - 1``; weights are the Gaussian at whole pixels,
            normalised, borders are reflected: torchvision's ``gaussian_blur``.
    """
    rows = chosen.nonzero()[:, 0]
    if not len(rows):
        return images
    size, channels = images.shape[-1], images.shape[1]
    offset = torch.arange(kernel, device=images.device) - kernel // 2
    weights = torch.exp(-0.5 * (offset / sigma[rows, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    matrix = (weights @ _taps(size, kernel, str(images.device)).view(kernel, -1)).view(-1, size, size)
    part = torch.bmm(images[rows].reshape(len(rows), channels * size, size), matrix.transpose(1, 2))
    rows_matrix = matrix[:, None].expand(-1, channels, size, size).reshape(-1, size, size)
    images[rows] = torch.bmm(rows_matrix, part.view(-1, size, size)).view(-1, channels, size, size)
    return images
