"""Windows that were judged: each once, with what was found, so that nobody judges them again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fastness.registry.registry import Registry
from fastness.registry.says import now
from fastness.registry.tables import windows as table


@dataclass(frozen=True)
class Watched:
    """Windows of what was served, judged together.

    Attributes:
        name, alias: of what.
        windows: their ids, the oldest first.
        version: that answered, as ``NAME@NUMBER``.
        start, end: of all of them, in microseconds since 1970 (UTC).
        items: how many were answered.
        verdict: what was found, as JSON values: of each signal what it said.
    """

    name: str
    alias: str
    windows: Sequence[str]
    version: str
    start: int
    end: int
    items: int
    verdict: dict[str, Any]

    def alarmed(self, signal: str) -> bool | None:
        """Whether a signal alarmed; ``None`` if it could not be judged."""
        found = self.verdict.get(signal)
        return None if found is None else bool(found["alarm"])


def judged(registry: Registry, name: str, alias: str, since: int = 0) -> set[str]:
    """Return the ids of the windows that were judged, of those that ended at a moment or later."""
    wanted = sa.select(table.c.window).where(table.c.name == name, table.c.alias == alias, table.c.end >= since)
    with registry.database.reading() as connection:
        return set(connection.execute(wanted).scalars())


def judged_until(registry: Registry, name: str, alias: str, most: int) -> int:
    """Return the end of the last window that was judged, of those that ended by a moment; 0 if none was."""
    wanted = sa.select(sa.func.max(table.c.end)).where(table.c.name == name, table.c.alias == alias)
    wanted = wanted.where(table.c.end <= most)
    with registry.database.reading() as connection:
        return int(connection.execute(wanted).scalar() or 0)


def history(registry: Registry, name: str, alias: str, limit: int = 1000) -> list[Watched]:
    """Return what was judged of an alias, the last first."""
    with registry.database.reading() as connection:
        return newest(connection, name, alias, limit)


# -- within a transaction of the caller, who writes alone -----------------------------------------------------------


def entered(connection: sa.Connection, found: Watched) -> bool:
    """Write down that windows were judged; ``False`` if any of them was before, and nothing is written."""
    same = (table.c.name == found.name, table.c.alias == found.alias, table.c.window.in_(list(found.windows)))
    if connection.execute(sa.select(table.c.id).where(*same).limit(1)).first() is not None:
        return False
    last, at = found.windows[-1], now()
    common = {name: getattr(found, name) for name in ("name", "alias", "version", "start", "end", "items")}
    for window in found.windows:
        verdict = found.verdict if window == last else None
        row = {**common, "window": window, "judged_with": last, "verdict": verdict, "at": at}
        connection.execute(table.insert().values(**row))
    return True


def forgotten(
    connection: sa.Connection,
    name: str,
    alias: str,
    before: int,
    ended: int,
    signals: Iterable[str],
    least: int,
) -> int:
    """Forget windows that were judged before a moment; return how many.

    Of each signal the last ones in which it was judged stay, since they tell whether what is wrong lasts. What was
    wrong stands in the incidents.

    Args:
        connection: that writes.
        name, alias: of what.
        before: in microseconds since 1970 (UTC); the database gives up nothing of the last 30 days.
        ended: since when windows are looked for that nobody has judged; what ended later stays.
        signals: names.
        least: windows that stay of each.
    """
    mine = (table.c.name == name, table.c.alias == alias)
    ids = sa.select(table.c.id).where(*mine)
    stay: set[int] = set()
    for signal in signals:
        said = ids.where(_said(signal)).order_by(table.c.id.desc()).limit(least)
        stay |= set(connection.execute(said).scalars())
    gone = table.delete().where(*mine, table.c.at < before, table.c.end < ended, table.c.id.not_in(stay))
    return connection.execute(gone).rowcount


def _said(signal: str) -> sa.ColumnElement[bool]:
    """Whether a signal was judged in a window."""
    found: sa.ColumnElement[bool] = table.c.verdict[(signal, "alarm")].as_string().is_not(None)
    return found


def newest(connection: sa.Connection, name: str, alias: str, limit: int, signal: str | None = None) -> list[Watched]:
    """Return what `history` returns, as a connection sees it; of a signal only where it was judged."""
    wanted = sa.select(table).where(table.c.name == name, table.c.alias == alias, table.c.verdict.is_not(None))
    if signal is not None:
        wanted = wanted.where(_said(signal))
    rows = connection.execute(wanted.order_by(table.c.id.desc()).limit(limit)).all()
    together: dict[str, list[str]] = {row.window: [] for row in rows}
    same = (table.c.name == name, table.c.alias == alias, table.c.judged_with.in_(list(together)))
    for row in connection.execute(sa.select(table.c.window, table.c.judged_with).where(*same).order_by(table.c.id)):
        together[row.judged_with].append(row.window)
    return [
        Watched(name, alias, together[row.window], row.version, row.start, row.end, row.items, row.verdict)
        for row in rows
    ]
