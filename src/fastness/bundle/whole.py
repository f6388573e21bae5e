"""Is a bundle whole? What its core is, what id that gives, and whether its files are those written and signed."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fastness.core.errors import BadInput, GateRefused
from fastness.core.files import sha256_file
from fastness_runtime import Unusable, signature

FORMAT = 2
CORE = ("encoder.json", "recipe.json", "data.json", "items.parquet")
_LONGEST = 64 << 20  # bytes of a file that describes a bundle


def verified(folder: Path, keys: Sequence[Path]) -> signature.Signed:
    """Return what is known of a folder that one of the keys has signed.

    Raises:
        BadInput: a key cannot be read.
        GateRefused: a file was changed, added or left out, or nobody trusted has signed.
    """
    try:
        for file in keys:
            signature.public_key(file)
    except Unusable as error:
        raise BadInput(str(error)) from None
    try:
        return signature.verify(folder, keys)
    except Unusable as error:
        raise GateRefused(str(error)) from None


def core_of(folder: Path) -> dict[str, Any]:
    """Return what ``bundle.json`` says of a bundle whose core is whole.

    Raises:
        BadInput: no bundle there, or a file of its core is missing or was changed.
    """
    described_in = folder / "bundle.json"
    try:
        if described_in.stat().st_size > _LONGEST:
            raise BadInput(f"{described_in}: is larger than any bundle's; get an intact copy")
        described: dict[str, Any] = json.loads(described_in.read_text(encoding="utf-8"))
        stated = described["core"]
        if described["format"] != FORMAT:
            raise BadInput(
                f"{folder}: bundle format {described['format']} is not this version's ({FORMAT}); "
                "upgrade fastness, or make the bundle anew"
            )
        if not set(CORE) <= set(stated) or not all(map(_inside, stated)):
            raise BadInput(f"{described_in}: its list of files is not a bundle's; get an intact copy")
        for name in stated:
            if not (folder / name).is_file():
                raise FileNotFoundError(errno.ENOENT, "is missing", name)
            if name.endswith(".json") and (folder / name).stat().st_size > _LONGEST:
                raise BadInput(f"{folder / name}: is larger than any bundle's; get an intact copy")
            if sha256_file(folder / name) != stated[name]:
                raise BadInput(f"{folder / name}: was changed after the bundle was made; get an intact copy")
        if identity_of(stated) != described["id"]:
            raise BadInput(f"{described_in}: its id does not fit its files; get an intact copy")
    except FileNotFoundError as error:
        raise BadInput(
            f"{folder}: no bundle here ({Path(str(error.filename)).name} is missing); train or adopt one"
        ) from None
    except (ValueError, KeyError, TypeError, NotADirectoryError, IsADirectoryError, RecursionError) as error:
        raise BadInput(f"{folder}: is no readable bundle ({type(error).__name__}: {error})") from None
    return described


def _inside(name: str) -> bool:
    """Whether a file's name leads to a place inside the bundle's folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def identity_of(hashes: dict[str, str]) -> str:
    """Return the id of a bundle whose files have these hashes."""
    text = "".join(f"{name}\0{hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(text.encode()).hexdigest()
