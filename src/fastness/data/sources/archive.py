"""A zip or tar of a folder tree, read in place."""

from __future__ import annotations

import hashlib
import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastness.core.errors import BadInput
from fastness.core.files import atomic_path, cache_root
from fastness.data.dataset import Dataset, Quarantined
from fastness.data.frame import Cells
from fastness.data.manifest import Manifest, hash_items, printable
from fastness.data.sources import SOURCES, Columns
from fastness.data.sources.tree import (
    METADATA,
    arrange,
    as_described,
    facts_beside,
    has_picture_signature,
    is_picture_name,
)

MAX_MEMBER = 1 << 29
"""Members that unpack to more bytes are quarantined unread."""

_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError)
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


@dataclass
class ZipPayloads:
    """Reads members of a zip; one reader at a time."""

    archive: zipfile.ZipFile
    names: list[str]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, row: int) -> bytes:
        """Return the bytes of member ``row``; a damaged member raises ``OSError``."""
        with self._lock:
            try:
                return self.archive.read(self.names[row])
            except _DAMAGE as error:
                raise OSError(f"damaged in the archive: {error}") from error


@dataclass
class TarPayloads:
    """Reads members of an uncompressed tar at their offsets."""

    path: Path
    spans: list[tuple[int, int]]  # offset, size

    def read(self, row: int) -> bytes:
        """Return the bytes of member ``row``."""
        offset, size = self.spans[row]
        with self.path.open("rb") as handle:
            handle.seek(offset)
            data = handle.read(size)
        if len(data) < size:
            raise OSError("the archive ends within this item")
        return data


@SOURCES.register("archive")
class ArchiveSource:
    """Opens zip and tar files."""

    def accepts(self, data: Any, columns: Columns) -> bool:
        """Files with a zip's or tar's name."""
        return isinstance(data, Path) and data.is_file() and data.name.lower().endswith((".zip", *_TAR_SUFFIXES))

    def open(self, data: Any, columns: Columns) -> Dataset:
        """List and hash the members; damaged ones are quarantined."""
        opened = _open_zip(data) if data.name.lower().endswith(".zip") else _open_tar(data)
        names, payloads, quarantine, ignored, beside = opened
        good, hashes = [], []
        for row, name in enumerate(names):
            try:
                hashes.append(hash_items([payloads.read(row)]))
                good.append(row)
            except OSError as error:
                quarantine.append(Quarantined(printable(name), str(error)))
        names = [names[row] for row in good]
        facts = _facts(data, names, beside)
        arranged = as_described(arrange(names, columns, str(data)), facts, names, columns, str(data))
        table = np.concatenate(hashes) if hashes else np.zeros((0, 32), np.uint8)
        manifest = Manifest(names, table, *arranged, source=str(data), facts=facts)
        return Dataset.of(manifest, _pick(payloads, good), quarantine, ignored)


def _facts(path: Path, names: list[str], beside: Mapping[str, bytes]) -> dict[str, Cells]:
    """Return what a table at the archive's top, or in the one folder that all pictures share, says of them.

    Raises:
        BadInput: it is damaged, or names a file twice.
    """
    heads = {name.partition("/")[0] for name in names}
    for root in ("", f"{heads.pop()}/" if len(heads) == 1 else ""):
        tables = {name: content for name, content in beside.items() if f"{root}{posixpath.basename(name)}" == name}
        if tables:
            with tempfile.TemporaryDirectory() as place:
                for name, content in tables.items():
                    Path(place, posixpath.basename(name)).write_bytes(content)
                try:
                    return facts_beside(Path(place), [name.removeprefix(root) for name in names])
                except BadInput as error:
                    raise BadInput(str(error).replace(f"{place}/", f"{path}: {root}")) from None
    return {}


def _says_more(name: str) -> bool:
    """Whether a member is a table that says more of the pictures."""
    return posixpath.basename(name) in METADATA and name.count("/") < 2


def _pick(payloads: ZipPayloads | TarPayloads, rows: list[int]) -> ZipPayloads | TarPayloads:
    if isinstance(payloads, ZipPayloads):
        return ZipPayloads(payloads.archive, [payloads.names[row] for row in rows])
    return TarPayloads(payloads.path, [payloads.spans[row] for row in rows])


def _open_zip(path: Path) -> tuple[list[str], ZipPayloads, list[Quarantined], int, dict[str, bytes]]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, *_DAMAGE) as error:
        raise BadInput(f"{path}: not readable as a zip ({error}); download or pack it again") from None
    if any(info.flag_bits & 1 for info in archive.infolist()):
        raise BadInput(f"{path}: is encrypted; unpack it with its password first")
    names, quarantine, ignored = [], [], 0
    beside: dict[str, bytes] = {}
    for info in archive.infolist():
        if info.is_dir() or _hidden(info.filename):
            continue
        if info.file_size > MAX_MEMBER:
            quarantine.append(Quarantined(printable(info.filename), f"unpacks to {info.file_size:,} bytes"))
        elif is_picture_name(info.filename) or _starts_like_picture(archive, info):
            names.append(info.filename)
        else:
            ignored += 1
            if _says_more(info.filename):
                try:
                    beside[info.filename] = archive.read(info)
                except (OSError, *_DAMAGE) as error:
                    raise BadInput(f"{path}: {info.filename} is damaged ({error}); pack it again") from None
    names = sorted(dict.fromkeys(names))
    return names, ZipPayloads(archive, names), quarantine, ignored, beside


def _starts_like_picture(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(info) as member:
            return has_picture_signature(member.read(16))
    except (OSError, *_DAMAGE):
        return False


def _open_tar(path: Path) -> tuple[list[str], TarPayloads, list[Quarantined], int, dict[str, bytes]]:
    plain = path if path.suffix == ".tar" else _unpacked(path)
    spans: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    quarantine, ignored = [], 0
    beside: dict[str, bytes] = {}
    for member in _members(plain, path):
        name = member.name.removeprefix("./")
        if _hidden(name):
            continue
        if member.islnk() or member.issym():
            folder = posixpath.dirname(name) if member.issym() else ""
            links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
            continue
        if not member.isfile():
            continue
        if member.size > MAX_MEMBER:
            quarantine.append(Quarantined(printable(name), f"unpacks to {member.size:,} bytes"))
        elif is_picture_name(name) or has_picture_signature(_head(plain, member)):
            spans[name] = (member.offset_data, member.size)
        else:
            ignored += 1
            if _says_more(name):
                beside[name] = _head(plain, member, member.size)
    for name, target in links.items():
        if target in spans:
            spans[name] = spans[target]
        elif is_picture_name(name):
            quarantine.append(Quarantined(printable(name), f"a link to {printable(target)}, which is no picture here"))
    names = sorted(spans)
    return names, TarPayloads(plain, [spans[name] for name in names]), quarantine, ignored, beside


def _members(plain: Path, path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(plain, "r:") as archive:
            yield from archive
    except tarfile.TarError as error:
        raise BadInput(f"{path}: not readable as a tar ({error}); download or pack it again") from None


def _head(plain: Path, member: tarfile.TarInfo, most: int = 16) -> bytes:
    """Return the first bytes of a member, fewer if it is shorter."""
    with plain.open("rb") as handle:
        handle.seek(member.offset_data)
        return handle.read(min(most, member.size))


def _unpacked(path: Path) -> Path:
    """Return the plain tar of a compressed one, made once, since a compressed one cannot be read at an offset."""
    stat = path.stat()
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    target = cache_root() / "unpacked" / f"{place}-{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}.tar"
    if not target.exists():
        import bz2
        import gzip

        openers: dict[str, Callable[..., Any]] = {
            ".bz2": bz2.open,
            ".tbz2": bz2.open,
            ".xz": lzma.open,
            ".txz": lzma.open,
        }
        opener = openers.get(path.suffix, gzip.open)
        try:
            with atomic_path(target) as temporary, opener(path, "rb") as packed, temporary.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        except (OSError, lzma.LZMAError, EOFError, zlib.error, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's doing, not the file's
            raise BadInput(f"{path}: its compression is damaged ({error}); download or pack it again") from None
    return target


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
