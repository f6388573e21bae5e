"""Options that several verbs share, and how they print."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Image = Annotated[str | None, typer.Option(help="Column or array that holds the pictures.")]
Label = Annotated[str | None, typer.Option(help="Column that holds the label; 'none' ignores class folders.")]
Split = Annotated[str | None, typer.Option(help="Column that holds the split; 'none' ignores split folders.")]
Group = Annotated[str | None, typer.Option(help="Column whose equal values stay together; 'folder' for trees.")]
Columns = dict[str, str | None]


def columns(image: str | None, label: str | None, split: str | None, group: str | None) -> Columns:
    """Return the four options as `open_data` takes them."""
    return {"image": image, "label": label, "split": split, "group": group}


def print_json(value: dict[str, Any]) -> None:
    """Print one line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False, default=str))
