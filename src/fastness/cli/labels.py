"""``fastness labels``: add what items truly were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options

labels = typer.Typer(no_args_is_help=True, help="Keep what items truly were, once that is known.")


@labels.command()
def add(
    spec: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="What answered for the items.")],
    file: Annotated[Path, typer.Argument(help="CSV or Parquet with the columns id and label.")],
    watch: Annotated[Path, typer.Option(help="The folder that fastness serve --watch writes to.")],
    json: options.Json = False,
) -> None:
    """Add labels of items by the ids that clients sent; of an item that has one the newer counts."""
    from fastness.monitoring.kept import labels as kept

    name, alias = options.watched(spec)
    added = kept.add(watch, name, alias, file)
    joined = len(kept.joined(watch, name, alias))
    if json:
        options.print_json({"labels": added, "joined": joined})
        return
    print(f"{added:,} labels kept; {joined:,} answers that are sampled have one now")
