"""What is to be done about incidents: written down with them, done afterwards, each settled once.

Whoever does an action claims it for a while; what was claimed by a process that died is claimed again when that while
is over. A claim has a number, and only the last one may settle it. So an action is done at least once, and more than
once only if its doer was killed between the deed and its settling: what actions do must stand being done again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fastness.registry.registry import Registry
from fastness.registry.says import now
from fastness.registry.tables import actions as table
from fastness.registry.tables import incidents

DUE, RUNNING, DONE, FAILED = "due", "running", "done", "failed"
"""What an action can be."""

BEGIN, AGAIN, END = "begin", "again", "end"
"""What an action is for: the incident's beginning, its going on, and its end."""

_LEAST = 1_000_000  # microseconds for which something is claimed at least


@dataclass(frozen=True)
class Action:
    """Something that is to be done about an incident.

    Attributes:
        id: grows with time.
        incident: the incident's id.
        action: its name in the policy.
        number: counts the times that the same is done about the same incident, from 1; they are done in turn.
        phase: ``begin``, ``again`` or ``end``.
        ends: whether something is to be done too when the incident is closed.
        state: ``due``, ``running``, ``done`` or ``failed``.
        attempts: how often it was tried.
        claims: how often somebody took it up.
        begun: when it was written down, in microseconds since 1970 (UTC).
        due: when it is to be taken up (again).
        done: when it was settled, ``None`` if it was not.
        said: how it ended, or why it has not yet.
    """

    id: int
    incident: int
    action: str
    number: int
    phase: str
    ends: bool
    state: str
    attempts: int
    claims: int
    begun: int
    due: int
    done: int | None
    said: str

    @property
    def open(self) -> bool:
        """Whether it is not settled."""
        return self.state in (DUE, RUNNING)


def actions_of(registry: Registry, incident: int) -> list[Action]:
    """Return all that was or is to be done about an incident, the oldest first."""
    with registry.database.reading() as connection:
        return planned(connection, incident)


def claimed(registry: Registry, name: str, alias: str, seconds: Callable[[str], float]) -> Action | None:
    """Take up what is due at an alias, the oldest first; ``None`` if nothing is.

    Args:
        registry: that keeps it.
        name, alias: of what.
        seconds: tells for how long nobody else takes up an action of a name.
    """
    from sqlalchemy.orm import aliased

    before = aliased(table)
    waits = sa.exists().where(
        before.c.incident == table.c.incident,
        before.c.action == table.c.action,
        before.c.number < table.c.number,
        before.c.state.in_((DUE, RUNNING)),
    )
    wanted = sa.select(table).join(incidents, incidents.c.id == table.c.incident)
    wanted = wanted.where(incidents.c.name == name, incidents.c.alias == alias)
    wanted = wanted.where(table.c.state.in_((DUE, RUNNING)), ~waits).order_by(table.c.due, table.c.id).limit(1)
    with registry.database.reading() as connection:  # nobody is kept waiting if there is nothing to do
        if connection.execute(wanted.where(table.c.due <= now())).first() is None:
            return None
    with registry.database.writing() as connection:
        row = connection.execute(wanted.where(table.c.due <= now())).first()
        if row is None:
            return None
        taken = {"state": RUNNING, "claims": row.claims + 1, "attempts": row.attempts + 1}
        taken["due"] = now() + max(int(seconds(row.action) * 1e6), _LEAST)
        connection.execute(table.update().where(table.c.id == row.id).values(**taken))
        return _action(connection.execute(sa.select(table).where(table.c.id == row.id)).one())


# -- within a transaction of the caller, who writes alone -----------------------------------------------------------


def planned(connection: sa.Connection, incident: int) -> list[Action]:
    """Return what `actions_of` returns, as a connection sees it."""
    wanted = sa.select(table).where(table.c.incident == incident).order_by(table.c.id)
    return [_action(row) for row in connection.execute(wanted)]


def times(connection: sa.Connection, name: str, alias: str, action: str) -> list[int]:
    """Return when an action was begun at an alias, of whatever incident, the newest first."""
    wanted = sa.select(table.c.begun).join(incidents, incidents.c.id == table.c.incident)
    wanted = wanted.where(incidents.c.name == name, incidents.c.alias == alias)
    wanted = wanted.where(table.c.action == action, table.c.phase == BEGIN)
    return [int(at) for at in connection.execute(wanted.order_by(table.c.begun.desc())).scalars()]


def elsewhere(connection: sa.Connection, name: str, alias: str, do: str, incident: int) -> bool:
    """Whether an action of a kind, whatever its name, was begun about another incident of an alias that is open."""
    wanted = sa.select(table.c.id).join(incidents, incidents.c.id == table.c.incident)
    wanted = wanted.where(incidents.c.name == name, incidents.c.alias == alias, incidents.c.closed.is_(None))
    same = sa.or_(table.c.action == do, table.c.action.startswith(f"{do}/", autoescape=True))
    wanted = wanted.where(same, incidents.c.id != incident)
    return connection.execute(wanted.limit(1)).first() is not None


def plan(
    connection: sa.Connection, incident: int, action: str, *, ends: bool, phase: str = BEGIN, due: int | None = None
) -> None:
    """Write down that something is to be done.

    Args:
        connection: that writes.
        incident: about which.
        action: its name in the policy.
        ends, phase: see `Action`.
        due: when, in microseconds since 1970 (UTC); default: now.
    """
    wanted = sa.select(sa.func.max(table.c.number)).where(table.c.incident == incident, table.c.action == action)
    number = (connection.execute(wanted).scalar() or 0) + 1
    at = now()
    row: dict[str, Any] = {"incident": incident, "action": action, "number": number, "phase": phase, "ends": ends}
    row |= {"state": DUE, "attempts": 0, "claims": 0, "begun": at, "due": at if due is None else due, "said": ""}
    connection.execute(table.insert().values(**row))


def settled(
    connection: sa.Connection, action: Action, state: str, said: str, *, due: int | None = None, counted: bool = True
) -> bool:
    """Write down how an action ended, or when it is to be taken up again; ``False``: somebody else has it by now.

    Args:
        connection: that writes.
        action: as it was claimed.
        state: see `Action`.
        said: in words.
        due: when it is to be taken up again, in microseconds since 1970 (UTC); ``None`` if it is not.
        counted: whether this was an attempt that counts.
    """
    same = (table.c.id == action.id, table.c.claims == action.claims, table.c.state == RUNNING)
    change: dict[str, Any] = {"state": state, "said": said, "attempts": action.attempts - (not counted)}
    change |= {"done": now()} if due is None else {"due": due}
    return connection.execute(table.update().where(*same).values(**change)).rowcount == 1


def ended(connection: sa.Connection, incident: int) -> None:
    """Withdraw what an incident that is closed needs no more, and plan what is to be done about its end.

    What was begun goes on. The first message of an incident is sent even if it is over by then.
    """
    begun = planned(connection, incident)
    for action in begun:
        first = action.ends and action.phase == BEGIN
        if action.state == DUE and not first and action.claims == 0:
            gone = {"state": DONE, "done": now(), "said": "withdrawn: the incident was closed before"}
            connection.execute(table.update().where(table.c.id == action.id).values(**gone))
    for name in dict.fromkeys(action.action for action in begun if action.ends):
        plan(connection, incident, name, ends=False, phase=END)


def _action(row: Any) -> Action:
    return Action(**{name: getattr(row, name) for name in Action.__dataclass_fields__})
