"""``fastness drift``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastness.cli import options
from fastness.core.errors import BadInput

if TYPE_CHECKING:
    from fastness.monitoring.between import Drifted

_SHOWN = 12  # findings that are printed


@options.takes_columns
def drift(
    reference: Annotated[
        str,
        typer.Argument(help="A bundle with its sketch; or data; or embeddings of any model (.npz, .parquet)."),
    ],
    new: Annotated[str, typer.Argument(help="Data, or embeddings of the same model.")],
    bundle: Annotated[str | None, typer.Option(help="What embeds data; not needed after a bundle.")] = None,
    form: Annotated[str | None, typer.Option(help="Of the export that embeds; default: the encoder itself.")] = None,
    head: Annotated[str | None, typer.Option(help="Which head answers; may be left out where there is one.")] = None,
    side: Annotated[str | None, typer.Option(help="Which side of things with several.")] = None,
    level: Annotated[float, typer.Option(help="Chance of an alarm if nothing has changed.")] = 0.01,
    tests: Annotated[list[str] | None, typer.Option(metavar="NAMES", help="Default: all usual ones.")] = None,
    slice: Annotated[
        list[str] | None, typer.Option(help='Column, or expression such as "brightness < 40"; may be repeated.')
    ] = None,
    floor: Annotated[
        list[str] | None, typer.Option(metavar="TEST=EFFECT", help="Smallest effect that counts; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for drift.html, drift.json and drift.md.")] = Path("drifted"),
    examples: Annotated[bool, typer.Option(help="Show items of the data on the page.")] = True,
    items: Annotated[int, typer.Option(min=10, help="Most of either that are embedded.")] = 10_000,
    enforce: Annotated[bool, typer.Option("--enforce", help="Exit 3 if there is drift.")] = False,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Say whether NEW items are still like those of REFERENCE, and why not."""
    from fastness.monitoring.between import drift as compare

    found = compare(
        reference,
        new,
        bundle=bundle,
        form=form,
        head=head,
        side=side,
        level=level,
        tests=options.names(tests),
        slices=slice or (),
        floors=_floors(floor or ()),
        out=out,
        examples=examples,
        most=items,
        seed=seed,
        say=lambda text: print(text, file=sys.stderr),
        **columns,
    )
    if json:
        options.print_json(found.to_dict())
    else:
        _print(found)
    if enforce:
        found.enforce()


def _floors(given: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise BadInput(f"--floor {text}: write it like mmd=0.01") from None
    return found


def _print(found: Drifted) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(highlight=False)
    console.print(escape(found.verdict.said), soft_wrap=True)
    table = Table(Column("what", overflow="fold"), "test", "p", "effect", "", box=None, pad_edge=False)
    for f in found.verdict.findings[:_SHOWN]:
        table.add_row(escape(f.what), f.test, f"{f.p:.3g}", f"{f.effect:.3f} {f.unit}", "alarm" if f.alarm else "")
    console.print(table)
    for number, cause in enumerate(found.explanation.causes, 1):
        console.print(escape(f"{number}. {cause.said}"), soft_wrap=True)
    print(f"report     {found.html}")
