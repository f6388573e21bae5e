"""Files by their SHA-256, in a folder or wherever else fsspec reaches."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fastness.core.errors import BadInput, Failure
from fastness.core.files import disk_errors

_PIECE = 1 << 20
_ARRIVING = "arriving"  # folder of files that are not whole yet
_MEND = "add its bundle again, or copy the file from a backup"
_DIGEST = re.compile("[0-9a-f]{64}")


class Lost(Failure):
    """A file is not in the store, or not what was put there."""


class Store:
    """A place for files that never change.

    Args:
        url: a folder, or what fsspec calls one (``s3://bucket/registry``); it need not be there yet.

    Raises:
        BadInput: nothing installed speaks with such a place.
    """

    def __init__(self, url: str) -> None:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        self.url = url
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise BadInput(f"{url}: cannot keep files there ({error})") from None
        self._root = str(root).rstrip("/")
        self._folder = Path(self._root) if isinstance(self._fs, LocalFileSystem) else None

    def add(self, file: Path | bytes) -> tuple[str, int]:
        """Keep a file, or bytes; return their SHA-256 and how many they are. When it returns they are on the disk.

        One that is there already is read, and written anew if it was damaged.
        """
        with self._errors(), _opened(file) as source:
            if self._folder is None:
                return self._put(source)
            return self._arrived(source, self._folder)

    def _arrived(self, source: BinaryIO, folder: Path) -> tuple[str, int]:
        """Copy to a name of its own, then to that of what was copied."""
        (folder / _ARRIVING).mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder / _ARRIVING)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as target:
                digest, size = _copied(source, target)
                target.flush()
                os.fsync(target.fileno())
            if not self._holds(digest, size):
                place = folder / digest[:2] / digest
                place.parent.mkdir(exist_ok=True)
                temporary.chmod(0o644)
                temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
        return digest, size

    def _put(self, source: BinaryIO) -> tuple[str, int]:
        digest, size = _copied(source, None)
        if not self._holds(digest, size):
            place = self._place(digest)
            source.seek(0)
            with self._fs.open(place, "wb") as target:
                again, _ = _copied(source, target)
            if again != digest:
                self._fs.rm_file(place)
                raise Failure(f"{self.url}: a file changed while it was read; add it again when nobody writes it")
        return digest, size

    def _holds(self, digest: str, size: int) -> bool:
        place = self._place(digest)
        if not self._fs.exists(place) or self._fs.size(place) != size:
            return False
        with self._fs.open(place, "rb") as kept:
            found, _ = _copied(kept, None)
        return found == digest

    def read(self, digest: str) -> bytes:
        """Return a file's bytes; see `fetch`."""
        found = io.BytesIO()
        self._get(digest, found)
        return found.getvalue()

    def fetch(self, digest: str, target: Path) -> None:
        """Write a file to a path.

        Raises:
            Lost: it is not there, or not what was put there.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as handle:
            self._get(digest, handle)

    def _get(self, digest: str, target: BinaryIO) -> None:
        with self._errors():
            try:
                with self._fs.open(self._place(digest), "rb") as source:
                    found, _ = _copied(source, target)
            except FileNotFoundError:
                raise Lost(f"{self._place(digest)}: is missing from the store; {_MEND}") from None
        if found != digest:
            raise Lost(f"{self._place(digest)}: was changed in the store; {_MEND}")

    def digests(self) -> Iterator[tuple[str, int]]:
        """Yield the SHA-256 of every file that is kept, and its bytes."""
        with self._errors():
            found: dict[str, Any] = self._fs.find(self._root, detail=True) if self._fs.exists(self._root) else {}
        for path, known in found.items():
            name = path.rpartition("/")[2]
            if _DIGEST.fullmatch(name):
                yield name, int(known["size"])

    def remove(self, digests: Iterable[str]) -> None:
        """Forget files; those that are not there are passed over."""
        with self._errors():
            for place in map(self._place, digests):
                if self._fs.exists(place):
                    self._fs.rm_file(place)

    def clear_arrivals(self) -> None:
        """Remove what was left half-written by a process that was killed; nothing may be arriving."""
        if self._folder is not None and (self._folder / _ARRIVING).exists():
            shutil.rmtree(self._folder / _ARRIVING)

    def _place(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with disk_errors(Path(self.url)):
                yield
        except (FileNotFoundError, PermissionError, TimeoutError, ConnectionError) as error:
            raise Failure(f"{self.url}: {' '.join(str(error).split())[:300]}") from error


@contextmanager
def _opened(file: Path | bytes) -> Iterator[BinaryIO]:
    with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as source:
        yield source


def _copied(source: BinaryIO, target: BinaryIO | None) -> tuple[str, int]:
    """Read to the end, write what was read if there is a target, and return its SHA-256 and its size."""
    digest, size = hashlib.sha256(), 0
    while piece := source.read(_PIECE):
        digest.update(piece)
        size += len(piece)
        if target is not None:
            target.write(piece)
    return digest.hexdigest(), size
