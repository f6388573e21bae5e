"""``fastness fit``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fastness.cli import options


@options.takes_columns
def fit(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Items with labels: folder, archive, file or name of a data set.")],
    name: Annotated[str, typer.Option(help="Of the head; one of that name is replaced.")] = "default",
    side: Annotated[str | None, typer.Option(help="Which side of things with several.")] = None,
    abstain: Annotated[
        float, typer.Option(help="Share of good items that may be refused an answer; 0: always answer.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Fit a head on a bundle's features, which names classes and abstains from strangers."""
    from fastness.tasks.fit import fit as make

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    head = make(bundle, data, name=name, side=side, abstain=abstain, seed=seed, say=say, **columns)
    if json:
        options.print_json({"head": str(head.folder), **head.about})
        return
    items = head.about["data"]["items"]
    print(f"head       {head.folder}\nclasses    {len(head.classes)}, fitted on {items['fit']:,} items")
    for m in head.about["measurements"]:
        print(f"{m['name']:<24} {m['value']:.3f}  [{m['low']:.3f}, {m['high']:.3f}]  n = {m['n']:,}")
    print(f"next       fastness export {bundle} {data} --head {head.name}")
