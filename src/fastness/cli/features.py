"""``fastness features``: add, backfill, join, list."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastness.cli import options

if TYPE_CHECKING:
    from fastness.features.fill import Filled

features = typer.Typer(no_args_is_help=True, help="Keep embeddings as features of other models, as of a moment.")
Table = Annotated[str, typer.Argument(help="A folder, or postgresql://user@host/database?table=NAME.")]
Encoder = Annotated[str, typer.Argument(help="A bundle's or a run's folder, or NAME@NUMBER or NAME@ALIAS.")]
Unit = Annotated[str | None, typer.Option(help="Of moments that are numbers since 1970: s, ms, us; default: s.")]
Where = Annotated[
    str | None,
    typer.Option("--registry", help="A folder, or postgresql://user@host/database; default: FASTNESS_REGISTRY."),
]


@features.command()
@options.takes_columns
def add(
    table: Table,
    encoder: Encoder,
    data: Annotated[str, typer.Argument(help="What was seen; its address is remembered for a backfill.")],
    entity: Annotated[str, typer.Option(help="Column that says of whom or what an item is.")],
    time: Annotated[str | None, typer.Option(help="Column that says when it was seen: ISO 8601, or a number.")] = None,
    at: Annotated[str | None, typer.Option(help="The moment of all items, in place of --time.")] = None,
    unit: Unit = None,
    where: Where = None,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Embed DATA and keep a vector of each item; run again after a kill, it goes on where it was."""
    from fastness.features.fill import add as fill

    _said(
        fill(
            table, encoder, data, entity=entity, time=time, at=at, unit=unit, registry=where, say=_progress, **columns
        ),
        table,
        json,
    )


@features.command()
def backfill(table: Table, encoder: Encoder, where: Where = None, json: options.Json = False) -> None:
    """Let ENCODER have a vector of all that others have one of; contents that it has seen are not embedded again."""
    from fastness.features.fill import backfill as fill

    _said(fill(table, encoder, registry=where, say=_progress), table, json)


@features.command()
def join(
    table: Table,
    spine: Annotated[str, typer.Argument(help="Rows of a model's data: .csv, .tsv, .jsonl or .parquet.")],
    entity: Annotated[str, typer.Option(help="Column of SPINE that says whose vector is wanted.")],
    time: Annotated[str, typer.Option(help="Column of SPINE that says as of when.")],
    out: Annotated[Path, typer.Option(help="A .parquet file: the columns of SPINE, vector and vector_time.")],
    version: Annotated[
        str | None, typer.Option(help="Of which encoder: photos@3, or digits of a bundle's id; default: the only one.")
    ] = None,
    max_age: Annotated[str | None, typer.Option(help="What is older counts as not known: 12h, 30d.")] = None,
    unit: Unit = None,
    called: Annotated[str, typer.Option("--as", help="Name of the new column.")] = "vector",
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what there is, where a backfill is not done.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Give each row of SPINE the newest vector that was known at its moment, never a later one."""
    from fastness.features.spine import join as write

    found = write(
        table,
        spine,
        out,
        entity=entity,
        time=time,
        version=version,
        max_age=max_age,
        unit=unit,
        called=called,
        partial=partial,
    )
    rows, known = len(found.place), int((found.place >= 0).sum())
    if json:
        told = {"version": str(found.encoding), "bundle": found.encoding.bundle, "dim": found.encoding.dim}
        options.print_json({"out": str(out), "rows": rows, "known": known, "behind": found.behind, **told})
        return
    behind = f"; {found.behind:,} have an older one than others know" if found.behind else ""
    print(f"{out}: {rows:,} rows, {known:,} with a vector of {found.encoding}{behind}")


@features.command("list")
def list_(table: Table, json: options.Json = False) -> None:
    """Say what a table holds of each encoder."""
    from fastness.features import Features
    from fastness.features.moments import shown

    with Features.open(table) as opened:
        rows = opened.show()
    for row in rows:
        for end in ("first", "last"):
            row[end] = None if row[end] is None else shown(row[end])
    if json:
        options.print_json({"table": table, "encoders": rows})
        return
    for row in rows:
        told = f"{row['version']:<16} {row['events']:>10,} events of {row['entities']:,} entities, dim {row['dim']}"
        span = f", {row['first']} to {row['last']}" if row["events"] else ""
        print(told + span + (f"; {row['missing']:,} of others' missing: backfill" if row["missing"] else ""))


def _progress(line: str) -> None:
    print(line, file=sys.stderr)


def _said(filled: Filled, table: str, json: bool) -> None:
    if json:
        options.print_json({"table": table, **asdict(filled)})
        return
    more = {
        "there before": filled.kept,
        "without entity or moment": filled.undated,
        "damaged": filled.damaged,
        "of other encoders still missing": filled.left,
    }
    rest = "".join(f"; {count:,} {what}" for what, count in more.items() if count)
    print(f"{table}: {filled.events:,} events of {filled.encoding}, {filled.embedded:,} embedded{rest}")
