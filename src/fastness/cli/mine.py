"""``fastness mine``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


@options.takes_columns
def mine(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Pairs of texts: --text FIRST,SECOND.")],
    out: Annotated[Path, typer.Option(help="triplets.parquet or .csv.")] = Path("triplets.parquet"),
    number: Annotated[int, typer.Option(min=1, help="Hard negatives a pair.")] = 1,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="A negative stays below the right answer's cosine by this share of it.")
    ] = 0.05,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Turn pairs into triplets with hard negatives, for training with --text anchor,positive,negative."""
    from fastness.tasks.mine import mine as make

    triplets, without = make(bundle, data, out, number=number, margin=margin, **columns)
    if json:
        options.print_json({"out": str(out), "triplets": triplets, "without": without})
        return
    print(f"{out}: {triplets:,} triplets; {without:,} pairs had no hard negative")
    print(f"next       fastness train {out} --text anchor,positive,negative --init {bundle}")
