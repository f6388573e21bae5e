"""Occlusion: something stands in front."""

from __future__ import annotations

import torch

from fastness.corruptions.image import corruption


@corruption("occlusion", (0.05, 0.1, 0.2, 0.3, 0.45))
def occlusion(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Cover a square of so much of the image, at a random place inside it, with the image's mean colour.

    Our own: none of the common corruptions hides a part.
    """
    size = images.shape[-1]
    side = max(1, round(size * share**0.5))
    top, left = torch.randint(size - side + 1, (2, len(images), 1), generator=generator, device=images.device)
    at = torch.arange(size, device=images.device)
    rows, columns = ((at >= start) & (at < start + side) for start in (top, left))
    covered = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(covered, images.mean((2, 3), keepdim=True), images)
