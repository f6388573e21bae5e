"""Is a folder, to the last byte, what somebody signed?

``signature.json`` lists every file beside and below it with its size and SHA-256, and has an Ed25519 signature (RFC
8032) over that list. Nothing of the folder is read as anything but bytes before it has been verified. What is verified
is the folder at that moment: keep those out who could change it between then and its use.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fastness_runtime.errors import Unusable

FILE = "signature.json"
TRUSTED = "FASTNESS_TRUSTED_KEYS"
"""Environment variable: files of public keys, separated as paths are in PATH. One of them must have signed."""

FORMAT = 1
_MOST = 8 << 20  # bytes of a signature file
_DIGEST = re.compile("[0-9a-f]{64}")
Key = str | Path
Keys = Key | Sequence[Key] | None


@dataclass(frozen=True)
class Signed:
    """What was verified.

    Attributes:
        id: of the bundle that was signed, or from which the export was made.
        time: when it was signed, ISO 8601 in UTC, as the signer's clock had it.
        key: SHA-256 of the public key's 32 bytes, hex.
        files: how many.
        bytes: of them all.
    """

    id: str
    time: str
    key: str
    files: int
    bytes: int


def trusted(keys: Keys) -> list[Path]:
    """Return the files of the keys that are trusted: those given, none if none are given, else the environment's."""
    if keys is None:
        return [Path(name) for name in os.environ.get(TRUSTED, "").split(os.pathsep) if name]
    return [Path(keys)] if isinstance(keys, str | Path) else [Path(key) for key in keys]


def verify(folder: Path, keys: Sequence[Path]) -> Signed:
    """Return what is known of a folder that one of the keys has signed.

    Args:
        folder: of a bundle or an export.
        keys: files of Ed25519 public keys, PEM.

    Raises:
        Unusable: a file was changed, added or left out, leads elsewhere, or nobody trusted has signed; names it.
    """
    path = folder / FILE
    if not path.is_file():
        raise Unusable(f"{folder}: is not signed; get it from somebody you trust, or sign it (fastness sign)")
    if path.stat().st_size > _MOST:
        raise Unusable(f"{path}: is larger than any signature; get an intact copy")
    written = path.read_bytes()
    signed, key = _checked(path, written, [public_key(file) for file in keys])
    stated = _stated(path, signed)
    present = {name: size for name, _, size in files_of(folder)}
    for name in sorted(stated.keys() ^ present.keys()):
        how = "was added after signing" if name in present else "is missing"
        raise Unusable(f"{folder / name}: {how}; sign again if that was you, else get an intact copy")
    for name, (size, digest) in stated.items():
        if present[name] != size or sha256(folder / name) != digest:
            raise Unusable(f"{folder / name}: was changed after signing; sign again if that was you, else get a copy")
    return Signed(str(signed["id"]), str(signed["time"]), key, len(stated), sum(size for size, _ in stated.values()))


def files_of(folder: Path) -> Iterator[tuple[str, Path, int]]:
    """Yield the name below the folder, the path and the size of every file but the signature, in order of names.

    Empty folders are not told of.

    Raises:
        Unusable: something is no plain file or folder, or has a name that other systems read otherwise.
    """
    seen: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise Unusable(f"{folder}: {name!r} is a link or no plain file; put the file itself there")
        same = unicodedata.normalize("NFC", name).casefold()
        if seen.setdefault(same, name) != name or not plain(name):
            raise Unusable(f"{folder}: the name {name!r} means something else elsewhere; rename it")
        if path.is_file() and name != FILE:
            yield name, path, path.stat().st_size


def message(signed: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed."""
    text = json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return b"fastness signature 1\n" + text.encode()


def document(signed: Mapping[str, Any], key: str, signature: bytes) -> bytes:
    """Return the bytes of ``signature.json``; there is one way to write it, so that no byte of it can be changed."""
    whole = {"format": FORMAT, "key": key, "signature": base64.b64encode(signature).decode(), "signed": signed}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def fingerprint(raw: bytes) -> str:
    """Return by what a public key of 32 bytes is called."""
    return hashlib.sha256(raw).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _checked(path: Path, written: bytes, keys: Sequence[Any]) -> tuple[dict[str, Any], str]:
    """Return what was signed and by which key."""
    from cryptography.exceptions import InvalidSignature

    try:
        whole = json.loads(written)
        signed, claimed = dict(whole["signed"]), str(whole["key"])
        signature = base64.b64decode(whole["signature"], validate=True)
        same = document(signed, claimed, signature) == written and _DIGEST.fullmatch(claimed) is not None
    except (ValueError, KeyError, TypeError, RecursionError):
        same = False
    if not same:
        raise Unusable(f"{path}: is no signature of this version; get an intact copy")
    key = next((key for key in keys if fingerprint(key.public_bytes_raw()) == claimed), None)
    if key is None:
        raise Unusable(f"{path}: was signed with the key {claimed[:16]}…, which is not among those you trust")
    try:
        key.verify(signature, message(signed))
    except InvalidSignature:
        raise Unusable(f"{path}: its signature is not of what it lists; get an intact copy") from None
    return signed, claimed


def _stated(path: Path, signed: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Return the size and the hash of each file that is listed."""
    try:
        stated = {str(f["path"]): (int(f["bytes"]), str(f["sha256"])) for f in signed["files"]}
        if len(stated) != len(signed["files"]) or not all(map(plain, stated)) or not {"id", "time"} <= set(signed):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Unusable(f"{path}: lists files as no signature does; get an intact copy") from None
    return stated


def plain(name: str) -> bool:
    """Whether a name leads to one place below the folder, on any system."""
    path = PurePosixPath(name)
    whole = path.as_posix() == name and not path.is_absolute() and ".." not in path.parts and name not in ("", ".")
    return whole and "\\" not in name and ":" not in name and name.isprintable()


def public_key(path: Path) -> Any:
    """Return the Ed25519 key in a file.

    Raises:
        Unusable: there is none.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise Unusable("verifying wants cryptography; pip install fastness-runtime[verify]") from None
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Unusable(
            f"{path}: no public key here ({type(error).__name__}); give the .pub file of fastness key"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise Unusable(f"{path}: is no Ed25519 key; give the .pub file of fastness key")
    return key
