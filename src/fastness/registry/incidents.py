"""Incidents: what is wrong with what serves, once each, with all that happened to it; the past is not rewritten.

Of a signal at an alias at most one incident is not closed, which the database itself sees to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fastness.core.errors import BadInput
from fastness.registry.outbox import ended
from fastness.registry.registry import Registry
from fastness.registry.says import now, someone
from fastness.registry.tables import happenings
from fastness.registry.tables import incidents as table

OPEN, ACKNOWLEDGED, CLOSED = "open", "acknowledged", "closed"
"""What an incident can be."""


@dataclass(frozen=True)
class Incident:
    """Something that is wrong with what an alias names.

    Attributes:
        id: grows with time.
        name, alias: where.
        kind: the signal that alarmed.
        key: what tells it from others at the same place.
        state: ``open``, ``acknowledged`` (somebody has seen it) or ``closed``.
        version: that served when it was opened, as ``NAME@NUMBER``.
        opened: end of the window by which it was opened, in microseconds since 1970 (UTC).
        seen: end of the last window that alarmed.
        times: how many windows alarmed since.
        closed: when it was closed, ``None`` if it is not.
        title: what is wrong, in a sentence.
    """

    id: int
    name: str
    alias: str
    kind: str
    key: str
    state: str
    version: str
    opened: int
    seen: int
    times: int
    closed: int | None
    title: str

    def __str__(self) -> str:
        return f"incident {self.id}"


@dataclass(frozen=True)
class Happening:
    """What happened to an incident.

    Attributes:
        id: grows with time.
        incident: the incident's id.
        at: when, in microseconds since 1970 (UTC); not earlier than what happened to it before.
        what: ``opened``, ``acknowledged``, ``note``, ``closed``, or what an action did.
        by, said: who, and what in words.
        detail: figures, as JSON values.
    """

    id: int
    incident: int
    at: int
    what: str
    by: str
    said: str
    detail: dict[str, Any] | None


def incidents(
    registry: Registry, name: str | None = None, alias: str | None = None, *, closed: bool = True, limit: int = 1000
) -> list[Incident]:
    """Return incidents, the newest first.

    Args:
        registry: that keeps them.
        name, alias: of what; default: all.
        closed: whether those that are over are among them.
        limit: how many at most.
    """
    wanted = sa.select(table).order_by(table.c.id.desc()).limit(limit)
    for column, value in ((table.c.name, name), (table.c.alias, alias)):
        wanted = wanted if value is None else wanted.where(column == value)
    wanted = wanted if closed else wanted.where(table.c.state != CLOSED)
    with registry.database.reading() as connection:
        return [as_incident(row) for row in connection.execute(wanted)]


def incident(registry: Registry, id: int) -> Incident:
    """Return an incident.

    Raises:
        BadInput: there is none by this number.
    """
    with registry.database.reading() as connection:
        return _numbered(registry, connection, id)


def timeline(registry: Registry, id: int) -> list[Happening]:
    """Return all that happened to an incident, the oldest first."""
    wanted = sa.select(happenings).where(happenings.c.incident == id).order_by(happenings.c.id)
    with registry.database.reading() as connection:
        rows = connection.execute(wanted).all()
    return [Happening(**{name: getattr(row, name) for name in Happening.__dataclass_fields__}) for row in rows]


def note(registry: Registry, id: int, said: str, by: str | None = None) -> None:
    """Write into an incident's timeline, also of one that is closed.

    Raises:
        BadInput: there is no such incident, or nothing is said.
    """
    if not said.strip():
        raise BadInput("a note says something; give its text")
    with registry.database.writing() as connection:
        happened(connection, _numbered(registry, connection, id).id, "note", said, by=by)


def acknowledge(registry: Registry, id: int, said: str = "", by: str | None = None) -> Incident:
    """Say that somebody has seen an incident and looks after it.

    Raises:
        BadInput: there is no such incident, or it is closed.
    """
    with registry.database.writing() as connection:
        found = _numbered(registry, connection, id)
        if found.state == CLOSED:
            raise BadInput(f"{found}: is closed; nobody need look after it")
        connection.execute(table.update().where(table.c.id == id).values(state=ACKNOWLEDGED))
        happened(connection, id, "acknowledged", said, by=by)
        return _numbered(registry, connection, id)


def close(registry: Registry, id: int, said: str, by: str | None = None) -> Incident:
    """Close an incident; one that is closed stays as it is.

    Raises:
        BadInput: there is no such incident, or no reason is given.
    """
    if not said.strip():
        raise BadInput("an incident is closed with a reason; say why (--why)")
    with registry.database.writing() as connection:
        found = _numbered(registry, connection, id)
        if found.state != CLOSED:
            closed(connection, found, said, by=by)
        return _numbered(registry, connection, id)


# -- within a transaction of the caller, who writes alone -----------------------------------------------------------


def opened(connection: sa.Connection, row: dict[str, Any], detail: dict[str, Any] | None, by: str) -> Incident:
    """Open an incident.

    Args:
        connection: that writes.
        row: ``name``, ``alias``, ``kind``, ``key``, ``version``, ``opened``, ``title`` as of `Incident`.
        detail: figures of what is wrong.
        by: who found it.
    """
    row = {**row, "state": OPEN, "seen": row["opened"], "times": 1}
    identity = connection.execute(table.insert().values(**row)).inserted_primary_key
    assert identity is not None
    happened(connection, identity[0], "opened", row["title"], detail, by=by)
    return as_incident(connection.execute(sa.select(table).where(table.c.id == identity[0])).one())


def still_open(connection: sa.Connection, name: str, alias: str) -> dict[str, Incident]:
    """Return the incidents of an alias that are not closed, by their keys."""
    wanted = sa.select(table).where(table.c.name == name, table.c.alias == alias, table.c.state != CLOSED)
    return {row.key: as_incident(row) for row in connection.execute(wanted)}


def is_open(connection: sa.Connection, id: int) -> bool:
    """Whether an incident is not closed."""
    return connection.execute(sa.select(table.c.state).where(table.c.id == id)).scalar() != CLOSED


def alias_of(connection: sa.Connection, id: int) -> str | None:
    """Return the alias that an incident is about, ``None`` if there is no such incident."""
    found = connection.execute(sa.select(table.c.alias).where(table.c.id == id)).scalar()
    return None if found is None else str(found)


def seen(connection: sa.Connection, found: Incident, at: int) -> None:
    """Count one more window that alarmed."""
    now_seen = {"times": found.times + 1, "seen": max(at, found.seen)}
    connection.execute(table.update().where(table.c.id == found.id).values(**now_seen))


def closed(connection: sa.Connection, found: Incident, said: str, by: str | None = None) -> None:
    """Close an incident that is not, and see to it that whoever was told of it is told that too."""
    happened(connection, found.id, "closed", said, by=by)
    connection.execute(table.update().where(table.c.id == found.id).values(state=CLOSED, closed=now()))
    ended(connection, found.id)


def happened(
    connection: sa.Connection,
    incident: int,
    what: str,
    said: str,
    detail: dict[str, Any] | None = None,
    by: str | None = None,
) -> None:
    """Write into a timeline."""
    wanted = sa.select(sa.func.max(happenings.c.at)).where(happenings.c.incident == incident)
    last = connection.execute(wanted).scalar() or 0
    row = {"incident": incident, "at": max(now(), last), "what": what, "by": by or someone(), "said": said}
    connection.execute(happenings.insert().values(**row, detail=detail))


def told(connection: sa.Connection, incident: int, what: str, said: str) -> bool:
    """Whether a timeline says something already."""
    wanted = sa.select(happenings.c.id).where(happenings.c.incident == incident, happenings.c.what == what)
    return connection.execute(wanted.where(happenings.c.said == said).limit(1)).first() is not None


def as_incident(row: Any) -> Incident:
    """Return the incident that a row of the table is."""
    return Incident(**{name: getattr(row, name) for name in Incident.__dataclass_fields__})


def _numbered(registry: Registry, connection: sa.Connection, id: int) -> Incident:
    row = connection.execute(sa.select(table).where(table.c.id == id)).first()
    if row is None:
        raise BadInput(f"{registry.shown}: no incident {id} here; see: fastness incident list")
    return as_incident(row)
