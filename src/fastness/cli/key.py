"""``fastness key``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


def key(
    path: Annotated[Path, typer.Argument(help="Where the private key is written; the public one gets .pub behind it.")],
    json: options.Json = False,
) -> None:
    """Make a pair of keys to sign and to verify by; FASTNESS_PASSPHRASE locks the private one."""
    from fastness.delivery.signing import new_key

    public = new_key(path)
    if json:
        options.print_json({"private": str(path), "public": str(public)})
        return
    print(f"private    {path} (keep it; who has it can sign in your name)")
    print(f"public     {public} (give it to whoever is to verify)")
