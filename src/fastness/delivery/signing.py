"""Keys, and signatures over every file of a bundle or an export; `fastness_runtime.signature` verifies them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from fastness.bundle.whole import core_of, verified
from fastness.core.errors import BadInput
from fastness.core.files import disk_errors, write_bytes
from fastness_runtime import Unusable, signature
from fastness_runtime.encoder import DESCRIPTION, described

PASSPHRASE = "FASTNESS_PASSPHRASE"
"""Environment variable with what a private key is locked with."""


def new_key(path: str | Path) -> Path:
    """Write a new Ed25519 key pair: the private one at ``path``, for its owner's eyes alone, the public one beside it.

    Returns:
        where the public key lies: ``path`` with ``.pub`` behind it.

    Raises:
        BadInput: a file is there already.
    """
    serialization, ed25519 = _cryptography()
    private, public = Path(path), Path(f"{path}.pub")
    for place in (private, public):
        if place.exists():
            raise BadInput(f"{place}: is there already; choose another name")
    key = ed25519.Ed25519PrivateKey.generate()
    secret = os.environ.get(PASSPHRASE, "").encode()
    lock = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, lock)
    with disk_errors(private):
        private.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            handle.write(pem)
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    write_bytes(public, key.public_key().public_bytes(serialization.Encoding.PEM, info))
    return public


def sign(folder: str | Path, key: str | Path, *, model_signing: str | Path | None = None) -> signature.Signed:
    """Sign every file of a bundle or an export; what was signed before is signed anew.

    Exports within a bundle are signed too, so that each can be verified where it is taken to.

    Args:
        folder: of the bundle or the export.
        key: file of an Ed25519 private key, PEM; its passphrase is in the environment (``FASTNESS_PASSPHRASE``).
        model_signing: file of an elliptic-curve private key (P-256, P-384 or P-521), by which a signature as the
            OpenSSF's model-signing has it is written beside the folder too, as ``FOLDER.model.sig``.

    Raises:
        BadInput: there is no bundle and no export, it is damaged, or the key is unusable.
    """
    folder, private = Path(folder), private_key(Path(key))
    if (folder / "bundle.json").exists():
        for export in sorted(folder.glob(f"exports/*/{DESCRIPTION}")):
            _sign(export.parent, private)
    found = _sign(folder, private)
    if model_signing is not None:
        _sign_as_a_model(folder, Path(model_signing))
    return found


def verify(folder: str | Path, *keys: str | Path) -> signature.Signed:
    """Return what is known of a bundle or an export that one of the public keys has signed.

    Args:
        folder: of the bundle or the export.
        keys: files of public keys; default: those of the environment (``FASTNESS_TRUSTED_KEYS``).

    Raises:
        BadInput: no key is given, or one cannot be read.
        GateRefused: a file was changed, added or left out, or nobody trusted has signed.
    """
    trusted = signature.trusted(keys or None)
    if not trusted:
        raise BadInput(f"no key to verify by; give --key FILE.pub, or set {signature.TRUSTED}")
    return verified(Path(folder), trusted)


def _sign(folder: Path, private: Any) -> signature.Signed:
    identity = _identity(folder)
    key = private.public_key().public_bytes_raw()
    try:
        files: list[dict[str, Any]] = [
            {"path": name, "bytes": size, "sha256": signature.sha256(path)}
            for name, path, size in signature.files_of(folder)
        ]
    except Unusable as error:
        raise BadInput(str(error)) from None
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    signed, called = {"id": identity, "time": now, "files": files}, signature.fingerprint(key)
    written = signature.document(signed, called, private.sign(signature.message(signed)))
    write_bytes(folder / signature.FILE, written)
    return signature.Signed(identity, now, called, len(files), sum(int(file["bytes"]) for file in files))


def _identity(folder: Path) -> str:
    """Return the id of a bundle, or of the bundle that an export was made of; both must be whole."""
    if (folder / DESCRIPTION).exists():
        try:
            return str(described(folder)["bundle"])
        except Unusable as error:
            raise BadInput(str(error)) from None
    return str(core_of(folder)["id"])


def _sign_as_a_model(folder: Path, key: Path) -> None:
    """Write the signature that ``model_signing verify key FOLDER --signature FOLDER.model.sig`` takes."""
    try:
        from model_signing import signing
    except ImportError:
        raise BadInput("--model-signing: is not here; pip install 'fastness[model-signing]'") from None
    out = folder.parent / f"{folder.name}.model.sig"
    try:
        config: Any = signing.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_signer(private_key=key).sign(folder, out)
    except (OSError, ValueError, TypeError, AttributeError) as error:  # the last where the key is of another kind
        raise BadInput(f"{key}: cannot sign ({' '.join(str(error).split())[:150]}); give a P-256 key, PEM") from None


def private_key(path: Path) -> Any:
    """Return the Ed25519 key in a file, unlocked by the environment's passphrase.

    Raises:
        BadInput: there is none, it is of another kind, or the passphrase is not its own.
    """
    serialization, ed25519 = _cryptography()
    secret = os.environ.get(PASSPHRASE, "").encode()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), secret or None)
    except (OSError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:100]
        raise BadInput(f"{path}: no private key can be read ({said}); make one with fastness key") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise BadInput(f"{path}: is no Ed25519 key; make one with fastness key")
    return key


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise BadInput("signing wants cryptography; pip install 'fastness[security]'") from None
    return serialization, ed25519
