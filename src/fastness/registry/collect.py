"""What nobody needs any more: versions that serve nowhere are given up, and files that no row speaks of are removed."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from fastness.registry.registry import Registry, Version, as_version, listed
from fastness.registry.says import now
from fastness.registry.store import Lost
from fastness.registry.tables import aliases, moves, uploads, versions

_DAY = 86_400_000_000  # microseconds
_STALE = _DAY  # an upload that was begun so long ago was killed
_TOGETHER = 200  # files that are removed while nobody else may write
Lists = dict[str, list[str]]
"""SHA-256 of the files of a version, by its manifest: never another, so that each is read once."""
Rows = tuple[list[int], int | None]


@dataclass(frozen=True)
class Collected:
    """What was given up.

    Attributes:
        versions: that have no files any more; they stay in the list and in the log.
        files, bytes: that are gone, or would be.
        left: files that nobody speaks of and that stay for now, since somebody uploads.
        unread: versions whose list of files is lost; as long as there are any, no file is removed.
    """

    versions: list[Version]
    files: int
    bytes: int
    left: int
    unread: list[str]


@dataclass(frozen=True)
class Needed:
    """What rows speak of.

    Attributes:
        files: by SHA-256, who needs it.
        unread: versions whose list of files is lost, and what is wrong with it; what else they need nobody knows.
    """

    files: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


def collect(registry: Registry, *, newest: int = 3, days: float = 30.0, dry: bool = False) -> Collected:
    """Give up old versions, then remove every file that nothing speaks of.

    A version stays that an alias names, that an alias named within so many days, or that is among the newest of its
    name. May be killed at any moment and be run again; an upload under way is let alone, and so is all of the store
    while a version's list of files is lost.

    Args:
        registry: whose.
        newest: how many of each name stay in any case.
        days: how long something stays that has served.
        dry: change nothing, only say.
    """
    if dry:
        with registry.database.reading() as connection:
            gone = _unneeded(connection, newest, days)
    else:
        with registry.database.writing() as connection:
            gone = _unneeded(connection, newest, days)
            for version in gone:
                same = (versions.c.name == version.name, versions.c.number == version.number)
                connection.execute(versions.update().where(*same).values(collected=now()))
    lists: Lists = {}
    with registry.database.reading() as connection:
        seen = _rows(connection)
        found = needed(registry, connection, gone if dry else (), lists)
    idle = {digest: size for digest, size in registry.store.digests() if digest not in found.files}
    removed, left = [] if found.unread else sorted(idle), 0
    if not dry:
        removed, left, found = _removed(registry, removed, seen, found, lists)
    if found.unread:
        said = "; ".join(found.unread.values())[:500]
        logging.getLogger("fastness").warning("%s: no file is removed for now: %s", registry.shown, said)
    return Collected(gone, len(removed), sum(idle[d] for d in removed), left, sorted(found.unread))


def _unneeded(connection: sa.Connection, newest: int, days: float) -> list[Version]:
    """Return the versions that may be given up."""
    since = now() - round(days * _DAY)
    kept = {(row.name, row.number) for row in connection.execute(sa.select(aliases))}
    ends: dict[tuple[str, str], int] = {}
    for move in connection.execute(sa.select(moves).where(moves.c.what != "refuse").order_by(moves.c.id.desc())):
        if ends.get((move.name, move.alias), since) >= since:  # it named this until then
            kept.add((move.name, move.number))
        ends[move.name, move.alias] = move.at
    found = []
    by_name = sa.select(versions).order_by(versions.c.name, versions.c.number.desc())
    for _, group in itertools.groupby(connection.execute(by_name), key=lambda row: row.name):
        live = [row for row in group if row.collected is None]
        found += [row for row in live[newest:] if (row.name, row.number) not in kept]
    return [as_version(row) for row in found]


def needed(
    registry: Registry, connection: sa.Connection, gone: Sequence[Version] = (), lists: Lists | None = None
) -> Needed:
    """Return the files that rows speak of.

    Args:
        registry: whose.
        connection: that reads it.
        gone: versions that are to go, and need nothing.
        lists: those that were read before; more are added.
    """
    lists = {} if lists is None else lists
    found, without = Needed(), set(map(str, gone))
    for version in map(as_version, connection.execute(sa.select(versions).where(versions.c.collected.is_(None)))):
        if str(version) not in without:
            try:
                if version.manifest not in lists:
                    files = listed(version, registry.store.read(version.manifest)).values()
                    lists[version.manifest] = [version.manifest, *(digest for digest, _ in files)]
                found.files.update(dict.fromkeys(lists[version.manifest], str(version)))
            except Lost as error:
                found.unread[str(version)] = f"the list of files of {version} is lost ({error})"
    judged = sa.select(moves.c.name, moves.c.alias, moves.c.gate).where(moves.c.gate.is_not(None))
    for move in connection.execute(judged):
        evidence = move.gate.get("evidence", {}).values()
        found.files.update(dict.fromkeys(evidence, f"what a gate saw of {move.name}@{move.alias}"))
    return found


def _rows(connection: sa.Connection) -> Rows:
    """Return what is another whenever rows speak of other files."""
    live = sa.select(versions.c.id).where(versions.c.collected.is_(None)).order_by(versions.c.id)
    return list(connection.execute(live).scalars()), connection.execute(sa.select(sa.func.max(moves.c.id))).scalar()


def _removed(
    registry: Registry, waiting: list[str], seen: Rows, found: Needed, lists: Lists
) -> tuple[list[str], int, Needed]:
    """Remove files as long as nobody uploads, who might count on one of them.

    Who has uploaded since the rows were seen may count on one, too: then it is looked again at what they speak of.

    Returns:
        what was removed, how many files are left, and what rows speak of by now.
    """
    removed: list[str] = []
    while waiting:
        with registry.database.writing() as connection:
            connection.execute(uploads.delete().where(uploads.c.at < now() - _STALE))
            if connection.execute(sa.select(uploads.c.id).limit(1)).first() is not None:
                break
            if (there := _rows(connection)) != seen:
                seen, found = there, needed(registry, connection, lists=lists)
                waiting = [] if found.unread else [digest for digest in waiting if digest not in found.files]
            registry.store.remove(waiting[:_TOGETHER])
            removed += waiting[:_TOGETHER]
            waiting = waiting[_TOGETHER:]
            registry.store.clear_arrivals()
    return removed, len(waiting), found
