"""Triggers by which the database itself refuses to change what is written."""

from __future__ import annotations

from alembic import op


def refuse(table: str, change: str, columns: str = "", *, when: str = "", name: str = "", said: str = "") -> None:
    """Let the database refuse a change of any row.

    Args:
        table: whose rows.
        change: ``UPDATE`` or ``DELETE``.
        columns: of an update, the columns that must stay, with commas between; default: all.
        when: only if this holds of the row, ``OLD.revoked IS NOT NULL`` say.
        name: of the trigger; default: by table and change.
        said: what the database says; default: that such rows are never changed.
    """
    name = name or f"{table}_no_{change.lower()}"
    said = said or f"{table} are never changed: no {change}"
    event = f"BEFORE {change}{f' OF {columns}' if columns else ''} ON {table}"
    condition = f"WHEN ({when}) " if when else ""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"CREATE TRIGGER {name} {event} {condition}BEGIN SELECT RAISE(ABORT, '{said}'); END")
        return
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{said}'; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} {event} FOR EACH ROW {condition}EXECUTE FUNCTION {name}()")
