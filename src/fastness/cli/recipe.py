"""A recipe from the command line: one option a field, changes as NAME=VALUE, and recipe files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastness.cli import options

if TYPE_CHECKING:
    from fastness.core.recipe import Recipe

# The fields of `core.recipe.Recipe` that are one value, and the loss. They are told here again, since to ask the class
# itself would import what checks it, and double the time of ``fastness --help``.
_FIELDS: dict[str, tuple[type, str]] = {
    "method": (str, "How it learns; fastness methods lists all; default: chosen for the data."),
    "encoder": (
        str,
        "resnet18|34|50, vit-tiny|small, timm:NAME; for texts transformer, static; for tables mlp, "
        "ft-transformer; default: chosen for the data.",
    ),
    "width": (int, "Channels of the first stage, or width throughout."),
    "stem": (str, "small or imagenet."),
    "init": (str, "Start from this bundle, or timm:NAME."),
    "unfreeze": (int, "With --init: train only the last N blocks."),
    "size": (int, "Side of the pictures in pixels, or most tokens of a text."),
    "epochs": (float, "Length in passes over the data."),
    "steps": (int, "Length in optimiser steps."),
    "budget": (str, "Length in time, e.g. 10m."),
    "batch_size": (int, "Items in one loss, unless --effective-batch."),
    "accumulate": (int, "Batches whose gradients make one step."),
    "effective_batch": (int, "Items in one loss, computed --batch-size at a time (gradient cache)."),
    "loss": (str, "Contrastive loss; fastness methods lists them."),
    "optimizer": (str, "sgd, lars, adamw."),
    "lr": (float, "Peak learning rate."),
    "weight_decay": (float, "Of weights, not of biases or normalisation."),
    "warmup": (float, "Share of the steps that raise the rate."),
    "clip": (float, "Largest norm of the gradient."),
    "temperature": (float, "Of the contrastive loss."),
    "precision": (str, "auto, float32, bf16."),
    "device": (str, "auto, cpu, cuda."),
    "compile": (bool, "Compile the encoder."),
    "seed": (int, "Of every random choice."),
}
# Those that are several: the option, and an example.
_CHANGES = {
    "views": ("--view", "Change the views, e.g. --view flip=0."),
    "network": ("--network", "Change the network, e.g. --network layers=6."),
    "options": ("--option", "Change the method, e.g. --option queue=8192."),
}


def takes_recipe(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb that has a parameter ``asked`` an option a field; it gets a mapping of those that were given."""
    added: dict[str, Any] = {}
    for name, (kind, text) in _FIELDS.items():
        flag = (f"--{name}",) if kind is bool else ()  # without its opposite
        added[name] = Annotated[kind | None, typer.Option(*flag, help=text)]
    for name, (option, text) in _CHANGES.items():
        added[name] = Annotated[list[str] | None, typer.Option(option, metavar="NAME=VALUE", help=text)]

    def gathered(given: dict[str, Any]) -> dict[str, Any]:
        changes = {name: _changes(given.pop(name), option) for name, (option, _) in _CHANGES.items()}
        return {name: value for name, value in {**given, **changes}.items() if value not in (None, {})}

    return options.taking(verb, "asked", added, gathered)


def read(data: str, asked: dict[str, Any], schema: Path | None) -> tuple[str, Recipe]:
    """Return the data's address and the recipe, of which options override what a recipe file says.

    Args:
        data: address of the data, or a recipe file that has a line ``data:``.
        asked: what `takes_recipe` gathered.
        schema: file that says what a table's columns are.

    Raises:
        BadInput: an option or a file is unusable.
    """
    from fastness.core.recipe import Recipe

    saved: dict[str, Any] = {}
    if data.endswith((".yaml", ".yml")):
        data, saved = _file(Path(data))
    if schema is not None:
        asked["network"] = {**asked.get("network", {}), **_columns(schema)}
    for name in _CHANGES:
        if isinstance(saved.get(name), dict) and name in asked:
            asked[name] = {**saved[name], **asked[name]}
    if "loss" in asked.get("options", {}):
        saved.pop("loss", None)  # the same, said otherwise
    return data, Recipe.parse({**saved, **asked}, "options" if not saved else "recipe and options")


def _file(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the data's address and the recipe's fields that a recipe file holds."""
    from fastness.core.errors import BadInput
    from fastness.core.recipe import read_mapping

    fields = read_mapping(path)
    if "data" not in fields:
        raise BadInput(f"{path}: a recipe needs a line 'data: FOLDER'")
    return str(fields.pop("data")), fields


def _columns(schema: Path) -> dict[str, Any]:
    """Return what a schema's file says of columns, as the recipe keeps it."""
    from fastness.core.recipe import read_mapping
    from fastness.data.schema import Schema

    Schema.read(schema)  # says which column is wrong
    return {"schema": read_mapping(schema)["columns"]}


def _changes(texts: list[str] | None, name: str) -> dict[str, Any]:
    """Return ``NAME=VALUE`` texts as a mapping; values are read as YAML, so numbers are numbers."""
    import yaml

    from fastness.core.errors import BadInput
    from fastness.core.recipe import stated

    changes = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadInput(f"{name} {text}: write NAME=VALUE")
        try:
            changes[key] = stated(value)
        except (yaml.YAMLError, ValueError) as error:  # the latter of what looks like a date and is none
            said = str(getattr(error, "problem", None) or error).splitlines()[0]
            raise BadInput(
                f"{name} {key}={' '.join(value.split())}: not readable as YAML ({said}); close what is open, and put "
                f"text in two pairs of quotes, e.g. {name} {key}='\"TEXT\"'"
            ) from None
    return changes
