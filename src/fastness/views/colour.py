"""Colour operations on float images in [0, 1], ``[B, 3, H, W]``, with one factor an item.

They mean what torchvision's functions of the same names mean on float tensors, and agree with them within
1e-5 on the same parameters, hue included.
"""

from __future__ import annotations

import torch

GRAY = (0.2989, 0.587, 0.114)
"""Weights of red, green, blue in luminance, as torchvision and Pillow use them."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def luminance(images: torch.Tensor) -> torch.Tensor:
    """Return the gray value ``[B, 1, H, W]``."""
    r, g, b = images.unbind(1)
    return (GRAY[0] * r).add_(g, alpha=GRAY[1]).add_(b, alpha=GRAY[2]).unsqueeze_(1)


def adjust_brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with black, in place: ``factor`` 0 gives black, 1 the image."""
    return images.mul_(_each(factor)).clamp_(0, 1)


def adjust_contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the image's mean gray, in place."""
    red, green, blue = images.mean((2, 3)).unbind(1)
    mean = GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue
    return images.mul_(_each(factor)).add_(_each((1 - factor) * mean)).clamp_(0, 1)


def adjust_saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the image's gray version, in place."""
    gray = luminance(images).mul_(_each(1 - factor))
    return images.mul_(_each(factor)).add_(gray).clamp_(0, 1)


def adjust_hue(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turn the hue by ``shift`` of the full circle ([-0.5, 0.5]), in place; value and saturation stay.

    In the HSV hexcone a channel is ``max - chroma * clamp(2 - |d|, 0, 1)``, d being the distance on the
    circle, in sixths, from the hue at which that channel is weakest (red 3, green 5, blue 1). So there is
    no need to go through sextants or to build an HSV image.
    """
    r, g, b = images.unbind(1)
    top = torch.maximum(torch.maximum(r, g), b)
    chroma = top - torch.minimum(torch.minimum(r, g), b)
    per_chroma = chroma.clamp_min(1e-12).reciprocal_()
    # Hue in sixths of the circle, measured from red; ties are decided red before green before blue.
    sixths = torch.where(
        top == r,
        (g - b).mul_(per_chroma),
        torch.where(top == g, (b - r).mul_(per_chroma).add_(2), (r - g).mul_(per_chroma).add_(4)),
    )
    sixths += 6 * shift[:, None, None]
    for channel, weakest in enumerate((3, 5, 1)):
        distance = sixths - weakest
        distance.sub_(torch.round(distance / 6), alpha=6)
        dent = distance.abs_().neg_().add_(2).clamp_(0, 1).mul_(chroma)
        torch.sub(top, dent, out=images[:, channel])
    return images


_ADJUST = {
    BRIGHTNESS: adjust_brightness,
    CONTRAST: adjust_contrast,
    SATURATION: adjust_saturation,
    HUE: adjust_hue,
}


def jitter(images: torch.Tensor, factors: torch.Tensor, order: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Apply the four adjustments to the chosen items, each item in its own order; may work in place.

    Args:
        factors: ``[B, 4]`` by operation number; column ``HUE`` is the shift.
        order: int64 ``[B, 4]``, the operation that comes first, second, …
        chosen: bool ``[B]``, the items that are changed at all.
    """
    images = images.contiguous()
    for turn in range(4):
        for operation, adjust in _ADJUST.items():
            rows = ((order[:, turn] == operation) & chosen).nonzero()[:, 0]
            if len(rows):
                images.index_copy_(0, rows, adjust(images.index_select(0, rows), factors[rows, operation]))
    return images


def grayscale(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Replace the chosen items' channels by their luminance."""
    rows = chosen.nonzero()[:, 0]
    images[rows] = luminance(images[rows]).expand(-1, 3, -1, -1)
    return images


def solarise(images: torch.Tensor, chosen: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    """Invert the pixels at or above ``threshold`` of the chosen items."""
    rows = chosen.nonzero()[:, 0]
    part = images[rows]
    images[rows] = torch.where(part >= threshold, 1 - part, part)
    return images


def _each(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]
