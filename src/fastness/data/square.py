"""Any picture becomes a square: the largest centred square, resized with antialiasing.

Only tensor operations, so that an exported graph can do the same. The decoded cache and the encoder's
preprocessing both use this one function.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def centred_square(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Crop ``[..., C, H, W]`` uint8 to its centred square and resize it to ``[..., C, size, size]`` uint8.

    Bilinear with antialiasing; the identity if the input already is ``size`` × ``size``.
    """
    height, width = pixels.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    pixels = pixels[..., top : top + side, left : left + side]
    if side == size:
        return pixels
    batch = pixels.reshape(-1, *pixels.shape[-3:])
    resized = F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized.reshape(*pixels.shape[:-2], size, size)
