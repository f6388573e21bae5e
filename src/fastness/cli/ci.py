"""``fastness ci``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options
from fastness.cli.registry import By, Stored, Where, Why


def ci(
    file: Annotated[Path, typer.Argument(help="YAML that says what is made and released; see docs/ci.md.")],
    out: Annotated[Path | None, typer.Option(help="Folder; the same again goes on; default: runs/ci-NAME.")] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Stop after train, evaluate, head, export, sign, add, gate or index."),
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Judge it, but sign, add and move nothing.")] = False,
    override: Annotated[bool, typer.Option("--override", help="Release without a gate's yes; needs --why.")] = False,
    why: Why = "",
    by: By = None,
    where: Where = None,
    store: Stored = None,
    json: options.Json = False,
) -> None:
    """Train, evaluate, export, sign, add, judge and promote, as FILE says; what is done is not done again."""
    from fastness.ci import Job, Plan

    job = Job(
        Plan.load(file),
        out,
        called=str(file),
        until=until,
        registry=where,
        store=store,
        by=by,
        why=why,
        override=override,
        dry=dry,
        say=lambda line: print(line, file=sys.stderr, flush=True),
        quiet=json,
    )
    try:
        job.run()
    finally:
        if json and job.record is not None:
            options.print_json(job.record.to_dict())
    if not json:
        assert job.record is not None
        for entry in job.record.entries.values():
            print(f"{entry.step:<10} {entry.result['said']}")
        print(f"record     {job.path}")
