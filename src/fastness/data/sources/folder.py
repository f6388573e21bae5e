"""A folder tree of pictures; classes from folders if there are any, splits from folders of that name."""

from __future__ import annotations

import errno
import hashlib
import os
import stat as modes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.core.files import atomic_path, cache_root
from fastness.core.hardware import cores
from fastness.data.dataset import Dataset, Quarantined
from fastness.data.manifest import HashArray, Manifest, printable
from fastness.data.sources import SOURCES, Columns
from fastness.data.sources.tree import arrange, as_described, facts_beside, is_picture_name, looks_like_picture

_Entry = tuple[str, os.DirEntry[str]]


@dataclass(frozen=True)
class _Files:
    """Relative paths of a tree with what tells whether a file changed: size, mtime, ctime (ns), inode."""

    names: list[str]
    stats: npt.NDArray[np.int64]  # [N, 4]


@dataclass(frozen=True)
class FolderPayloads:
    """Reads files of a tree by their number."""

    root: str
    names: list[str]

    def read(self, row: int) -> bytes:
        """Return the bytes of file ``row``."""
        with open(os.path.join(self.root, self.names[row]), "rb") as handle:  # noqa: PTH118, PTH123 - hot loop
            return handle.read()


@SOURCES.register("folder")
class FolderSource:
    """Opens a folder, or one picture file."""

    def accepts(self, data: Any, columns: Columns) -> bool:
        """Any existing folder, and a single file that looks like a picture."""
        return isinstance(data, Path) and (data.is_dir() or (data.is_file() and looks_like_picture(data)))

    def open(self, data: Any, columns: Columns) -> Dataset:
        """List, hash and arrange the files. Hashes of files that did not change come from the last time."""
        root = data if data.is_dir() else data.parent
        files, quarantine, ignored = _list(_walk(root) if data.is_dir() else _alone(data))
        hashes, unreadable = _hashes(root, files, data)
        if unreadable:
            keep = np.setdiff1d(np.arange(len(files.names)), list(unreadable))
            quarantine += [Quarantined(printable(files.names[row]), why) for row, why in unreadable.items()]
            files, hashes = _Files([files.names[i] for i in keep], files.stats[keep]), hashes[keep]
        facts = facts_beside(root, files.names) if data.is_dir() else {}
        arranged = as_described(arrange(files.names, columns, str(data)), facts, files.names, columns, str(data))
        manifest = Manifest(files.names, hashes, *arranged, source=str(data), facts=facts)
        return Dataset.of(manifest, FolderPayloads(str(root), files.names), quarantine, ignored)


def _list(found: Iterator[_Entry]) -> tuple[_Files, list[Quarantined], int]:
    """Return the picture files in order of their paths, links that lead nowhere, and how many others."""
    names: list[str] = []
    stats: list[tuple[int, int, int, int]] = []
    quarantine: list[Quarantined] = []
    ignored = 0
    for path, entry in found:
        try:
            stat = entry.stat()
        except OSError as error:
            loop = error.errno == errno.ELOOP
            reason = (
                "a link that leads to itself"
                if loop
                else "a link that leads nowhere"
                if entry.is_symlink()
                else "cannot be read"
            )
            quarantine.append(Quarantined(printable(path), reason))
            continue
        if not modes.S_ISREG(stat.st_mode):
            quarantine.append(Quarantined(printable(path), "a link to something that is no file"))
        elif is_picture_name(entry.name) or looks_like_picture(Path(entry.path)):
            names.append(path)
            stats.append((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
        else:
            ignored += 1
    order = sorted(range(len(names)), key=names.__getitem__)
    table = np.array(stats, dtype=np.int64).reshape(-1, 4)[order]
    return _Files([names[i] for i in order], table), quarantine, ignored


def _alone(path: Path) -> Iterator[_Entry]:
    """Yield one file as `_walk` would, without a look at what lies below its folder."""
    with os.scandir(path.parent) as scan:
        yield from ((entry.name, entry) for entry in scan if entry.name == path.name)


def _walk(root: Path) -> Iterator[_Entry]:
    """Yield (relative path, entry) of all files; follows links to folders, each real folder once.

    Links are followed last and in order, so that a folder keeps its own name and the result its order.
    """
    seen: set[str] = set()
    pending = [("", str(root), os.path.realpath(root))]
    links: list[tuple[str, str, str]] = []
    while pending or links:
        if not pending:
            links.sort(reverse=True)
            pending.append(links.pop())
        prefix, folder, real = pending.pop()
        if real in seen:
            continue
        seen.add(real)
        try:
            scan = os.scandir(folder)
        except PermissionError:
            raise BadInput(
                f"{folder}: not allowed to read this folder; change its permissions or leave it out"
            ) from None
        with scan:
            for entry in scan:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{prefix}{entry.name}/", entry.path, os.path.join(real, entry.name)))  # noqa: PTH118
                elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 - entry.is_dir trips over loops
                    target = os.path.realpath(entry.path)
                    if not _inside(real, target):
                        links.append((f"{prefix}{entry.name}/", entry.path, target))
                elif entry.is_symlink() or entry.is_file():
                    yield f"{prefix}{entry.name}", entry


def _inside(real: str, ancestor: str) -> bool:
    """Whether a link to ``ancestor`` from within the folder ``real`` would lead round in a circle."""
    return real == ancestor or real.startswith(ancestor.rstrip("/") + "/")


def _hashes(root: Path, files: _Files, opened: Path) -> tuple[HashArray, dict[int, str]]:
    """Return SHA-256 of each file, reading only those that are new or changed; and those unreadable."""
    known = cache_root() / "manifests" / f"{hashlib.sha256(os.fsencode(opened.resolve())).hexdigest()[:32]}.arrow"
    hashes, fresh = _remembered(known, files)
    unreadable: dict[int, str] = {}
    if len(fresh):
        blocks = np.array_split(fresh, max(1, len(fresh) // 512))
        with ThreadPoolExecutor(cores()) as pool:
            for found, bad in pool.map(lambda rows: _hash_rows(root, files, rows), blocks):
                unreadable |= bad
                for row, digest in found:
                    hashes[row] = np.frombuffer(digest, np.uint8)
        if not unreadable:
            _remember(known, files, hashes)
    return hashes, unreadable


def _hash_rows(
    root: Path, files: _Files, rows: npt.NDArray[np.int64]
) -> tuple[list[tuple[int, bytes]], dict[int, str]]:
    payloads = FolderPayloads(str(root), files.names)
    found, bad = [], {}
    for row in rows.tolist():
        try:
            found.append((row, hashlib.sha256(payloads.read(row)).digest()))
        except OSError as error:
            bad[row] = f"cannot be read ({error.strerror})"
    return found, bad


def _remembered(known: Path, files: _Files) -> tuple[HashArray, npt.NDArray[np.int64]]:
    """Return hashes remembered for unchanged files, and the numbers of those that must be read."""
    import pyarrow as pa

    hashes = np.zeros((len(files.names), 32), np.uint8)
    everything = np.arange(len(files.names))
    try:
        with pa.memory_map(str(known)) as handle:
            table = pa.ipc.open_file(handle).read_all()
            old_stats = np.stack([table[c].to_numpy() for c in ("size", "mtime", "ctime", "inode")], axis=1)
            stored = table["sha256"].combine_chunks()
            old_hashes = np.frombuffer(stored.buffers()[1], np.uint8)[: 32 * len(stored)].reshape(-1, 32)
            if (table.schema.metadata or {}).get(b"names") == _digest(files.names):
                same = (old_stats == files.stats).all(1)
                hashes[same] = old_hashes[same]
                return hashes, everything[~same]
            old_names = [os.fsdecode(name) for name in table["name"].to_pylist()]
    except (OSError, pa.ArrowInvalid, KeyError):
        return hashes, everything  # never opened before, or written by another version: read all
    position = {name: i for i, name in enumerate(old_names)}
    at = np.array([position.get(name, -1) for name in files.names], np.int64)
    same = at >= 0
    same[same] = (old_stats[at[same]] == files.stats[same]).all(1)
    hashes[same] = old_hashes[at[same]]
    return hashes, everything[~same]


def _digest(names: list[str]) -> bytes:
    """Return a hash of all names in order: comparing it is a hundred times faster than comparing the names."""
    return hashlib.sha256(os.fsencode("\0".join(names))).hexdigest().encode()


def _remember(known: Path, files: _Files, hashes: HashArray) -> None:
    import pyarrow as pa

    columns = {"name": pa.array([os.fsencode(name) for name in files.names], pa.binary())}
    columns |= {c: pa.array(files.stats[:, i]) for i, c in enumerate(("size", "mtime", "ctime", "inode"))}
    columns["sha256"] = pa.array([row.tobytes() for row in hashes], pa.binary(32))
    table = pa.table(columns).replace_schema_metadata({"names": _digest(files.names)})
    with (
        atomic_path(known) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
