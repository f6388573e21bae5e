"""Views of images: which operations, how strong, how many; and the call that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from fastness.data.items import Items
from fastness.views import blur, colour, geometry
from fastness.views.views import VIEWS, Area, Probability, Range, Strength, Views, ViewSpec


class ImageView(ViewSpec):
    """One kind of view: crop, flip, colour jitter, grayscale, blur, solarise, in this order.

    Attributes:
        count: how many views of this kind an item gets.
        size: side in pixels, as a share of the image's side (multi-crop's small views have less than 1).
        scale: range of the crop's area as a share of the image.
        ratio: range of the crop's width over height.
        flip, jitter, gray, blur, solarise: probabilities.
        brightness, contrast, saturation: factors are uniform in 1 ± this, not below 0.
        hue: the shift is uniform in ± this, in circles.
        sigma: range of the blur's standard deviation in pixels.
    """

    size: Annotated[float, Field(gt=0, le=4)] = 1.0
    scale: Area = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    flip: Probability = 0.5
    jitter: Probability = 0.8
    brightness: Strength = 0.4
    contrast: Strength = 0.4
    saturation: Strength = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    gray: Probability = 0.2
    blur: Probability = 0.0
    sigma: Range = (0.1, 2.0)
    solarise: Probability = 0.0


@dataclass(frozen=True)
class ViewParameters:
    """What was drawn for one view of each of ``B`` items; all tensors have ``B`` rows."""

    boxes: torch.Tensor  # [B, 4]
    flip: torch.Tensor  # bool [B]
    jitter: torch.Tensor  # bool [B]
    factors: torch.Tensor  # [B, 4]: brightness, contrast, saturation, hue shift
    order: torch.Tensor  # int64 [B, 4]
    gray: torch.Tensor  # bool [B]
    blur: torch.Tensor  # bool [B]
    sigma: torch.Tensor  # [B]
    solarise: torch.Tensor  # bool [B]

    def part(self, rows: slice) -> ViewParameters:
        """Return the parameters of some of the items."""
        return ViewParameters(**{name: values[rows] for name, values in vars(self).items()})


def draw(spec: ImageView, n: int, height: int, width: int, generator: torch.Generator) -> ViewParameters:
    """Draw the parameters of one view for ``n`` items, each item its own."""
    device = generator.device

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    boxes = geometry.random_boxes(n, height, width, spec.scale, spec.ratio, generator)
    strength = torch.tensor([spec.brightness, spec.contrast, spec.saturation], device=device)
    low = (1 - strength).clamp_min(0)
    factors = torch.cat([low + (1 + strength - low) * uniform(n, 3), spec.hue * (2 * uniform(n, 1) - 1)], 1)
    happens = uniform(n, 5)
    sigma = spec.sigma[0] + (spec.sigma[1] - spec.sigma[0]) * uniform(n)
    return ViewParameters(
        boxes=boxes,
        flip=happens[:, 0] < spec.flip,
        jitter=happens[:, 1] < spec.jitter,
        factors=factors,
        order=uniform(n, 4).argsort(1),
        gray=happens[:, 2] < spec.gray,
        blur=happens[:, 3] < spec.blur,
        sigma=sigma,
        solarise=happens[:, 4] < spec.solarise,
    )


def apply(images: torch.Tensor, drawn: ViewParameters, size: int, spec: ImageView) -> torch.Tensor:
    """Make one view of each image.

    Args:
        images: float in [0, 1], ``[B, 3, H, W]``.
        drawn: the parameters.
        size: side of the result in pixels.

    Returns:
        float in [0, 1], ``[B, 3, size, size]``.
    """
    out = geometry.resized_crop(images, drawn.boxes, size, drawn.flip)
    if spec.jitter:
        out = colour.jitter(out, drawn.factors, drawn.order, drawn.jitter)
    if spec.gray:
        out = colour.grayscale(out, drawn.gray)
    if spec.blur:
        out = blur.gaussian_blur(out, drawn.sigma, drawn.blur, blur.kernel_size(size))
    if spec.solarise:
        out = colour.solarise(out, drawn.solarise)
    return out


@VIEWS.register("image")
class ImageViews(Views):
    """Makes the views of a batch of pictures.

    Args:
        specs: the kinds of views.
        size: side of a full-size view in pixels; others are rounded to a multiple of 4.
        mean, std: per-channel normalisation of the encoder, on [0, 1].
    """

    usual = (ImageView(scale=(0.2, 1.0)),)
    plain = (ImageView(count=1, scale=(0.4, 1.0), jitter=0.0, gray=0.0),)
    probe = (ImageView(scale=(0.2, 1.0)),)
    cautious: ClassVar[dict[str, Any]] = {"flip": 0.0}  # characters change their meaning when mirrored

    def __init__(
        self,
        specs: Sequence[ImageView],
        size: int,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__(specs)
        self.size = size
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)

    @classmethod
    def make(cls, specs: Sequence[ImageView], encoder: Any, items: Items | None) -> ImageViews:
        """See `Views.make`."""
        return cls(specs, encoder.size, encoder.mean, encoder.std)

    def side(self, spec: ImageView) -> int:
        """Side in pixels of the views of ``spec``."""
        return self.size if spec.size == 1 else max(8, 4 * round(self.size * spec.size / 4))

    def __call__(
        self, batch: torch.Tensor, generator: torch.Generator, first: int = 0, whole: int | None = None
    ) -> list[torch.Tensor]:
        """Return views of uint8 ``[B, 3, H, W]``: float32 ``[B, 3, side, side]``, normalised, channels last."""
        whole = len(batch) if whole is None else whole
        images = batch.float().div_(255)
        mean, std = self.mean.to(batch.device), self.std.to(batch.device)
        views = []
        for spec in self.specs:
            for _ in range(spec.count):
                drawn = draw(spec, whole, images.shape[2], images.shape[3], generator)
                if whole != len(images):
                    drawn = drawn.part(slice(first, first + len(images)))
                out = apply(images, drawn, self.side(spec), spec)
                views.append(out.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last))
        return views
