"""``fastness prune``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


@options.takes_columns
def prune(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Real items, by which it is measured what matters.")],
    keep: Annotated[float, typer.Option(help="Share of the channels, neurons and heads that each block keeps.")] = 1.0,
    layers: Annotated[int, typer.Option(help="How many whole blocks go.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")] = Path("pruned"),
    seed: Annotated[int, typer.Option(help="By which items are taken.")] = 0,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Take out of an encoder what matters least on DATA; then let it recover with train --method distil."""
    from fastness.delivery.prune import prune as make

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    made = make(bundle, data, keep, layers=layers, out=out, seed=seed, say=say, **columns)
    if json:
        options.print_json({**asdict(made), "bundle": str(made.folder)})
        return
    before, after = made.before, made.after
    print(f"bundle     {made.folder}\nid         {made.id}")
    print(f"parameters {before.parameters:,} -> {after.parameters:,}")
    print(f"operations {before.operations:,} -> {after.operations:,} an item")
    print(f"next       fastness train {data} --method distil --init {made.folder} --option teacher={bundle}")
    print(f"its cost   fastness compare {bundle} {made.folder} --data {data}")
