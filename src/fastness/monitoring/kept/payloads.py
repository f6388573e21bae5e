"""Items themselves, kept for some hours so that an alarm can be looked at: only where that is asked for."""

from __future__ import annotations

import contextlib
import hashlib
import re
import stat
import threading
import time
from pathlib import Path

from fastness.core.errors import BadInput
from fastness.core.files import disk_errors, write_bytes

_DIGEST = re.compile("[0-9a-f]{64}")
_WAITING = 256 << 20  # bytes of items that wait to be written; more are not kept
_PAUSE = 60.0  # seconds between two looks for what is old
_PRIVATE = 0o600


class Payloads:
    """A folder of items' bytes, each named by their SHA-256. Its methods may be called from any thread.

    Args:
        folder: which holds nothing else.
        ttl: seconds after which an item is deleted, since it came last.

    Raises:
        BadInput: the time is none.
    """

    def __init__(self, folder: Path, ttl: float) -> None:
        if not ttl > 0:
            raise BadInput(f"--ttl {ttl / 3600:g}: keep items for more than no time, or leave --keep-payloads out")
        self._folder, self._ttl = folder, ttl
        if not folder.exists():
            with disk_errors(folder):
                folder.mkdir(_PRIVATE | stat.S_IXUSR, parents=True)
        self._waiting: dict[str, bytes] = {}
        self._bytes = 0
        self._lock, self._looked = threading.Lock(), 0.0

    def put(self, content: bytes) -> str:
        """Keep an item; return its SHA-256, hex. It is written by the next `flush`."""
        digest = hashlib.sha256(content).hexdigest()
        with self._lock:
            if digest not in self._waiting and self._bytes + len(content) <= _WAITING:
                self._waiting[digest] = content
                self._bytes += len(content)
        return digest

    def flush(self) -> None:
        """Delete what is older than it may become, and write what waits.

        Raises:
            Failure: the disk is full or refuses; what could not be written is not kept.
        """
        if time.monotonic() - self._looked > _PAUSE:
            self._looked = time.monotonic()
            expire(self._folder, self._ttl)
        with self._lock:
            waiting, self._waiting, self._bytes = self._waiting, {}, 0
        for digest, content in waiting.items():
            path = _place(self._folder, digest)
            if path.exists():
                path.touch()
            else:
                write_bytes(path, content)
                path.chmod(_PRIVATE)


def payload(folder: Path, digest: str) -> bytes | None:
    """Return an item's bytes, ``None`` if they are kept no more: an encoded picture, a text in UTF-8, a row as JSON."""
    if not _DIGEST.fullmatch(digest):
        return None
    try:
        return _place(folder, digest).read_bytes()
    except FileNotFoundError:
        return None


def expire(folder: Path, ttl: float) -> int:
    """Delete what came last so many seconds ago or earlier; return how many items that were."""
    before, gone = time.time() - ttl, 0
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        if not (_DIGEST.fullmatch(path.name) or path.suffix == ".tmp"):  # of one that was killed while it wrote
            continue
        with contextlib.suppress(FileNotFoundError):  # somebody else was faster
            if path.stat().st_mtime <= before:
                path.unlink()
                gone += 1
    return gone


def _place(folder: Path, digest: str) -> Path:
    return folder / digest[:2] / digest
