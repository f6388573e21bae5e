"""What nobody needs any more: versions that serve nowhere are given up, and files that no row speaks of are removed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from fastness.registry.registry import Registry, Version, as_version
from fastness.registry.says import now
from fastness.registry.tables import aliases, moves, uploads, versions

_DAY = 86_400_000_000  # microseconds
_STALE = _DAY  # an upload that was begun so long ago was killed
_TOGETHER = 200  # files that are removed while nobody else may write


@dataclass(frozen=True)
class Collected:
    """What was given up.

    Attributes:
        versions: that have no files any more; they stay in the list and in the log.
        files, bytes: that are gone, or would be.
        left: files that nobody speaks of and that stay for now, since somebody uploads.
    """

    versions: list[Version]
    files: int
    bytes: int
    left: int


def collect(registry: Registry, *, newest: int = 3, days: float = 30.0, dry: bool = False) -> Collected:
    """Give up old versions, then remove every file that nothing speaks of.

    A version stays that an alias names, that an alias named within so many days, or that is among the newest of its
    name. May be killed at any moment and be run again; an upload under way is let alone.

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
    with registry.database.reading() as connection:
        spoken_of = needed(registry, connection, gone)
    idle = {digest: size for digest, size in registry.store.digests() if digest not in spoken_of}
    if dry:
        return Collected(gone, len(idle), sum(idle.values()), 0)
    removed = _removed(registry, idle)
    return Collected(gone, len(removed), sum(idle[d] for d in removed), len(idle) - len(removed))


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


def needed(registry: Registry, connection: sa.Connection, gone: Sequence[Version] = ()) -> set[str]:
    """Return the SHA-256 of every file that a row speaks of; of the versions without those that are to go."""
    without = {version.manifest for version in gone}
    found = set()
    for version in map(as_version, connection.execute(sa.select(versions).where(versions.c.collected.is_(None)))):
        if version.manifest not in without:
            found |= {version.manifest, *(digest for digest, _ in registry.files(version).values())}
    for gate in connection.execute(sa.select(moves.c.gate).where(moves.c.gate.is_not(None))).scalars():
        found |= set(gate.get("evidence", {}).values())
    return found


def _removed(registry: Registry, idle: dict[str, int]) -> list[str]:
    """Remove files as long as nobody uploads, who might count on one of them."""
    waiting, removed = sorted(idle), list[str]()
    while waiting:
        with registry.database.writing() as connection:
            connection.execute(uploads.delete().where(uploads.c.at < now() - _STALE))
            if connection.execute(sa.select(uploads.c.id).limit(1)).first() is not None:
                break
            registry.store.remove(waiting[:_TOGETHER])
            removed += waiting[:_TOGETHER]
            waiting = waiting[_TOGETHER:]
            registry.store.clear_arrivals()
    return removed
