"""``fastness drill``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastness.cli import options
from fastness.cli.registry import Where

if TYPE_CHECKING:
    from fastness.monitoring.drill.drill import Drilled


@options.takes_columns
def drill(
    spec: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="What is copied; itself it is not touched.")],
    data: Annotated[str, typer.Option(help="Items as production has them when all is well.")],
    policy: Annotated[Path, typer.Option(help="The monitor's, which is rehearsed; nobody is told of it.")],
    drift: Annotated[str | None, typer.Option(help="Items as they might become; default: DATA, corrupted.")] = None,
    accidents: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Of drift, errors and latency; default: all.")
    ] = None,
    form: Annotated[str | None, typer.Option(help="Of the export that serves; as of fastness serve.")] = None,
    window: Annotated[float, typer.Option(min=1, max=3600, help="Seconds that a window lasts here.")] = 5,
    patience: Annotated[float, typer.Option(min=1, help="Seconds that an alarm, and recovery, may take.")] = 120,
    items: Annotated[int, typer.Option(min=1, help="Most that are asked about.")] = 500,
    out: Annotated[Path, typer.Option(help="Folder of the copy; another drill's is removed.")] = Path("runs/drill"),
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    where: Where = None,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Rehearse on a copy what a policy notices, how soon and what it does; ends with 3 if it misses something."""
    from fastness.monitoring.drill.drill import ACCIDENTS
    from fastness.monitoring.drill.drill import drill as rehearse
    from fastness.monitoring.policy import Policy
    from fastness.registry import Registry

    options.watched(spec)
    stated = Policy.load(policy)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the copy's processes are ended too
    with Registry(where, create=False) as opened:
        found = rehearse(
            opened,
            spec,
            data,
            stated,
            out,
            drift=drift,
            accidents=options.names(accidents) or ACCIDENTS,
            form=form,
            window=window,
            patience=patience,
            items=items,
            seed=seed,
            say=lambda line: print(line, file=sys.stderr, flush=True),
            **columns,
        )
    if json:
        options.print_json(found.to_dict())
    else:
        _print(found)
    found.enforce()


def _print(found: Drilled) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(highlight=False)
    table = Table("accident", "detected", "windows", "by", Column("done", overflow="fold"), "over", box=None)
    for one in found.accidents:
        done = ", ".join(f"{name} {_seconds(at)}" for name, at in one.done.items()) or "-"
        over = f"{_seconds(one.recovered)} by {one.mended_by}" if one.mended_by else "-"
        when = "no" if one.detected is None else _seconds(one.detected)
        table.add_row(one.accident, when, str(one.windows), one.signal or "-", escape(done), over)
    console.print(table)
    for one in found.accidents:
        if one.said:
            console.print(escape(one.said), soft_wrap=True)
    versions = " after ".join(reversed(found.versions))
    print(
        f"{found.spec}: {versions}; windows of {found.window:g} s, {found.peace} without alarm before\n{found.folder}"
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
