"""Controls: what a running service is told to do otherwise, until it is taken back."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from fastness.registry.registry import Registry
from fastness.registry.says import now
from fastness.registry.tables import controls as table

ABSTAIN = "abstain"
"""Name of the control by which a service's heads answer nothing."""


@dataclass(frozen=True)
class Control:
    """What a service is told.

    Attributes:
        key: which control.
        value: what of it; of ``abstain``: why.
        by, at: who said so, and when, in microseconds since 1970 (UTC).
    """

    key: str
    value: str
    by: str
    at: int


def controls(registry: Registry, name: str, alias: str) -> dict[str, Control]:
    """Return what services that follow an alias are told, by key."""
    wanted = sa.select(table).where(table.c.name == name, table.c.alias == alias).order_by(table.c.key)
    with registry.database.reading() as connection:
        rows = connection.execute(wanted).all()
    return {row.key: Control(row.key, row.value, row.by, row.at) for row in rows}


def controlled(connection: sa.Connection, name: str, alias: str, key: str, value: str | None, by: str) -> None:
    """Set a control, or take it back; the caller writes alone.

    Args:
        connection: that writes.
        name, alias, key: which.
        value: ``None`` takes it back.
        by: who says so.
    """
    here = (table.c.name == name, table.c.alias == alias, table.c.key == key)
    connection.execute(table.delete().where(*here))
    if value is not None:
        row = {"name": name, "alias": alias, "key": key, "value": value, "by": by, "at": now()}
        connection.execute(table.insert().values(**row))
