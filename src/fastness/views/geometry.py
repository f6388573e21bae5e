"""Crop, flip and resize of a whole batch as two batched matrix products.

Resampling is linear and separable: the output is ``R @ image @ C.T`` with one row matrix and one column
matrix an item. The weights are those of antialiased bilinear interpolation, so a crop's geometry, its flip
and its resize cost two small products, whatever the crop.
"""

from __future__ import annotations

import math

import torch

Boxes = torch.Tensor  # [B, 4] float: top, left, height, width in pixels


def random_boxes(
    n: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Boxes:
    """Draw ``n`` crops as torchvision's ``RandomResizedCrop`` does; float ``[n, 4]`` of whole pixels.

    Area uniform in ``scale``, log aspect ratio uniform in ``ratio``; of ten attempts an item the first that
    fits is taken, else the largest centred crop within ``ratio``.
    """
    device = generator.device
    tries = torch.rand(n, 10, 2, generator=generator, device=device)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * tries[..., 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * tries[..., 1])
    w = torch.round(torch.sqrt(area * aspect))
    h = torch.round(torch.sqrt(area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
    place = torch.rand(n, 2, generator=generator, device=device)
    top = torch.floor(place[:, 0] * (height - h + 1)).clamp_max(height - 1)
    left = torch.floor(place[:, 1] * (width - w + 1)).clamp_max(width - 1)
    boxes = torch.stack([top, left, h, w], 1)
    fallback = torch.tensor(_central_box(height, width, ratio), device=device)
    return torch.where(fits.any(1, keepdim=True), boxes, fallback)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[float, float, float, float]:
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return float((height - h) // 2), float((width - w) // 2), float(h), float(w)


def resize_weights(start: torch.Tensor, length: torch.Tensor, full: int, out: int) -> torch.Tensor:
    """Return ``[B, out, full]``: weights that resize the pixels ``[start, start + length)`` to ``out``.

    A triangle of half-width max(1, length / out) source pixels around each output pixel's centre, cut at
    the crop's border and normalised: antialiased bilinear interpolation as Pillow and torch define it.
    """
    device = start.device
    step = (length / out)[:, None, None]
    centre = (torch.arange(out, device=device) + 0.5)[None, :, None] * step
    source = (torch.arange(full, device=device) + 0.5)[None, None, :] - start[:, None, None]
    weights = (1 - (source - centre).abs() / step.clamp_min(1)).clamp_min_(0)
    weights = weights * ((source > 0) & (source < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def resized_crop(images: torch.Tensor, boxes: Boxes, size: int, flip: torch.Tensor | None = None) -> torch.Tensor:
    """Cut ``boxes`` out of float images ``[B, C, H, W]`` and resize them to ``[B, C, size, size]``.

    Args:
        boxes: ``[B, 4]`` top, left, height, width.
        flip: bool ``[B]``, which results are mirrored left to right.
    """
    B, C, H, W = images.shape
    rows = resize_weights(boxes[:, 0], boxes[:, 2], H, size)
    columns = resize_weights(boxes[:, 1], boxes[:, 3], W, size)
    if flip is not None:
        columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    # With the channels between rows and columns both products take one matrix an item and copy nothing.
    short = torch.bmm(rows, images.transpose(1, 2).reshape(B, H, C * W))
    out = torch.bmm(short.view(B, size * C, W), columns.transpose(1, 2))
    return out.view(B, size, C, size).transpose(1, 2)
