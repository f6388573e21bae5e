"""``fastness train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fastness.cli import options, recipe


@options.takes_columns
@recipe.takes_recipe
def train(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA|RECIPE", help="Folder, archive, file or name of a data set; or a recipe (.yaml)."),
    ],
    *,
    asked: dict[str, Any],
    schema: Annotated[
        Path | None,
        typer.Option(help="Of a table: what its columns are, as fastness schema wrote it and you corrected."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; the same command resumes it.")] = None,
    checkpoint_every: Annotated[str, typer.Option(help="How often to save, in time.")] = "30s",
    stop_on_collapse: Annotated[
        bool, typer.Option("--stop-on-collapse", help="End when the embeddings collapse.")
    ] = False,
    log: Annotated[list[str] | None, typer.Option(help="Also log to tensorboard, mlflow, wandb.")] = None,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Train an encoder on DATA and write a bundle; what is not given is chosen for the hardware."""
    from fastness.api import new_run_folder
    from fastness.core.recipe import seconds

    address, wanted = recipe.read(data, asked, schema)
    saving = seconds(checkpoint_every)

    from fastness.training.loop import Settings
    from fastness.training.progress import Display
    from fastness.training.run import train as run

    made = run(
        address,
        wanted,
        out or new_run_folder(wanted.method),
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
    print(f"bundle     {made.bundle}\nid         {made.id}\nnext       fastness evaluate {made.bundle} {address}")
