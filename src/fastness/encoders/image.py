"""Images: squares of pixels, normalised by channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.core.options import settle
from fastness.core.recipe import Recipe
from fastness.core.registry import Registry
from fastness.core.seeds import numpy_generator
from fastness.data import Dataset, open_data
from fastness.data.cache import DecodedImages, decode_square, decoded
from fastness.data.items import Positions, Progress
from fastness.data.square import centred_square
from fastness.encoders.encoder import MODALITIES, Encoder, Files, Modality, Spec
from fastness_runtime.decode import DamagedItem, decode

_SIZES_CPU = ((12, 16), (40, 32), (100, 64), (math.inf, 96))
_SIZES_GPU = ((12, 16), (40, 32), (100, 64), (math.inf, 224))

# name -> module. Each module registers a function from a spec to a backbone that has ``dim``.
BACKBONES: Registry[Callable[[ImageSpec], nn.Module]] = Registry(
    "encoder",
    "fastness.encoders",
    {
        "resnet18": "backbones",
        "resnet34": "backbones",
        "resnet50": "backbones",
        "vit-tiny": "backbones",
        "vit-small": "backbones",
        "timm": "backbones",  # timm:NAME
    },
)


@dataclass(frozen=True)
class ImageSpec(Spec):
    """An image encoder.

    Attributes:
        name: a registered backbone, ``timm:NAME``, or ``module`` for a module of the user's own.
        size: side in pixels of the square that items are resized to.
        options: the backbone's own options (width, stem, …).
        mean, std: normalisation of each channel on [0, 1].
    """

    size: int
    options: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    modality: ClassVar[str] = "image"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {**super().to_dict(), "resize": "largest centred square, bilinear with antialiasing, uint8"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], files: Files) -> ImageSpec:
        """Read what `to_dict` wrote."""
        return super().from_dict({**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])}, files)


class ImageEncoder(Encoder):
    """``forward`` takes normalised floats ``[B, 3, S, S]``; ``preprocess`` makes them of uint8 images of any size."""

    spec: ImageSpec
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: nn.Module, spec: ImageSpec) -> None:
        super().__init__(backbone, spec)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)

    def prepare(self, dataset: Dataset, progress: Progress | None = None) -> DecodedImages:
        """Decode the pictures at this encoder's size."""
        return decoded(dataset, self.spec.size, progress)

    def direct(self, dataset: Dataset, size: int) -> Iterator[tuple[Positions, torch.Tensor]]:
        """Decode the pictures now and keep them nowhere."""
        for start in range(0, len(dataset), size):
            positions = np.arange(start, min(start + size, len(dataset)))
            squares = []
            for position in positions:
                try:
                    squares.append(decode_square(dataset.payloads.read(int(dataset.rows[position])), self.spec.size))
                except DamagedItem as error:
                    raise BadInput(f"item {position}: {error}; leave it out or mend it") from None
            yield positions, torch.from_numpy(np.stack(squares))

    def asked(self, query: str) -> bytes:
        """The query is a picture's file."""
        path = Path(query)
        if not path.is_file():
            raise BadInput(f"{query[:200]}: no such picture; --query takes a file")
        return path.read_bytes()

    def preprocess(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 ``[B, 3, H, W]`` to normalised float32 ``[B, 3, size, size]``."""
        square = centred_square(batch, self.spec.size)
        out = square.float().div_(255).sub_(self.mean).div_(self.std)
        return out.contiguous(memory_format=torch.channels_last)

    def pixels(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what `preprocess` was given, or a view of it, on [0, 1]; float32 ``[B, 3, H, W]``."""
        return batch * self.std + self.mean


@MODALITIES.register("image")
class Images(Modality):
    """Pictures."""

    unit = "px"

    def choose(self, recipe: Recipe, dataset: Dataset, device: torch.device, init: Spec | None) -> dict[str, Any]:
        """Choose the size by the pictures' own, the width by the device."""
        chosen: dict[str, Any] = {}
        encoder = recipe.encoder
        if encoder == "auto":
            chosen["encoder"] = encoder = init.name if init else "resnet18"
        settle(f"encoder {encoder}", {}, recipe.network)
        if recipe.size is None:
            chosen["size"] = init.size if isinstance(init, ImageSpec) else _size(dataset, device)
        if init is None and encoder.startswith("resnet"):
            if recipe.width is None:
                chosen["width"] = 64 if device.type != "cpu" else 16
            if recipe.stem is None:
                chosen["stem"] = "small" if (recipe.size or chosen["size"]) <= 64 else "imagenet"
        return chosen

    def training(self, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
        """Transformers want AdamW."""
        return {"optimizer": "adamw"} if recipe.encoder.startswith("vit") else {}

    def fit(self, recipe: Recipe, dataset: Dataset, progress: Progress | None = None) -> ImageSpec:
        """Normalise by the statistics of 2,000 training items."""
        assert recipe.size is not None
        images = decoded(dataset, recipe.size, progress)
        sample = numpy_generator(recipe.seed, "statistics").permutation(len(images))[:2000]
        mean, std = pixel_statistics(images.batch(np.sort(sample)))
        return replace(self.draft(recipe, dataset), mean=tuple(mean), std=tuple(std))

    def draft(self, recipe: Recipe, dataset: Dataset) -> ImageSpec:
        """Return the spec with the usual normalisation."""
        assert recipe.size is not None
        options = {"width": recipe.width, "stem": recipe.stem}
        own = not (recipe.encoder.startswith("timm:") or recipe.encoder == "module")
        return ImageSpec(recipe.encoder, recipe.size, {k: v for k, v in options.items() if own and v is not None})

    def refit(self, spec: ImageSpec, recipe: Recipe) -> ImageSpec:
        """The size may change."""
        return replace(spec, size=recipe.size or spec.size)

    def read(self, values: Mapping[str, Any], files: Files) -> ImageSpec:
        """See `Modality.read`."""
        return ImageSpec.from_dict(values, files)

    def build(self, spec: ImageSpec, module: nn.Module | None = None) -> ImageEncoder:
        """Build a backbone by name, or wrap any module from ``[B, 3, S, S]`` to ``[B, D]``."""
        if spec.name == "module":
            if module is None:
                raise BadInput("this encoder is a module of your own; give it: fs.load(path, encoder=module)")
            return ImageEncoder(_with_dim(module, spec.size), spec)
        return ImageEncoder(BACKBONES.get(spec.name.partition(":")[0])(spec), spec)

    def dataset(self, items: Any) -> Dataset:
        """Open arrays, lists of arrays, pictures or paths, and torch datasets."""
        return open_data(items, modality="image")


def _size(dataset: Dataset, device: torch.device) -> int:
    """Return a size near the pictures' own: by the median short side of up to 64 of them."""
    rows = numpy_generator(0, "size").permutation(len(dataset))[:64]
    sides = []
    for row in rows:
        try:
            height, width = decode(dataset.payloads.read(int(dataset.rows[row]))).shape[:2]
        except (DamagedItem, OSError):
            continue  # counted and named when everything is decoded
        sides.append(min(height, width))
    median = float(np.median(sides)) if sides else 64.0
    table = _SIZES_CPU if device.type == "cpu" else _SIZES_GPU
    return next(size for limit, size in table if median <= limit)


def _with_dim(module: nn.Module, size: int) -> nn.Module:
    if not isinstance(getattr(module, "dim", None), int):
        training = module.training
        with torch.no_grad():
            out = module.eval()(torch.zeros(2, 3, size, size))
        module.train(training)
        if out.ndim != 2 or len(out) != 2:
            raise BadInput(f"the module gives {tuple(out.shape)} for [2, 3, {size}, {size}]; it should give [2, D]")
        module.dim = out.shape[1]
    return module


def pixel_statistics(pixels: torch.Tensor) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and standard deviation of each channel of uint8 ``[N, 3, H, W]`` on [0, 1], to 4 digits."""
    values = pixels.float().div(255)
    mean = [round(float(v), 4) for v in values.mean((0, 2, 3))]
    std = [round(max(float(v), 0.02), 4) for v in values.std((0, 2, 3))]
    return tuple(mean), tuple(std)
