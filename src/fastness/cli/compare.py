"""``fastness compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastness.cli import options

if TYPE_CHECKING:
    from fastness.evaluation.compare import Comparison

_SHOWN = 10  # slices where it became worse, and as many where better


@options.takes_columns
def compare(
    bundles: Annotated[list[str], typer.Argument(help="Bundles, runs or folders of evidence; the first is in use.")],
    data: Annotated[str | None, typer.Option(help="Labelled data; not needed where all are evidence.")] = None,
    checks: Annotated[list[str] | None, typer.Option(metavar="NAMES", help="As of 'fastness evaluate'.")] = None,
    slice: Annotated[
        list[str] | None,
        typer.Option(help='Column, or expression such as "brightness < 40"; may be repeated; default: usual ones.'),
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(help="Policy (YAML) that every later one must pass; else exit 3.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for compare.html, compare.json and compare.md.")] = Path("compared"),
    examples: Annotated[bool, typer.Option(help="Show items of the data on the page.")] = True,
    seed: Annotated[int, typer.Option()] = 0,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Measure BUNDLES on the same items and say what changed, item by item and slice by slice."""
    from fastness.evaluation.side_by_side import compare as compare_all

    found = compare_all(
        *bundles,
        data=data,
        checks=options.names(checks),
        slices=slice,
        policy=gate,
        out=out,
        examples=examples,
        seed=seed,
        say=lambda text: print(text, file=sys.stderr),
        **columns,
    )
    if json:
        options.print_json(found.to_dict())
    else:
        for comparison in found.comparisons:
            print_table(comparison)
        print(f"report     {found.html}")
        for verdict in found.verdicts:
            if verdict.passed:
                print(f"gate       {verdict}")
    found.enforce()


def print_table(comparison: Comparison) -> None:
    """Print what changed on all items, and on the slices where chance does not explain it."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(highlight=False)
    console.print(f"{comparison.before.called}  ->  {comparison.after.called}", soft_wrap=True)
    numbers = ("before", "after", "gain", "interval", "")
    table = Table(Column("measurement", overflow="fold"), "slice", *numbers, box=None, pad_edge=False)
    changes = comparison.changes()
    shown = [*comparison.headline(), *(d for way in changes.values() for d in way[:_SHOWN] if d.slice != "all")]
    for d in shown:
        low, high = d.gain_interval
        table.add_row(
            d.name,
            d.slice.replace("[", r"\["),
            f"{d.before:.3f}",
            f"{d.after:.3f}",
            f"{d.gain:+.3f}",
            rf"\[{low:+.3f}, {high:+.3f}]",
            f"{d.n} items" if d.paired else "not paired",
        )
    console.print(table)
