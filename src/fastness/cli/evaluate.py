"""``fastness evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastness.cli import options

if TYPE_CHECKING:
    from fastness.evaluation.evaluate import Report


@options.takes_columns
def evaluate(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder; left out with --predictions.")],
    data: Annotated[
        str | None, typer.Argument(help="Labelled data; its test split is measured, or a quarter held out.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Another model's answers or embeddings of DATA (.npz, .npy, .csv, .parquet)."),
    ] = None,
    checks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Comma-separated: knn, linear, few_label …, or all; default: all but corruption and fine_tuned.",
        ),
    ] = None,
    ood: Annotated[
        list[str] | None, typer.Option(help="Data of another kind, which the encoder should notice; may be repeated.")
    ] = None,
    shift: Annotated[
        list[str] | None, typer.Option(help="Data of the same classes from elsewhere; may be repeated.")
    ] = None,
    votes: Annotated[
        Path | None, typer.Option(help="What people said of the held-out items: counts, one column a class (.npz).")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Column that names domains; from each to each.")] = None,
    slice: Annotated[
        list[str] | None,
        typer.Option(help='Column, or expression such as "brightness < 40"; may be repeated; default: usual ones.'),
    ] = None,
    sensitive: Annotated[
        list[str] | None, typer.Option(help="Column whose values are groups to be served alike; may be repeated.")
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(help="Policy (YAML) of floors and ceilings that it must pass; else exit 3.")
    ] = None,
    examples: Annotated[bool, typer.Option(help="Show items of the data in the report.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evidence and report; default: within the bundle.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Measure BUNDLE, or the predictions of any model, on DATA: evidence with protocols and intervals, and a report."""
    from fastness.core.errors import BadInput
    from fastness.evaluation.evaluate import evaluate as measure

    if predictions is None and data is None:
        raise BadInput("what to measure it on is missing; say: fastness evaluate BUNDLE DATA")
    report = measure(
        None if data is None else bundle,
        bundle if data is None else data,
        options.names(checks),
        predictions=predictions,
        ood=ood or (),
        shift=shift or (),
        votes=votes,
        domain=domain,
        out=out,
        slices=slice,
        sensitive=sensitive or (),
        policy=gate,
        examples=examples,
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
                **({} if report.verdict is None else {"gate": report.verdict.to_dict()}),
            }
        )
    else:
        print_table(report)
        print(f"evidence   {report.evidence.folder}\nreport     {report.html}")
        if report.verdict is not None and report.verdict.passed:
            print(f"gate       {report.verdict}")
    if report.verdict is not None:
        report.verdict.enforce(report.evidence.called)


def print_table(report: Report) -> None:
    """Print the measurements as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("measurement", "value", "interval", "over", box=None, pad_edge=False)
    for m in report.evidence.measurements:
        name = m.name if m.slice == "all" else f"{m.name}  {m.slice}"
        table.add_row(
            name.replace("[", r"\["),
            f"{m.value:.3f}",
            f"[{m.low:.3f}, {m.high:.3f}]".replace("[", r"\["),
            f"{m.n:,} {m.over}",
        )
    Console(highlight=False).print(table)
