"""``fastness embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


@options.takes_columns
def embed(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Folder, archive, file or name of a data set.")],
    out: Annotated[Path, typer.Option(help="embeddings.parquet (ids and vectors) or .npy (vectors).")] = Path(
        "embeddings.parquet"
    ),
    normalize: Annotated[bool, typer.Option(help="Scale vectors to length 1.")] = True,
    precision: Annotated[str, typer.Option(help="float32; bf16; auto: bf16 where the hardware has it.")] = "float32",
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Write the embeddings of DATA; damaged items are left out and listed beside the file."""
    from fastness.tasks.embed import embed as write
    from fastness.tasks.embed import quarantine_of

    embedded = write(bundle, data, out, normalize=normalize, precision=precision, **columns)
    damaged = embedded.dataset.quarantine
    if json:
        options.print_json(
            {
                "out": str(out),
                "items": len(embedded.ids),
                "dim": int(embedded.vectors.shape[1]),
                "quarantined": len(damaged),
                "handled": dict(embedded.dataset.handled),
            }
        )
        return
    print(f"{out}: {embedded.vectors.shape[0]:,} vectors of {embedded.vectors.shape[1]} dimensions")
    if damaged:
        print(f"{quarantine_of(out)}: {len(damaged)} damaged items left out")
    for what, count in embedded.dataset.handled.items():
        print(f"{what}: {count}")
