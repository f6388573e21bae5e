"""What is to serve: the version that an alias names and the index of a collection that goes with it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from fastness.registry.indexes import Indexed, newest
from fastness.registry.registry import Registry, Version, as_version
from fastness.registry.tables import aliases, moves, versions


@dataclass(frozen=True)
class Target:
    """What is to serve, as it was at one moment.

    Attributes:
        version: that the alias names.
        move: id of the move by which it came to do so; refusals, which move nothing, are passed over.
        since: when that was, in microseconds since 1970 (UTC).
        index: the newest of the collection for this very version; ``None`` without one, or without a collection.
    """

    version: Version
    move: int
    since: int
    index: Indexed | None


def target(registry: Registry, name: str, alias: str, collection: str | None = None) -> Target | None:
    """Return what is to serve, ``None`` if the alias names nothing; read in one transaction."""
    here = (aliases.c.name == name, aliases.c.alias == alias)
    same = sa.and_(versions.c.name == aliases.c.name, versions.c.number == aliases.c.number)
    moved = sa.select(moves).where(moves.c.name == name, moves.c.alias == alias, moves.c.what != "refuse")
    with registry.database.reading() as connection:
        row = connection.execute(sa.select(versions).join(aliases, same).where(*here)).first()
        if row is None:
            return None
        version = as_version(row)
        move = connection.execute(moved.order_by(moves.c.at.desc()).limit(1)).one()
        index = None if collection is None else newest(registry, connection, name, version.number, collection)
        return Target(version, move.id, move.at, index)
