"""Items themselves, kept for some hours so that an alarm can be looked at: only where that is asked for."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from pathlib import Path

from fastness.core.errors import BadInput
from fastness.core.files import write_bytes

_DIGEST = re.compile("[0-9a-f]{64}")
_WAITING = 4096  # items that wait to be written; more are not kept
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
        self._waiting: dict[str, bytes] = {}
        self._lock, self._looked = threading.Lock(), 0.0

    def put(self, content: bytes) -> str:
        """Keep an item; return its SHA-256, hex. It is written by the next `flush`."""
        digest = hashlib.sha256(content).hexdigest()
        with self._lock:
            if len(self._waiting) < _WAITING:
                self._waiting[digest] = content
        return digest

    def flush(self) -> None:
        """Write what waits, and delete what is older than it may become."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for digest, content in waiting.items():
            path = _place(self._folder, digest)
            if path.exists():
                path.touch()
            else:
                write_bytes(path, content)
                path.chmod(_PRIVATE)
        if time.monotonic() - self._looked > _PAUSE:
            self._looked = time.monotonic()
            expire(self._folder, self._ttl)


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
        if _DIGEST.fullmatch(path.name) and path.stat().st_mtime <= before:
            path.unlink(missing_ok=True)
            gone += 1
    return gone


def _place(folder: Path, digest: str) -> Path:
    return folder / digest[:2] / digest
