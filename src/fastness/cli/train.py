"""``fastness train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fastness.cli import options


@options.takes_columns
def train(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA|RECIPE", help="Folder, archive, file or name of a data set; or a recipe (.yaml)."),
    ],
    method: Annotated[
        str | None, typer.Option(help="How it learns; fastness methods lists all.  [default: chosen for the data]")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="resnet18|34|50, vit-tiny|small, timm:NAME; for texts transformer, static; for tables mlp, "
            "ft-transformer.  [default: chosen for the data]"
        ),
    ] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first stage, or width throughout.")] = None,
    stem: Annotated[str | None, typer.Option(help="small or imagenet.")] = None,
    init: Annotated[str | None, typer.Option(help="Start from this bundle, or timm:NAME.")] = None,
    unfreeze: Annotated[int | None, typer.Option(help="With --init: train only the last N blocks.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the pictures in pixels, or most tokens of a text.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length in passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option(help="Length in optimiser steps.")] = None,
    budget: Annotated[str | None, typer.Option(help="Length in time, e.g. 10m.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Items in one loss.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches whose gradients make one step.")] = None,
    effective_batch: Annotated[
        int | None, typer.Option(help="Items in one loss, computed --batch-size at a time (gradient cache).")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="Contrastive loss; fastness methods lists them.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, lars, adamw.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option()] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps that raise the rate.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the contrastive loss.")] = None,
    view: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Change the views, e.g. --view flip=0.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Change the network, e.g. --network layers=6.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(help="Of a table: what its columns are, as fastness schema wrote it and you corrected."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Change the method, e.g. --option queue=8192.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32, bf16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda.")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the encoder.")] = False,
    seed: Annotated[int | None, typer.Option()] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; the same command resumes it.")] = None,
    checkpoint_every: Annotated[str, typer.Option(help="How often to save, in time.")] = "30s",
    stop_on_collapse: Annotated[
        bool, typer.Option("--stop-on-collapse", help="End when the embeddings collapse.")
    ] = False,
    log: Annotated[list[str] | None, typer.Option(help="Also log to tensorboard, mlflow, wandb.")] = None,
    json: options.Json = False,
    *,
    columns: options.Columns,
) -> None:
    """Train an encoder on DATA and write a bundle; what is not given is chosen for the hardware."""
    asked: dict[str, Any] = {
        "method": method,
        "encoder": encoder,
        "width": width,
        "stem": stem,
        "init": init,
        "unfreeze": unfreeze,
        "size": size,
        "epochs": epochs,
        "steps": steps,
        "budget": budget,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "effective_batch": effective_batch,
        "optimizer": optimizer,
        "lr": lr,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "clip": clip,
        "temperature": temperature,
        "precision": precision,
        "device": device,
        "seed": seed,
        "compile": compile or None,
        "views": _changes(view, "--view"),
        "network": {**_changes(network, "--network"), **_columns(schema)},
        "options": {**_changes(option, "--option"), **({"loss": loss} if loss else {})},
    }
    asked = {name: value for name, value in asked.items() if value not in (None, {})}
    from fastness.api import new_run_folder
    from fastness.core.recipe import Recipe, seconds

    data, saved = _recipe_file(data)
    for name in ("views", "options", "network"):
        if isinstance(saved.get(name), dict) and name in asked:
            asked[name] = {**saved[name], **asked[name]}
    recipe = Recipe.parse({**saved, **asked}, "options" if not saved else "recipe and options")
    saving = seconds(checkpoint_every)

    from fastness.training.loop import Settings
    from fastness.training.progress import Display
    from fastness.training.run import train as run

    made = run(
        data,
        recipe,
        out or new_run_folder(recipe.method),
        columns=columns,
        settings=Settings(saving, stop_on_collapse),
        loggers=log,
        display=Display(quiet=json),
    )
    if os.environ.get("RANK", "0") != "0":
        return  # the first of several processes speaks for all
    if json:
        options.print_json(
            {
                "bundle": str(made.bundle),
                "id": made.id,
                "steps": made.steps,
                "seconds": round(made.seconds, 1),
                "knn": made.knn,
                "quarantined": made.quarantined,
                "recipe": made.recipe.to_dict(),
            }
        )
        return
    print(f"bundle     {made.bundle}\nid         {made.id}\nnext       fastness evaluate {made.bundle} {data}")


def _recipe_file(data: str) -> tuple[str, dict[str, Any]]:
    """Return the data's address and the recipe's fields if a recipe file was given instead of data."""
    if not data.endswith((".yaml", ".yml")):
        return data, {}
    from fastness.core.errors import BadInput
    from fastness.core.recipe import read_mapping

    fields = read_mapping(Path(data))
    if "data" not in fields:
        raise BadInput(f"{data}: a recipe needs a line 'data: FOLDER'")
    return str(fields.pop("data")), fields


def _columns(schema: Path | None) -> dict[str, Any]:
    """Return what a schema's file says of columns, as the recipe keeps it."""
    if schema is None:
        return {}
    from fastness.core.recipe import read_mapping
    from fastness.data.schema import Schema

    Schema.read(schema)  # says which column is wrong
    return {"schema": read_mapping(schema)["columns"]}


def _changes(texts: list[str] | None, name: str) -> dict[str, Any]:
    """Return ``NAME=VALUE`` texts as a mapping; values are read as YAML, so numbers are numbers."""
    import yaml

    from fastness.core.errors import BadInput

    changes = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadInput(f"{name} {text}: write NAME=VALUE")
        changes[key] = yaml.safe_load(value)
    return changes
