"""Files that are either whole or not there: write beside, flush, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastness.core.errors import BadInput, Failure

_IN_USE = {errno.EBUSY, errno.EINVAL}  # a working folder, a volume
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def cache_root() -> Path:
    """Return the folder for things that can be made again (``FASTNESS_CACHE`` or the user's cache)."""
    base = os.environ.get("FASTNESS_CACHE") or os.environ.get("XDG_CACHE_HOME")
    if os.environ.get("FASTNESS_CACHE"):
        return Path(str(base))
    return (Path(base) if base else Path.home() / ".cache") / "fastness"


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full or refusing disk into one line that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise Failure(f"{target}: no room left on the disk; free some space and run again") from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise Failure(f"{target}: not allowed to write here; choose another folder") from error
        if error.errno in _IN_USE:
            raise BadInput(f"{target}: cannot be replaced, since it is in use; name a folder in it") from error
        if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
            raise BadInput(f"{target}: a file or folder of another kind is in the way; choose another name") from error
        raise


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that replaces it on success and vanishes on failure.

    The caller writes a file at the yielded path. It is flushed to the disk before the rename, so that
    after a crash the name holds the old content or the new one, never a part.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o644)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(target: Path, data: bytes) -> None:
    """Write ``data`` to ``target`` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write ``text`` to ``target`` atomically, as UTF-8; a name that is no valid UTF-8 is escaped."""
    write_bytes(target, text.encode("utf-8", "backslashreplace"))


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as stable, readable JSON: sorted keys, so equal values are equal bytes."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def replace_folder(target: Path, fill: Callable[[Path], None], mark: str | None = None) -> None:
    """Let ``fill`` write a new folder beside ``target``, then put it in its place in one rename.

    Args:
        target: the folder, which may be there.
        fill: writes into an empty folder.
        mark: a file that all folders of the kind have; one that holds other things is not replaced.

    Raises:
        BadInput: something else lies there, or it cannot be replaced.
        Failure: the disk is full or refuses.
    """
    if mark is not None and target.is_dir() and any(target.iterdir()) and not (target / mark).exists():
        raise BadInput(f"{target}: holds other things, which would be replaced; name another folder")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp"))
        try:
            temporary.chmod(0o755)
            fill(temporary)
            for file in temporary.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)  # some writers make files for their owner only
                if file.is_file() and not file.is_symlink():
                    with file.open("rb+") as written:
                        os.fsync(written.fileno())
            if target.exists():
                old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:40]}.old."))
                try:
                    target.rename(old / target.name)
                except OSError:
                    old.rmdir()
                    raise
                try:
                    temporary.rename(target)
                except OSError:
                    (old / target.name).rename(target)
                    old.rmdir()
                    raise
                shutil.rmtree(old)
            else:
                temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
