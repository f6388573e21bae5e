"""``fastness evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastness.cli import options

if TYPE_CHECKING:
    from fastness.evaluation import Report


@options.takes_columns
def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Labelled data; its test split is measured, or a quarter held out.")],
    checks: Annotated[
        str | None,
        typer.Option(help="Comma-separated: knn, linear, few_label …, or all.  [default: all but corruption]"),
    ] = None,
    ood: Annotated[
        list[str] | None, typer.Option(help="Data of another kind, which the encoder should notice; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evidence and report.  [default: within the bundle]")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    json: options.Json = False,
    *,
    columns: options.Columns,
) -> None:
    """Measure BUNDLE on DATA: evidence with protocols and intervals, and report.html."""
    from fastness.evaluation import evaluate as measure

    names = [name.strip() for name in checks.split(",") if name.strip()] if checks else None
    report = measure(
        bundle,
        data,
        names,
        ood=ood or (),
        out=out,
        seed=seed,
        say=lambda text: print(text, file=sys.stderr),
        **columns,
    )
    if json:
        options.print_json(
            {
                "report": str(report.html),
                "evidence": str(report.evidence.folder),
                "measurements": [m.to_dict() for m in report.evidence.measurements],
            }
        )
        return
    print_table(report)
    print(f"evidence   {report.evidence.folder}\nreport     {report.html}")


def print_table(report: Report) -> None:
    """Print the measurements as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("measurement", "value", "interval", "over", box=None, pad_edge=False)
    for m in report.evidence.measurements:
        table.add_row(m.name, f"{m.value:.3f}", f"[{m.low:.3f}, {m.high:.3f}]".replace("[", r"\["), f"{m.n} {m.over}")
    Console(highlight=False).print(table)
