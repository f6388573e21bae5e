"""``fastness bench``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastness.cli import options

if TYPE_CHECKING:
    from fastness.delivery.bench import Bench
    from fastness.delivery.bench.row import Row


@options.takes_columns
def bench(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Real items to measure with; labels make accuracy known.")],
    edge: Annotated[
        str | None, typer.Option(metavar="CORES,MEMORY", help="Such as 1core,512MB; the limits are enforced.")
    ] = None,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="All of this machine too; without --edge that is what is measured.")
    ] = False,
    forms: Annotated[list[str] | None, typer.Option(help="Export these first where they are missing.")] = None,
    side: Annotated[str | None, typer.Option(help="Which side of things with several.")] = None,
    batch: Annotated[list[str] | None, typer.Option(metavar="SIZES", help="Items at once; default 1,8,64.")] = None,
    threads: Annotated[
        list[str] | None, typer.Option(metavar="COUNTS", help="Default: one, and one for each of the profile's cores.")
    ] = None,
    calls: Annotated[int, typer.Option(help="Timed of each form, threads and batch; a p99 wants 100.")] = 120,
    seconds: Annotated[float, typer.Option(help="In each repeat, no call begins later.")] = 5.0,
    repeats: Annotated[int, typer.Option(help="Processes of each form, in turns with the others.")] = 3,
    items: Annotated[int, typer.Option(help="Items that are handed over, in turn.")] = 128,
    quality: Annotated[bool, typer.Option(help="Measure accuracy and robustness too.")] = True,
    corrupted: Annotated[int, typer.Option(help="Held-out items that are corrupted in every way.")] = 100,
    watts: Annotated[float, typer.Option(help="Of a busy core, where energy is estimated: an assumption.")] = 5.0,
    price_hour: Annotated[float | None, typer.Option(help="Of an hour of the cloud's machine, any currency.")] = None,
    price_gb: Annotated[float | None, typer.Option(help="Of 10^9 bytes over the wire.")] = None,
    price_kwh: Annotated[float | None, typer.Option(help="Of the energy at the edge.")] = None,
    target: Annotated[
        str | None, typer.Option(help="Such as p99<20ms,size<10MB: picks a form, of the edge if given; else exit 3.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: bench/PROFILE in the bundle's.")] = None,
    seed: Annotated[int, typer.Option(help="By which items are taken.")] = 0,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Measure what every exported form costs on this machine and how good it is; a target picks one."""
    from fastness.delivery.bench import Prices
    from fastness.delivery.bench import bench as measure

    found = measure(
        bundle,
        data,
        edge=edge,
        cloud=cloud,
        forms=options.names(forms) or (),
        side=side,
        batches=_numbers("--batch", batch) or (1, 8, 64),
        threads=_numbers("--threads", threads),
        calls=calls,
        seconds=seconds,
        repeats=repeats,
        items=items,
        quality=quality,
        corrupted=corrupted,
        watts=watts,
        prices=Prices(price_hour, price_gb, price_kwh),
        target=target,
        out=out,
        seed=seed,
        say=lambda line: print(line, file=sys.stderr),
        **columns,
    )
    if json:
        options.print_json({"folder": str(found.folder), **found.to_dict()})
    else:
        _print(found)
    found.enforce()


def _numbers(option: str, listed: list[str] | None) -> list[int] | None:
    """Return whole numbers between commas."""
    from fastness.core.errors import BadInput

    try:
        return [int(name) for name in options.names(listed) or ()] or None
    except ValueError:
        raise BadInput(
            f"{option} {','.join(listed or ())}: give whole numbers with commas between, as in 1,8"
        ) from None


def _print(found: Bench) -> None:
    """Print the tables, what is to be known of them, and what the target picks."""
    from fastness.delivery.bench.page import said

    _print_forms(found)
    for profile in found.about["profiles"]:
        _print_rows(profile["name"], [row for row in found.rows if row.profile == profile["name"]])
    wire = found.about["wire"]
    print(f"wire       an item {wire['raw']:,.0f} bytes, its embedding {wire['float32']:,} (int8: {wire['int8']:,})")
    for line in said(found):
        print(f"note       {line}")
    print(f"page       {found.folder / 'bench.html'}")
    if found.choice is not None and found.choice.row is not None:
        print(f"target     {found.choice.why}")
        for form, why in found.choice.others.items():
            print(f"           {form}: {why}")


def _print_forms(found: Bench) -> None:
    """Print what is the same whatever the threads and the batch."""
    from rich.console import Console
    from rich.table import Table

    from fastness.delivery.bench.page import forms
    from fastness.delivery.bench.profiles import figure

    costs = found.about["costs"]
    priced = [where for where in ("cloud", "edge") if any(cost[where] is not None for cost in costs.values())]
    on = " and ".join(profile["name"] for profile in found.about["profiles"])
    heads = [f"1M, {where}" for where in priced]
    table = Table("form", "size", f"start-up ({on})", "accuracy", "robustness", *heads, box=None, pad_edge=False)
    for form, known in forms(found.rows).items():
        money = ["–" if costs[form][where] is None else figure(costs[form][where]) for where in priced]
        start = ", ".join(known["startup"].values())
        table.add_row(form, known["size"], start, known["accuracy"], known["robustness"], *money)
    Console(highlight=False).print(table)


def _print_rows(profile: str, rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    from fastness.delivery.bench.profiles import figure

    heads = ("p50 ms", "p95 ms", "p99 ms", "items/s", "memory MB", "J/1,000", "calls")
    table = Table(profile, "threads", "batch", *heads, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for row in rows:
        start = (row.form, str(row.threads), str(row.batch))
        if row.trouble is None:
            times = [None if value is None else value * 1e3 for value in (row.p50, row.p95, row.p99)]
            memory = None if row.memory is None else row.memory / 1e6
            figures = [*times, row.throughput, memory, row.energy]
            table.add_row(*start, *("–" if x is None else figure(x) for x in figures), str(row.calls))
    Console(highlight=False).print(table)
    for row in rows:
        if row.trouble is not None:
            print(f"{row.form}, {row.how}: {row.trouble}")
