"""``fastness schema``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


@options.takes_columns
def schema(
    data: Annotated[str, typer.Argument(help="A table.")],
    out: Annotated[Path | None, typer.Option(help="Write it to this file; default: print it.")] = None,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Say what each column of a table is taken for; correct the file and train with --schema FILE."""
    from fastness.core.files import write_text
    from fastness.data import open_data
    from fastness.data.learn import learn
    from fastness.data.table import frame_of_rows

    found = learn(frame_of_rows(open_data(data, modality="table", **columns).training_part()))
    if out is not None:
        write_text(out, found.sketch())
    if json:
        options.print_json(found.to_dict())
    elif out is not None:
        roles = "".join(f" --{name} {shlex.quote(value)}" for name, value in columns.items() if value)
        print(f"next       correct {out}, then fastness train {data}{roles} --schema {out}")
    else:
        print(found.sketch(), end="")
