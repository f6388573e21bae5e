"""``fastness sketch``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fastness.cli import options

_MANY = 0.5  # share of trained items that is worth a word


@options.takes_columns
def sketch(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Items as production should see them, best held out from training.")],
    form: Annotated[
        str | None, typer.Option(help="Of the export that will serve; default: the encoder itself.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="Which head answers; may be left out where there is one.")] = None,
    side: Annotated[str | None, typer.Option(help="Which side of things with several.")] = None,
    items: Annotated[int, typer.Option(min=1, help="Most that are kept.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Keep beside a bundle how its items look, so that production can be compared with it."""
    from fastness.monitoring.sketching import sketch as make

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    found = make(bundle, data, form=form, head=head, side=side, most=items, seed=seed, say=say, **columns)
    shown = dict(zip(found.names, map(float, found.shares), strict=True))
    if json:
        options.print_json({**found.about, "clusters": shown, "columns": sorted(found.window.columns)})
        return
    print(f"{len(found.window):,} items in {len(shown)} clusters, beside the bundle in sketch/")
    for name, share in sorted(shown.items(), key=lambda one: -one[1])[:10]:
        print(f"{share:7.1%} {name}")
    print(f"known      {', '.join(sorted(found.window.columns))}")
    if found.about["trained"] > _MANY:
        said = f"{found.about['trained']:.0%} of these items the encoder was trained on, and new ones may lie otherwise"
        print(f"note       {said}; give held-out items if there are any")
