"""Where networks can be cut: which units can go from inside each block, which layers, and how that is described."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from fastness.core.errors import BadInput
from fastness.encoders import Encoder, Spec
from fastness.encoders.image import ImageSpec
from fastness.encoders.resnet import BasicBlock, ResNet
from fastness.encoders.text_spec import TextSpec


@dataclass(frozen=True)
class Units:
    """Units (channels, neurons, heads) of one block that only one layer reads.

    Attributes:
        block: number of the block.
        kind: what of the block they are.
        makers: names of the tensors whose rows they are.
        reader: name of the layer whose inputs they are.
        shift: name of the tensor that takes up what the units gave on average, and the sign with which it does.
        count: how many there are.
        size: inputs of the reader for each.
        copies: how often a maker has rows for each, one after the other (3: queries, keys, values).
    """

    block: int
    kind: str
    makers: tuple[str, ...]
    reader: str
    shift: tuple[str, int]
    count: int
    size: int = 1
    copies: int = 1


class Family(ABC):
    """Networks of one kind.

    Attributes:
        prefix: of the blocks' names in the encoder.
        renumbered: whether the blocks behind one that is gone move up.
    """

    prefix = "backbone.blocks."
    renumbered = True

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks in order."""
        return list(self.encoder.get_submodule(self.prefix[:-1]).children())

    @abstractmethod
    def units(self) -> list[Units]:
        """Return all units that can go."""

    def removable(self) -> list[int]:
        """Return the blocks that can go."""
        return list(range(len(self.blocks)))

    @abstractmethod
    def smaller(self, kept: Mapping[tuple[int, str], int], gone: Sequence[int]) -> Spec:
        """Return what describes the network with so many units in each block and kind, without the blocks gone."""


class ResNets(Family):
    """Channels between the convolutions of a block; blocks whose shortcut changes nothing."""

    renumbered = False

    def units(self) -> list[Units]:
        """The outputs of all convolutions of a block but the last."""
        found = []
        for number, block in enumerate(self.blocks):
            last = {nn.Identity: 0, BasicBlock: 1}.get(type(block), 2)
            for i in range(1, last + 1):
                start = f"{self.prefix}{number}."
                norm = [f"{start}bn{i}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
                makers, shift = (f"{start}conv{i}.weight", *norm), (f"{start}bn{i + 1}.running_mean", -1)
                count = len(block.get_parameter(f"conv{i}.weight"))
                found.append(Units(number, f"conv{i}", makers, f"{start}conv{i + 1}", shift, count))
        return found

    def removable(self) -> list[int]:
        """Blocks whose shortcut is straight."""
        return [i for i, b in enumerate(self.blocks) if isinstance(getattr(b, "shortcut", None), nn.Identity)]

    def smaller(self, kept: Mapping[tuple[int, str], int], gone: Sequence[int]) -> Spec:
        """See `Family.smaller`."""
        spec = self.encoder.spec
        assert isinstance(spec, ImageSpec)
        kinds = sorted({kind for _, kind in kept})
        inner = [[0 if i in gone else kept.get((i, k), 0) for k in kinds] for i in range(len(self.blocks))]
        return replace(spec, options={**spec.options, "inner": inner})


class VisionTransformers(Family):
    """Hidden neurons and attention heads of each block; whole blocks."""

    def units(self) -> list[Units]:
        """Both of every block."""
        found = []
        for number, block in enumerate(self.blocks):
            start = f"{self.prefix}{number}."
            heads, size = int(block.attn.num_heads), int(block.attn.head_dim)  # type: ignore[union-attr, arg-type]
            found += [
                Units(number, "heads", _both(start + "attn.qkv"), start + "attn.proj", (start + "attn.proj.bias", 1),
                      heads, size, 3),
                Units(number, "hidden", _both(start + "mlp.fc1"), start + "mlp.fc2", (start + "mlp.fc2.bias", 1),
                      len(block.get_parameter("mlp.fc1.weight"))),
            ]  # fmt: skip
        return found

    def smaller(self, kept: Mapping[tuple[int, str], int], gone: Sequence[int]) -> Spec:
        """See `Family.smaller`."""
        spec = self.encoder.spec
        assert isinstance(spec, ImageSpec)
        left = [i for i in range(len(self.blocks)) if i not in gone]
        widths = {kind: [kept[i, kind] for i in left] for kind in ("hidden", "heads")}
        return replace(spec, options={**spec.options, "depth": len(left), **widths})


class Berts(Family):
    """Hidden neurons, as many in every layer, and whole layers; heads are as many as the width asks for."""

    prefix = "backbone.net.encoder.layer."

    def units(self) -> list[Units]:
        """The hidden neurons."""
        found = []
        for number, block in enumerate(self.blocks):
            start = f"{self.prefix}{number}."
            count = len(block.get_parameter("intermediate.dense.weight"))
            reader = start + "output.dense"
            found.append(
                Units(number, "hidden", _both(start + "intermediate.dense"), reader, (reader + ".bias", 1), count)
            )
        return found

    def smaller(self, kept: Mapping[tuple[int, str], int], gone: Sequence[int]) -> Spec:
        """See `Family.smaller`."""
        spec = self.encoder.spec
        assert isinstance(spec, TextSpec)
        changes: dict[str, Any] = {"num_hidden_layers": len(self.blocks) - len(gone)}
        changes |= {"intermediate_size": next(iter(kept.values()))}
        return replace(spec, config={**spec.config, **changes})


def _both(layer: str) -> tuple[str, str]:
    return f"{layer}.weight", f"{layer}.bias"


def family_of(encoder: Encoder) -> Family:
    """Return how an encoder's network is cut.

    Raises:
        BadInput: nobody has said where it can be.
    """
    names = dict(encoder.named_modules())
    if not isinstance(getattr(encoder, "backbone", None), nn.Module):
        raise BadInput("this has no network of its own that could be cut; prune the bundle of one side, not an export")
    if isinstance(encoder.backbone, ResNet):
        return ResNets(encoder)
    if re.match("vit-", encoder.spec.name):
        return VisionTransformers(encoder)
    if isinstance(encoder.spec, TextSpec) and f"{Berts.prefix}0.intermediate.dense" in names:
        return Berts(encoder)
    raise BadInput(
        f"a {encoder.spec.name} cannot be pruned, as can resnet18|34|50, vit-tiny|small, and transformers like BERT; "
        "train a smaller encoder with --method distil instead"
    )
