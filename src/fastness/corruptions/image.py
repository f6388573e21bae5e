"""Corruptions of images: the fifteen common ones, four more, and occlusion, each in five severities.

Definitions and constants are those of Hendrycks and Dietterich 2019 (arXiv 1903.12261) as their published scripts have
them: one set for images of 32 pixels (CIFAR-10-C), one for 224 (ImageNet-C). Deterministic ones give what the scripts
give; random ones draw other numbers of the same distributions, and the frost is of our own making. So these are
«CIFAR-10-C-style, regenerated», and figures on them compare with each other first of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastness.core.registry import Registry
from fastness.core.seeds import torch_generator
from fastness.corruptions import WORLDS, Batches, Scene, World, at_severity, corruption_of

SMALL_BELOW = 128  # pixels a side: images below take the constants for 32 pixels, others those for 224
GRID = 8  # cells a side of a picture whose parts are hidden
_AT_ONCE = 250  # images that share a generator
_ROUNDING = 1e-4  # of a grey level: what float32 may lack of a whole number before the published way cuts it off

Function = Callable[[torch.Tensor, Any, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        small, large: its constants at severities 1 to 5, for images of 32 and of 224 pixels.
        function: from float images ``[B, 3, S, S]`` in [0, 1], one severity's constants and a generator on their device
            to float images, which may leave [0, 1]; it must not change its input.
    """

    function: Function
    small: Sequence[Any]
    large: Sequence[Any]

    def __call__(self, images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
        """Corrupt a batch.

        Args:
            images: uint8 ``[B, 3, S, S]``.
            severity: 1 to 5.
            generator: on the images' device; the same state gives the same result.

        Returns:
            uint8 ``[B, 3, S, S]``, cut off to whole grey levels as in the published scripts.

        Raises:
            BadInput: no such severity.
        """
        constants = at_severity(self.small if images.shape[-1] < SMALL_BELOW else self.large, severity)
        changed = self.function(images.float().div_(255), constants, generator)
        return changed.clamp_(0, 1).mul_(255).add_(_ROUNDING).to(torch.uint8)


CORRUPTIONS: Registry[Corruption] = Registry(
    "corruption",
    "fastness.corruptions",
    {
        "gaussian_noise": "noise",
        "shot_noise": "noise",
        "impulse_noise": "noise",
        "defocus_blur": "blur",
        "glass_blur": "blur",
        "motion_blur": "blur",
        "zoom_blur": "blur",
        "snow": "weather",
        "frost": "weather",
        "fog": "weather",
        "brightness": "colour",
        "contrast": "colour",
        "elastic_transform": "digital",
        "pixelate": "digital",
        "jpeg_compression": "digital",
        "speckle_noise": "noise",
        "gaussian_blur": "blur",
        "spatter": "spatter",
        "saturate": "colour",
        "occlusion": "occlusion",
    },
)
"""All corruptions of images by name; the first fifteen are the common ones, over which means are taken."""

COMMON = tuple(CORRUPTIONS)[:15]


corruption = corruption_of(CORRUPTIONS, lambda name, function, amounts: Corruption(function, amounts[0], amounts[-1]))
# @corruption(NAME, constants for 32 pixels, and for 224 if they are others)


def uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Return float32 numbers in [low, high) on the generator's device."""
    return torch.rand(*shape, generator=generator, device=generator.device) * (high - low) + low


def normal(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Return standard normal float32 numbers on the generator's device."""
    return torch.randn(*shape, generator=generator, device=generator.device)


class ImageWorld(World):
    """Corruptions of the pixels that an encoder is given."""

    names = tuple(CORRUPTIONS)
    common = COMMON
    source = "Hendrycks and Dietterich's definitions, regenerated, at the encoder's size"

    def corrupted(self, scene: Scene, name: str, severity: int, seed: int) -> Batches:
        """See `World.corrupted`."""
        corrupt = CORRUPTIONS.get(name)
        for positions, batch in scene.items.batches(_AT_ONCE):
            generator = torch_generator(seed, name, severity, int(positions[0]), device=scene.device)
            yield positions, corrupt(batch.to(scene.device), severity, generator)

    def hidden(self, scene: Scene, position: int) -> tuple[list[str], Batches]:
        """See `World.hidden`; a hidden cell has the picture's mean colour."""
        device = scene.device
        image = scene.items.batch(np.array([position])).to(device)
        side = image.shape[-1]
        at = torch.arange(side, device=device) * GRID // side
        cells = torch.arange(GRID, device=device)
        rows, columns = at == cells[:, None], at == cells[:, None]
        covered = (rows[:, None, :, None] & columns[None, :, None, :]).reshape(GRID**2, 1, side, side)
        mean = image.float().mean((2, 3), keepdim=True).round().to(torch.uint8)
        names = [f"{row},{column}" for row in range(GRID) for column in range(GRID)]
        return names, iter([(np.arange(GRID**2), torch.where(covered, mean, image))])


WORLDS.register("image")(ImageWorld())
