"""The backbones by name: ResNets, small ViTs, and anything that timm has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.encoders.image import BACKBONES, ImageSpec
from fastness.encoders.resnet import resnet

_VIT = {"vit-tiny": (192, 3, 6), "vit-small": (384, 6, 12)}  # width, heads, depth


def _resnet(spec: ImageSpec) -> nn.Module:
    options: dict[str, Any] = {"width": 64, "stem": "small" if spec.size <= 64 else "imagenet"}
    _refuse_unknown(spec, {**options, "inner": None})
    options |= spec.options
    if options["stem"] not in ("small", "imagenet") or not isinstance(options["width"], int) or options["width"] < 1:
        raise BadInput(f"{spec.name}: stem is small or imagenet, width a whole number from 1; got {options}")
    return resnet(int(spec.name.removeprefix("resnet")), **options)


def _vit(spec: ImageSpec) -> nn.Module:
    """A ViT with mean pooling that takes views of any size that its patches divide.

    ``width`` changes the embedding's width (a multiple of 64 channels a head); ``patch`` is an eighth of the
    image's side unless given.
    """
    from timm.models.vision_transformer import VisionTransformer

    width, heads, depth = _VIT[spec.name]
    options: dict[str, Any] = {"width": width, "patch": max(2, spec.size // 8), "depth": depth}
    _refuse_unknown(spec, {**options, "hidden": None, "heads": None})
    options |= spec.options
    width = options["width"]
    if width < 16 or width % 16 or not 1 <= options["patch"] <= spec.size or options["depth"] < 1:
        raise BadInput(
            f"{spec.name}: width is a multiple of 16, patch at most {spec.size}, depth from 1; got {options}"
        )
    heads = max(1, width // 64) if width % 64 == 0 else 1
    net = VisionTransformer(
        img_size=spec.size,
        patch_size=options["patch"],
        embed_dim=width,
        depth=options["depth"],
        num_heads=heads,
        num_classes=0,
        global_pool="avg",
        class_token=False,
        dynamic_img_size=True,
        dynamic_img_pad=True,
    )
    net.dim = width
    _slim(net, options.get("hidden"), options.get("heads"))
    return net  # type: ignore[no-any-return]


def _slim(net: nn.Module, hidden: Sequence[int] | None, heads: Sequence[int] | None) -> None:
    """Give the blocks of a ViT the hidden neurons and the attention heads that pruning left them."""
    from timm.models.vision_transformer import Attention, Mlp

    for position, block in enumerate(net.blocks):  # type: ignore[arg-type]
        width = block.attn.proj.out_features
        if heads is not None:
            own = {"num_heads": heads[position], "attn_head_dim": block.attn.head_dim}
            block.attn = Attention(width, qkv_bias=True, norm_layer=nn.LayerNorm, **own)
        if hidden is not None:
            block.mlp = Mlp(width, hidden[position])


def _refuse_unknown(spec: ImageSpec, known: dict[str, Any]) -> None:
    for name in spec.options:
        if name not in known:
            raise BadInput(f"{spec.name} has no option '{name}'; it has: {', '.join(known)}")


for _name in ("resnet18", "resnet34", "resnet50"):
    BACKBONES.register(_name)(_resnet)
for _name in _VIT:
    BACKBONES.register(_name)(_vit)


@BACKBONES.register("timm")
def timm_backbone(spec: ImageSpec) -> nn.Module:
    """Return timm's model without its classifier, not pretrained; see `adopt` for weights.

    Raises:
        BadInput: timm has no such model.
    """
    import timm

    name = spec.name.partition(":")[2]
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('.')[0][:8]}*")[:5])
        raise BadInput(f"timm has no model '{name}'" + (f"; near: {near}" if near else "; see timm.list_models()"))
    try:
        net = timm.create_model(name, pretrained=False, num_classes=0, **spec.options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"timm:{name} with {spec.options}: {' '.join(str(error).split())[:150]}") from None
    net.dim = net.num_features if not hasattr(net, "head_hidden_size") else net.head_hidden_size
    return net  # type: ignore[no-any-return]


def timm_spec(name: str, size: int | None = None) -> ImageSpec:
    """Return the spec of ``timm:name`` with the input size and normalisation that timm states for it."""
    import timm

    timm_backbone(ImageSpec(f"timm:{name}", 224))  # says what is wrong with the name
    config = timm.get_pretrained_cfg(name)
    known: dict[str, Any] = {} if config is None else config.to_dict()
    return ImageSpec(
        f"timm:{name}",
        size or int(known.get("input_size", (3, 224, 224))[-1]),
        mean=tuple(known.get("mean", (0.485, 0.456, 0.406))),
        std=tuple(known.get("std", (0.229, 0.224, 0.225))),
    )


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.safetensors`` or a torch file; nothing in the file is ever executed.

    Raises:
        BadInput: no such file, or it holds more than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such weights file") from None
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise BadInput(
            f"{path}: not readable as weights ({' '.join(str(error).split())[:150] or type(error).__name__})"
        ) from None
    except Exception as error:  # noqa: BLE001 - weights_only refuses with pickle's own error types
        raise BadInput(f"{path}: holds more than tensors and is not loaded ({type(error).__name__})") from None
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise BadInput(f"{path}: holds no state dict of tensors; save model.state_dict()")
    return loaded
