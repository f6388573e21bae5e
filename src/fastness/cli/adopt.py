"""``fastness adopt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


def adopt(
    name: Annotated[str, typer.Argument(help="timm:NAME, or resnet18|34|50, vit-tiny|small.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    weights: Annotated[Path | None, typer.Option(help="A .safetensors or torch file with a state dict.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Let timm download its weights.")] = False,
    size: Annotated[int | None, typer.Option(help="Side of the input in pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first ResNet stage.")] = None,
    json: options.Json = False,
) -> None:
    """Make a bundle of an encoder that was trained elsewhere."""
    from fastness.bundle.adopt import adopt as make

    bundle = make(name, out, weights=weights, size=size, width=width, pretrained=pretrained)
    if json:
        options.print_json({"bundle": str(bundle.path), "id": bundle.id, "dim": bundle.dim})
    else:
        print(f"bundle     {bundle.path}\nid         {bundle.id}")
