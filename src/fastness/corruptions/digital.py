"""What devices do: elastic warps, big pixels, JPEG."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fastness.corruptions.image import corruption, uniform
from fastness.corruptions.resample import gaussian, separable


@corruption(
    "elastic_transform",
    ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    [
        tuple(244 * part for part in parts)
        for parts in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
    ],
)
def elastic_transform(
    images: torch.Tensor, warp: tuple[float, float, float], generator: torch.Generator
) -> torch.Tensor:
    """Move three corners of a middle square at random, then every pixel by a smooth random field."""
    strength, smooth, corner = warp
    count, size = len(images), images.shape[-1]
    middle, third = size // 2, size // 3
    fixed = torch.tensor(
        [
            [middle + third, middle + third],
            [middle + third, middle - third],
            [middle - third, middle - third],
        ],
        dtype=torch.float64,
        device=images.device,
    )
    moved = fixed + uniform((count, 3, 2), -corner, corner, generator)
    ones = torch.ones(count, 3, 1, dtype=torch.float64, device=images.device)
    back = torch.linalg.solve(torch.cat([moved, ones], 2), fixed.expand(count, 3, 2))  # where a pixel comes from
    at = torch.arange(size, dtype=torch.float64, device=images.device)
    grid = torch.stack([at.expand(size, size), at[:, None].expand(size, size), torch.ones_like(at.expand(size, size))])
    source = torch.einsum("khw,bkc->bhwc", grid, back)
    out = _sampled(images, source.float(), mirrored_twice=False)
    if not strength:
        return out
    field = uniform((count, 2, size, size), -1, 1, generator)
    field = gaussian(field, smooth, "reflect", 3.0).mul_(strength)
    return _sampled(out, (grid[:2].float() + field).movedim(1, -1), mirrored_twice=True)


def _sampled(images: torch.Tensor, places: torch.Tensor, mirrored_twice: bool) -> torch.Tensor:
    """Read images at ``[B, H, W, 2]`` (x, y in pixels), bilinearly; outside they are mirrored.

    The last pixel stands there twice or once; PyTorch's two conventions of corners differ in exactly that.
    """
    size = images.shape[-1]
    scaled = (2 * places + 1) / size - 1 if mirrored_twice else 2 * places / (size - 1) - 1
    return F.grid_sample(images, scaled, padding_mode="reflection", align_corners=not mirrored_twice)


@corruption("pixelate", (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25))
def pixelate(images: torch.Tensor, scale: float, generator: torch.Generator) -> torch.Tensor:
    """Shrink to means over boxes and enlarge again; as Pillow does it, rounding to grey levels after each pass."""
    size = images.shape[-1]
    small = int(size * scale)
    levels = images * 255
    for source, target in ((size, small), (small, size)):
        matrix, same = _boxes(source, target), torch.eye(source)
        levels = separable(levels, same, matrix).add_(0.5).floor_()
        levels = separable(levels, matrix, torch.eye(target)).add_(0.5).floor_()
    return levels.div_(255)


def _boxes(source: int, target: int) -> torch.Tensor:
    """Return ``[target, source]``: the mean over the whole pixels whose centres lie in a target pixel's box."""
    scale = source / target
    reach = max(scale, 1.0) / 2
    centres = (np.arange(target) + 0.5) * scale
    matrix = np.zeros((target, source))
    for i, centre in enumerate(centres):
        low, high = max(0, int(centre - reach + 0.5)), min(source, int(centre + reach + 0.5))
        offset = (np.arange(low, high) - centre + 0.5) / max(scale, 1.0)
        matrix[i, low:high] = (offset > -0.5) & (offset <= 0.5)
    return torch.from_numpy(matrix / matrix.sum(1, keepdims=True)).float()


@corruption("jpeg_compression", (80, 65, 58, 50, 40), (25, 18, 15, 10, 7))
def jpeg_compression(images: torch.Tensor, quality: int, generator: torch.Generator) -> torch.Tensor:
    """Write and read as JPEG, on the processor wherever the images are."""
    pixels = (images * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    found = np.empty_like(pixels)
    for place, picture in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        found[place] = Image.open(file)
    return torch.from_numpy(found).to(images.device).permute(0, 3, 1, 2).float().div_(255)
