"""The log of an alias: every move, and what can be gone back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fastness.registry.says import now
from fastness.registry.tables import aliases, moves

CURRENT = -1
"""In place of a version's number: what an alias names when it is asked."""


@dataclass(frozen=True)
class Judged:
    """What a gate said of a version.

    Attributes:
        passed: whether it may go.
        said: in a sentence.
        candidate: manifest of the version.
        against: number of the version that it was compared with, ``None`` for none.
        record: more to keep, as JSON values: policy, judgements, fingerprint of the data.
        evidence: files to keep, by name.
    """

    passed: bool
    said: str
    candidate: str
    against: int | None
    record: dict[str, Any]
    evidence: dict[str, bytes]

    def recorded(self, kept: dict[str, str]) -> dict[str, Any]:
        """Return what the log keeps, as JSON values.

        Args:
            kept: by name of the evidence the SHA-256 under which the store has it.
        """
        said = {"passed": self.passed, "said": self.said, "candidate": self.candidate, "against": self.against}
        return {**said, **self.record, "evidence": kept}


@dataclass(frozen=True)
class Move:
    """What happened to an alias.

    Attributes:
        id: grows with time.
        name, alias: of what.
        before, number: the versions that it named before and since; ``None`` for none.
        what: ``promote``, ``rollback``, ``remove``, or ``refuse``: a gate said no, and nothing moved.
        by, why: who, and what they said.
        gate: what the gate said of which evidence, see `Judged`; of a rollback the ``id`` of the move by
            which that version had come to serve.
        override: whether it was done without a gate's yes.
        at: when, in microseconds since 1970 (UTC); later moves of an alias are strictly later.
    """

    id: int
    name: str
    alias: str
    before: int | None
    number: int | None
    what: str
    by: str
    why: str
    gate: dict[str, Any] | None
    override: bool
    at: int


def number_at(connection: sa.Connection, name: str, alias: str) -> int | None:
    found = connection.execute(
        sa.select(aliases.c.number).where(aliases.c.name == name, aliases.c.alias == alias)
    ).scalar()
    return None if found is None else int(found)


def pointed(connection: sa.Connection, name: str, by: str) -> dict[str, Move]:
    """Return the moves by which the aliases of a name are where they are, of those that somebody moved last."""
    wanted = sa.select(moves).join(aliases, moves.c.id == aliases.c.move)
    wanted = wanted.where(aliases.c.name == name, aliases.c.number.is_not(None), moves.c.by == by)
    return {row.alias: as_move(row) for row in connection.execute(wanted)}


def moved(connection: sa.Connection, row: dict[str, Any]) -> Move:
    """Write a move and point the alias; the caller writes alone."""
    same = (moves.c.name == row["name"], moves.c.alias == row["alias"])
    last = connection.execute(sa.select(sa.func.max(moves.c.at)).where(*same)).scalar() or 0
    row["at"] = max(now(), last + 1)  # clocks differ and are set back; the log does not go back
    identity = connection.execute(moves.insert().values(**row)).inserted_primary_key
    assert identity is not None
    here = (aliases.c.name == row["name"], aliases.c.alias == row["alias"])
    pointed = {"number": row["number"], "move": identity[0]}
    if connection.execute(aliases.update().where(*here).values(**pointed)).rowcount == 0:
        connection.execute(aliases.insert().values(name=row["name"], alias=row["alias"], **pointed))
    return as_move(connection.execute(sa.select(moves).where(moves.c.id == identity[0])).one())


def promoted(connection: sa.Connection, name: str, alias: str) -> tuple[dict[int, Move], list[int]]:
    """Return the versions that an alias ever named, each with the last move that let it in, and the way back.

    The way back are numbers, the topmost last: a promotion puts its version on top, a rollback takes away what lies
    above the one it goes to.
    """
    wanted = sa.select(moves).where(moves.c.name == name, moves.c.alias == alias).order_by(moves.c.id)
    entered: dict[int, Move] = {}
    back: list[int] = []
    for move in map(as_move, connection.execute(wanted)):
        if move.number is None:
            continue
        if move.what == "promote":
            entered[move.number] = move
            back = [*(number for number in back if number != move.number), move.number]
        elif move.what == "rollback":
            back = back[: back.index(move.number) + 1] if move.number in back else [move.number]
    return entered, back


def earlier(back: list[int], current: int | None) -> int | None:
    """Return the version before the current one on the way back; the topmost if nothing is named now."""
    before = back[: back.index(current)] if current in back else back
    return before[-1] if before else None


def as_move(row: Any) -> Move:
    """Return the move that a row of the table is."""
    return Move(**{name: getattr(row, name) for name in Move.__dataclass_fields__})
