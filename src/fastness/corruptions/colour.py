"""Brightness and saturation in the HSV hexcone, and contrast."""

from __future__ import annotations

import torch

from fastness.corruptions.image import corruption


@corruption("brightness", (0.05, 0.10, 0.15, 0.20, 0.30), (0.1, 0.2, 0.3, 0.4, 0.5))
def brightness(images: torch.Tensor, more: float, generator: torch.Generator) -> torch.Tensor:
    """Raise the value, at most to 1; hue and saturation stay, so all channels grow by one factor."""
    value = images.amax(1, keepdim=True)
    raised = (value + more).clamp_max(1)
    return torch.where(value > 0, images * (raised / value.clamp_min(1e-6)), raised)


@corruption("contrast", (0.75, 0.50, 0.40, 0.30, 0.15), (0.40, 0.30, 0.20, 0.10, 0.05))
def contrast(images: torch.Tensor, factor: float, generator: torch.Generator) -> torch.Tensor:
    """Draw each channel towards its mean."""
    mean = images.double().mean((2, 3), keepdim=True).to(images.dtype)
    return (images - mean).mul_(factor).add_(mean)


@corruption(
    "saturate",
    ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
    ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
)
def saturate(images: torch.Tensor, line: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """Change the saturation s to a·s + b within [0, 1]; hue and value stay. A grey pixel counts as a red hue.

    In the hexcone a channel is ``value · (1 - s · w)``; its weakness w is 0 for the strongest channel, 1 for the last.
    """
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    saturation = torch.where(value > 0, chroma / value.clamp_min(1e-6), 0.0)
    red = torch.tensor([0.0, 1.0, 1.0], device=images.device)[:, None, None]
    weakness = torch.where(chroma > 0, (value - images) / chroma.clamp_min(1e-6), red)
    return value * (1 - (line[0] * saturation + line[1]).clamp(0, 1) * weakness)
