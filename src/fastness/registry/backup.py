"""A registry as a folder, and a folder as a registry: of either kind of database, with every file that it needs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fastness.core.errors import BadInput, Failure
from fastness.core.files import write_bytes, write_json
from fastness.registry.collect import needed
from fastness.registry.registry import Registry
from fastness.registry.store import Lost, Store
from fastness.registry.tables import (
    REVISION,
    actions,
    aliases,
    controls,
    happenings,
    incidents,
    indexes,
    keys,
    moves,
    versions,
    windows,
)

_TABLES = (versions, moves, aliases, keys, indexes, windows, incidents, happenings, actions, controls)
"""In the order in which they can be filled."""

_NUMBERED = (versions, moves, indexes, windows, incidents, happenings, actions)
_SINCE = {keys.name: "0002", indexes.name: "0002"}  # the revision from which on there is such a table
_SINCE |= {table.name: "0003" for table in (windows, incidents, happenings, actions, controls)}
_ABOUT, _FILES = "backup.json", "files"


@dataclass(frozen=True)
class Backup:
    """What a backup holds: rows and files."""

    versions: int
    moves: int
    keys: int
    indexes: int
    incidents: int
    files: int

    @classmethod
    def of(cls, rows: dict[str, list[dict[str, Any]]], files: int) -> Backup:
        """Return what rows by table, and so many files, are."""
        counted = {table.name: len(rows[table.name]) for table in (versions, moves, keys, indexes, incidents)}
        return cls(**counted, files=files)


def backup(registry: Registry, folder: str | Path) -> Backup:
    """Write everything into a folder; into that of an earlier backup only what is new.

    May be killed at any moment: an earlier backup there is whole until this one is.

    Raises:
        BadInput: the folder holds something else.
        Failure: all is kept but files that are lost from the registry's store; names the versions.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / _ABOUT).exists() and not (folder / _FILES).exists():
        raise BadInput(f"{folder}: holds something else; choose an empty folder, or that of an earlier backup")
    store = Store(str(folder / _FILES))
    with registry.uploading():  # so that nothing is collected meanwhile
        with registry.database.reading() as connection:
            rows = {t.name: [dict(row._mapping) for row in connection.execute(sa.select(t))] for t in _TABLES}
            wanted = needed(registry, connection)
        there = {digest for digest, _ in store.digests()}
        lost = dict(wanted.unread)
        for digest in sorted(wanted.files.keys() - there):
            try:
                store.add(registry.store.read(digest))
                there.add(digest)
            except Lost as error:
                lost.setdefault(wanted.files[digest], str(error))
    files = len(wanted.files.keys() & there)
    _write(folder, rows, files)
    if lost:
        raise Failure(f"{folder}: all is kept but what is lost of {', '.join(lost)[:300]}: {next(iter(lost.values()))}")
    return Backup.of(rows, files)


def _write(folder: Path, rows: dict[str, list[dict[str, Any]]], files: int) -> None:
    """Write rows by table beside those of an earlier backup, say that they are meant, and only then drop the others."""
    hashes = {}
    for name, listed in rows.items():
        lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in listed).encode()
        hashes[name] = hashlib.sha256(lines).hexdigest()
        write_bytes(folder / _called(name, hashes[name]), lines)
    write_json(folder / _ABOUT, {"revision": REVISION, "tables": hashes, "files": files})
    for name, digest in hashes.items():
        for path in (folder / f"{name}.jsonl", *folder.glob(f"{name}-*.jsonl")):
            if path.name != _called(name, digest):
                path.unlink(missing_ok=True)


def _called(name: str, digest: str) -> str:
    return f"{name}-{digest}.jsonl"


def restore(registry: Registry, folder: str | Path) -> Backup:
    """Fill an empty registry with what `backup` wrote, this version's or an earlier one's: all of it, or nothing.

    Raises:
        BadInput: the registry is not empty, or the backup is not whole.
    """
    folder = Path(folder)
    rows = _read(folder)
    with registry.database.reading() as connection:
        if any(connection.execute(sa.select(table).limit(1)).first() is not None for table in _TABLES):
            raise BadInput(f"{registry.shown}: is not empty; restore into a new registry")
    store = Store(str(folder / _FILES))
    with registry.uploading():
        digests = [digest for digest, _ in store.digests()]
        for digest in digests:
            registry.store.add(store.read(digest))
        with registry.database.writing() as connection:
            for table in _TABLES:
                if rows[table.name]:
                    connection.execute(table.insert(), rows[table.name])
            registry.database.count_on(connection, *_NUMBERED)
    return Backup.of(rows, len(digests))


def _read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a backup by table."""
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        revision = str(about["revision"])
        if revision > REVISION:
            raise BadInput(f"{folder}: was written by a later version of fastness ({revision}); use that one")
        found: dict[str, list[dict[str, Any]]] = {}
        for table in _TABLES:
            found[table.name] = []
            if revision < _SINCE.get(table.name, revision):
                continue
            digest = str(about["tables"][table.name])
            path = folder / _called(table.name, digest)
            if not path.exists():
                path = folder / f"{table.name}.jsonl"  # as they were called once
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise BadInput(f"{path}: was changed after the backup was made; get an intact copy")
            found[table.name] = [json.loads(line) for line in content.decode().splitlines()]
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder}: is no whole backup ({type(error).__name__}: {error})") from None
