"""The ledger of an index: which rows hold which items, and what is known of them (SQLite); the one source of truth."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.conditions import NUMBER, Condition, Fragment, sql
from fastness.core.errors import BadInput, Failure
from fastness.index.checked import Value

Rows = npt.NDArray[np.int64]
_AT_ONCE = 10_000  # values in one statement
_SCHEMA = """
create table state (
    generation integer, rows integer, removed integer, changes integer, structure text, sha256 text, learnt integer
);
insert into state values (0, 0, 0, 0, '', '', 0);
create table items (row integer primary key, id text not null unique);
create table removed (row integer primary key);
create table columns (number integer primary key, name text not null unique, kind text not null);
"""


@dataclass(frozen=True)
class State:
    """What is committed.

    Attributes:
        generation: of the vectors' file; each has its own row numbers.
        rows: how many rows of that file count, removed ones included; what lies behind them does not.
        removed: how many of them hold no item any more.
        changes: grows with every commit.
        structure: name of the file of the structure; empty without.
        sha256: of that file's bytes.
        learnt: how many rows there were when the structure was learnt.
    """

    generation: int
    rows: int
    removed: int
    changes: int
    structure: str
    sha256: str
    learnt: int


class Ledger:
    """The SQLite file of an index. Its connection belongs to one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._connection.execute("pragma synchronous = full")  # a commit is on the disk

    @classmethod
    def create(cls, path: Path) -> Ledger:
        """Make an empty ledger; readers and one writer do not wait for each other (WAL)."""
        connection = sqlite3.connect(path)
        connection.execute("pragma journal_mode = wal")
        connection.executescript(_SCHEMA)
        connection.close()
        return cls(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self, write: bool = False) -> Iterator[State]:
        """Yield the state; all that is read within is of one moment, all that is written comes at once or never."""
        with self._errors():
            self._connection.execute("begin immediate" if write else "begin")
            try:
                yield State(*self._connection.execute("select * from state").fetchone())
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    def advance(self, state: State) -> None:
        """Write the next state."""
        self._connection.execute(
            "update state set generation = ?, rows = ?, removed = ?, changes = changes + 1, structure = ?, sha256 = ?, "
            "learnt = ?",
            (state.generation, state.rows, state.removed, state.structure, state.sha256, state.learnt),
        )

    def columns(self) -> dict[str, str]:
        """Return ``number`` or ``text`` by column."""
        return {name: kind for name, (_, kind) in self._numbered().items()}

    def insert(self, first: int, ids: list[str], columns: dict[str, list[Value]], kinds: dict[str, str]) -> int:
        """Enter items at the rows from ``first`` on, in the place of those of the same ids; return their number."""
        numbers = self._numbered()
        for name in columns:
            if name not in numbers:
                number = len(numbers)
                self._connection.execute("insert into columns values (?, ?, ?)", (number, name, kinds[name]))
                self._connection.execute(
                    f"alter table items add column c{number} {'real' if kinds[name] == NUMBER else 'text'}"
                )
                numbers[name] = (number, kinds[name])
            elif numbers[name][1] != kinds[name]:
                raise BadInput(f"column '{name}' holds {numbers[name][1]}s; another writer has just made it")
        replaced = self.delete(ids)
        fields = ["row", "id", *(f"c{numbers[name][0]}" for name in columns)]
        self._connection.executemany(
            f"insert into items ({', '.join(fields)}) values ({', '.join('?' * len(fields))})",
            zip(range(first, first + len(ids)), ids, *columns.values(), strict=True),
        )
        return replaced

    def delete(self, ids: list[str]) -> int:
        """Take out the items with some ids and return how many there were."""
        found = [row for (row,) in self._among("select row from items where id", ids)]
        self._connection.executemany("insert into removed values (?)", ((row,) for row in found))
        self._connection.executemany("delete from items where row = ?", ((row,) for row in found))
        return len(found)

    def ids(self) -> list[str]:
        """Return the ids of all items."""
        return [name for (name,) in self._connection.execute("select id from items")]

    def absent(self, ids: list[str]) -> list[str]:
        """Return those of some ids that no item has."""
        there = {name for (name,) in self._among("select id from items where id", ids)}
        return [name for name in ids if name not in there]

    def removed(self) -> Rows:
        """Return the rows that hold no item any more."""
        return self._rows("select row from removed", [])

    def rows(self, condition: Condition) -> Rows:
        """Return the rows whose items a condition holds for, ascending."""
        numbers = self._numbered()

        def column(name: str) -> Fragment:
            return f"c{numbers[name][0]}", []

        text, values = sql(condition, column, "?")
        try:
            return self._rows(f"select row from items where {text} order by row", values)
        except sqlite3.OperationalError as error:  # nested too deep, too many values
            raise BadInput(f"--where: {error}; write a simpler condition") from None

    def items(self, rows: Iterable[int]) -> dict[int, tuple[str, dict[str, float | str]]]:
        """Return id and metadata of rows."""
        names = list(self._numbered())
        found = self._among("select * from items where row", list(rows))
        return {
            row: (name, {column: value for column, value in zip(names, values, strict=True) if value is not None})
            for row, name, *values in found
        }

    def renumber(self, old: Rows) -> None:
        """Give the items new rows: the one at ``old[i]``, ascending, gets row i."""
        moved = ((new, int(row)) for new, row in enumerate(old) if new != row)
        self._connection.executemany("update items set row = ? where row = ?", moved)
        self._connection.execute("delete from removed")

    def _numbered(self) -> dict[str, tuple[int, str]]:
        found = self._connection.execute("select name, number, kind from columns order by number")
        return {name: (number, kind) for name, number, kind in found}

    def _among(self, start: str, values: list[Any]) -> Iterator[tuple[Any, ...]]:
        for first in range(0, len(values), _AT_ONCE):
            part = values[first : first + _AT_ONCE]
            yield from self._connection.execute(f"{start} in ({', '.join('?' * len(part))})", part).fetchall()

    def _rows(self, text: str, values: list[Any]) -> Rows:
        return np.fromiter((row for (row,) in self._connection.execute(text, values)), np.int64)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise Failure(f"{self._path}: {error}; free the file or the disk, or build the index anew") from error
