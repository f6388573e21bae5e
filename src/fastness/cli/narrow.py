"""``fastness narrow``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


@options.takes_columns
def narrow(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Real items, by which components are found and ways are judged.")],
    dim: Annotated[int, typer.Option(help="Length of the new vectors.")],
    whiten: Annotated[
        float | None, typer.Option(help="Strength of whitening, 0 to 1; default: what keeps most on held-out items.")
    ] = None,
    centre: Annotated[
        bool | None, typer.Option("--centre/--no-centre", help="Take the mean off; default: measured.")
    ] = None,
    cut: Annotated[
        bool, typer.Option("--cut", help="Take the first numbers, of an encoder trained with --option nested.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")] = Path("narrowed"),
    seed: Annotated[int, typer.Option(help="By which items are taken.")] = 0,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Put a linear layer behind an encoder, so that its vectors are shorter and their neighbours stay."""
    from fastness.delivery.narrowing import narrow as make

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    made = make(bundle, data, dim, whiten=whiten, centre=centre, cut=cut, out=out, seed=seed, say=say, **columns)
    if json:
        options.print_json({**asdict(made), "bundle": str(made.folder)})
        return
    chosen = made.chosen
    print(f"bundle     {made.folder}\nid         {made.id}")
    how = "cut" if cut else f"whitening {chosen.whiten:g}, {'centred' if chosen.centred else 'not centred'}"
    print(f"vectors    {made.dim} numbers; {how}; of the 10 nearest {chosen.agreement:.1%} stay")
    if chosen.accuracy is not None and made.full is not None:
        print(f"kNN        {made.full:.3f} -> {chosen.accuracy:.3f} on held-out items")
    print(f"its cost   fastness compare {bundle} {made.folder} --data {data}")
