"""``fastness verify``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


def verify(
    folder: Annotated[Path, typer.Argument(help="Of a bundle, or of an export.")],
    key: Annotated[
        list[Path] | None, typer.Option(help="Public keys that are trusted; default: FASTNESS_TRUSTED_KEYS.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Say whether a folder is to the last byte what somebody trusted has signed; ends with 3 if it is not."""
    from fastness.delivery.signing import verify as check

    signed = check(folder, *(key or ()))
    if json:
        options.print_json(asdict(signed))
        return
    print(f"verified   {signed.files:,} files, {signed.bytes / 1e6:.1f} MB, nothing changed, added or missing")
    print(f"signed     {signed.time} with the key {signed.key[:16]}…")
    print(f"id         {signed.id}")
