"""``fastness sign``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


def sign(
    folder: Annotated[Path, typer.Argument(help="Of a bundle, or of an export.")],
    key: Annotated[Path, typer.Option(help="The private key; see fastness key.")],
    model_signing: Annotated[
        Path | None, typer.Option(help="An elliptic-curve key: write FOLDER.model.sig for OpenSSF model-signing too.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Sign every file of a bundle, its exports and evidence too; sign again when some were added."""
    from fastness.delivery.signing import sign as write_signature

    signed = write_signature(folder, key, model_signing=model_signing)
    if json:
        options.print_json(asdict(signed))
        return
    print(f"signed     {signed.files:,} files, {signed.bytes / 1e6:.1f} MB, with the key {signed.key[:16]}…")
