"""The encoder: a backbone with its declared preprocessing, built from a description that JSON can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.core.registry import Registry
from fastness.data.square import centred_square

Backbone = nn.Module
Builder = Callable[["EncoderSpec"], Backbone]

# name -> module. Each module registers a function from a spec to a backbone that has ``dim``.
BACKBONES: Registry[Builder] = Registry(
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
class EncoderSpec:
    """All that is needed to build an encoder again, weights aside.

    Attributes:
        name: a registered backbone, ``timm:NAME``, or ``module`` for a module of the user's own.
        size: side in pixels of the square that items are resized to.
        options: the backbone's own options (width, stem, …).
        mean, std: normalisation of each channel on [0, 1].
    """

    name: str
    size: int
    options: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        values = asdict(self)
        values["resize"] = "largest centred square, bilinear with antialiasing, uint8"
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderSpec:
        """Read what `to_dict` wrote."""
        known = {k: v for k, v in values.items() if k in cls.__dataclass_fields__}
        return cls(**{**known, "mean": tuple(known["mean"]), "std": tuple(known["std"])})


class Encoder(nn.Module):
    """A backbone and its preprocessing.

    ``forward`` takes normalised floats ``[B, 3, S, S]`` and returns features float32 ``[B, dim]``;
    ``preprocess`` makes such a batch of uint8 images of any size. In eval mode an item's features do not
    depend on what else is in the batch.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: Backbone, spec: EncoderSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        self.dim = int(backbone.dim)  # type: ignore[arg-type]
        self._frozen: list[nn.Module] = []
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Encoder:
        """Set training mode, except for what is frozen: its batch statistics are not to drift."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 ``[B, 3, H, W]`` to normalised float32 ``[B, 3, size, size]``."""
        square = centred_square(images, self.spec.size)
        out = square.float().div_(255).sub_(self.mean).div_(self.std)
        return out.contiguous(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised images to features ``[B, dim]``, never narrower than float32, not L2-normalised."""
        out: torch.Tensor = self.backbone(x)
        return out.to(torch.promote_types(out.dtype, torch.float32))

    def freeze_all_but(self, last: int) -> None:
        """Let only the last ``last`` blocks of the backbone learn.

        Raises:
            BadInput: the backbone has no list of blocks.
        """
        blocks = getattr(self.backbone, "blocks", None)
        if not isinstance(blocks, nn.Sequential | nn.ModuleList):
            raise BadInput(f"--unfreeze: encoder {self.spec.name} has no list of blocks; train all of it")
        learning = list(blocks)[max(0, len(blocks) - last) :]
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        for block in learning:
            block.requires_grad_(True)
        inner = {module for block in learning for module in block.modules()}
        outer = {self, self.backbone, blocks}
        self._frozen = [module for module in self.modules() if module not in inner | outer]


def build(spec: EncoderSpec, module: nn.Module | None = None) -> Encoder:
    """Return a freshly initialised encoder.

    Args:
        spec: what to build.
        module: the backbone itself, for ``spec.name == "module"``: any module from ``[B, 3, S, S]`` to
            ``[B, D]``.

    Raises:
        BadInput: an unknown name, or options the backbone does not have.
    """
    if spec.name == "module":
        if module is None:
            raise BadInput("this encoder is a module of your own; give it: fs.load(path, encoder=module)")
        return Encoder(_with_dim(module, spec.size), spec)
    return Encoder(BACKBONES.get(spec.name.partition(":")[0])(spec), spec)


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
