"""A vector index on PostgreSQL with pgvector: one table of items, and one row that says what the index is made for.

``postgresql://user@host/database?table=photos``. An add is one transaction. ``hnsw`` is pgvector's graph; ``binary``
orders by the Hamming distance of bits (`Signs`, learnt of what is added first), which PostgreSQL counts itself, and
rescores what is near.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fastness.core.conditions import NUMBER, Condition, Fragment, sql
from fastness.core.errors import BadInput, Failure
from fastness.core.postgres import Place, connect, connected, errors, place_of
from fastness.index.about import FORMAT
from fastness.index.base import CANDIDATES, About, Batch, Hit, Index
from fastness.index.exact import Floats
from fastness.index.signs import Signs

KINDS = ("flat", "hnsw", "binary")
EXACT = 50_000  # matching items are compared one by one up to here
_CANDIDATES = {"flat": 10, "hnsw": 100, "binary": 2000}
_MOST = 1000  # that pgvector's graph can be asked for


class PostgresIndex(Index):
    """A vector index in a table of PostgreSQL."""

    @classmethod
    def create(cls, address: str | Path, about: About) -> PostgresIndex:
        """Make an empty table."""
        place = _place(str(address))
        if about.kind not in KINDS:
            raise BadInput(f"unknown kind of index '{about.kind}' on PostgreSQL; known: {', '.join(KINDS)}")
        table, dim = place.table, about.dim
        bits = ", bits bit varying not null" if about.kind == "binary" else ""
        with connected(place) as connection, errors(place), connection.transaction():
            if connection.execute("select to_regclass(%s)", [f"{table}_about"]).fetchone() != (None,):
                raise BadInput(f"{place.shown}: is there already; add to it, or choose another table")
            connection.execute("create extension if not exists vector")
            connection.execute(
                f'create table {table} (id text collate "C" primary key, vector vector({dim}) not null{bits}, '
                "metadata jsonb not null)"
            )
            if about.kind == "hnsw":
                connection.execute(f"create index on {table} using hnsw (vector vector_ip_ops)")
            connection.execute(
                f"create table {table}_about (about jsonb not null, columns jsonb not null, signs bytea)"
            )
            stated = json.dumps({"format": FORMAT, **asdict(about)})
            connection.execute(f"insert into {table}_about values (%s, '{{}}', null)", [stated])
        return cls(address)

    def __init__(self, address: str | Path) -> None:
        self._at = _place(str(address))
        super().__init__(self._at.shown)
        self._table = self._at.table
        self._signs: Signs | None = None
        with errors(self._at):
            self._connection = connect(self._at)
            row = self._connection.execute(f"select about from {self._table}_about").fetchone()
        if row is None or row[0].get("format") != FORMAT:
            raise BadInput(f"{self.address}: is no index of this version's format ({FORMAT}); build it anew")
        self.about = About(row[0]["dim"], row[0]["kind"], row[0]["space"])

    def __len__(self) -> int:
        return int(self._one(f"select count(*) from {self._table}"))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def discard(self) -> None:
        """Drop the tables."""
        self.close()  # what it was at ends
        with connected(self._at) as connection, errors(self._at):
            connection.execute(f"drop table if exists {self._table}, {self._table}_about")

    def columns(self) -> dict[str, str]:
        """Return ``number`` or ``text`` by column."""
        return dict(self._one(f"select columns from {self._table}_about"))

    def ids(self) -> list[str]:
        """Return the ids of all items."""
        with errors(self._at):
            return [name for (name,) in self._connection.execute(f"select id from {self._table}")]

    def show(self) -> dict[str, Any]:
        """Return items, kind, and bytes on the server's disk."""
        return {
            "items": len(self),
            **asdict(self.about),
            "columns": self.columns(),
            "disk_bytes": int(self._one("select pg_total_relation_size(%s)", [self._table])),
            "index_bytes": int(self._one("select pg_indexes_size(%s)", [self._table])),
        }

    def _add(self, batch: Batch) -> None:
        table = self._table
        fields = "id, vector, metadata" + (", bits" if self.about.kind == "binary" else "")
        with errors(self._at), self._connection.transaction():
            self._enter_columns(batch.kinds)
            self._connection.execute(
                f"create temporary table added on commit drop as select {fields} from {table} with no data"
            )
            lines = self._lines(batch)  # before the copy, during which nothing else can be asked
            with self._connection.cursor().copy(f"copy added ({fields}) from stdin") as copy:
                for row in lines:
                    copy.write_row(row)
            changed = ", ".join(f"{field} = excluded.{field}" for field in fields.split(", ")[1:])
            self._connection.execute(
                f"insert into {table} ({fields}) select {fields} from added on conflict (id) do update set {changed}"
            )

    def _enter_columns(self, kinds: dict[str, str]) -> None:
        """Enter new columns; whoever else adds waits until this transaction ends."""
        held = self._one(f"select columns from {self._table}_about for update")
        for name, kind in kinds.items():
            if held.setdefault(name, kind) != kind:
                raise BadInput(f"column '{name}' holds {held[name]}s; another writer has just made it")
        self._connection.execute(f"update {self._table}_about set columns = %s", [json.dumps(held)])

    def _lines(self, batch: Batch) -> list[list[str]]:
        """Return what COPY takes of each item."""
        lines = []
        bits = self._bits(batch.vectors) if self.about.kind == "binary" and batch.ids else []
        for i, name in enumerate(batch.ids):
            known = {column: value for column, values in batch.columns.items() if (value := values[i]) is not None}
            text = json.dumps(known, ensure_ascii=False, allow_nan=False)
            lines.append([name, _text(batch.vectors[i]), text, *bits[i : i + 1]])
        return lines

    def _bits(self, vectors: Floats) -> list[str]:
        """Return the bits of vectors as PostgreSQL writes them; how they are made is learnt of the first."""
        if self._signs is None:
            content = self._one(f"select signs from {self._table}_about")
            self._signs = Signs.learnt(vectors) if content is None else Signs.from_bytes(content)[0]
            if content is None:
                self._connection.execute(f"update {self._table}_about set signs = %s", [self._signs.to_bytes()])
        return ["".join("01"[bit] for bit in row) for row in np.unpackbits(self._signs.of(vectors), axis=1)]

    def _remove(self, ids: list[str]) -> int:
        with errors(self._at), self._connection.transaction():
            found = self._connection.execute(f"delete from {self._table} where id = any(%s) returning id", [ids])
            gone = {name for (name,) in found}
            if absent := [name for name in ids if name not in gone]:
                raise BadInput(f"{self.address}: no item '{absent[0][:100]}'; nothing was removed")
        return len(gone)

    def _search(self, queries: Floats, k: int, where: Condition | None, candidates: int | None) -> list[list[Hit]]:
        condition, values = ("true", []) if where is None else sql(where, self._column, "%s")
        number = max(k, candidates or -(-k * _CANDIDATES[self.about.kind] // CANDIDATES))
        with errors(self._at), self._connection.transaction():
            # One moment for all of it; a graph looks at filters last, so few items that match are all compared.
            self._connection.execute("set transaction isolation level repeatable read")
            there = int(self._one(f"select count(*) from {self._table} where {condition}", values))
            exact = self.about.kind == "flat" or (where is not None and there <= EXACT)
            self._connection.execute(f"set local enable_indexscan = {'off' if exact else 'on'}")
            if self.about.kind == "hnsw":
                self._connection.execute(f"set local hnsw.ef_search = {min(number, _MOST)}")
            found = [self._near(query, k, condition, values, None if exact else number) for query in queries]
            if any(len(hits) < min(k, there) for hits in found):
                self._connection.execute("set local enable_indexscan = off")
                found = [self._near(query, k, condition, values, None) for query in queries]
        return found

    def _near(self, query: Floats, k: int, condition: str, values: list[Any], candidates: int | None) -> list[Hit]:
        source, given = f"{self._table} where {condition}", list(values)
        if candidates is not None and self.about.kind == "binary":
            near = f"select * from {source} order by bit_count(bits # %s::bit varying) limit %s"
            source, given = f"({near}) as near", [*given, *self._bits(query[None]), candidates]
        text = f"select id, -(vector <#> %s::vector), metadata from {source} order by vector <#> %s::vector limit %s"
        asked = _text(query)
        rows = self._connection.execute(text, [asked, *given, asked, k])
        return [Hit(name, round(float(score), 6), metadata) for name, score, metadata in rows]

    def _column(self, name: str) -> Fragment:
        if self.columns()[name] == NUMBER:
            return "(metadata->>%s)::float8", [name]
        return '(metadata->>%s) collate "C"', [name]

    def _one(self, text: str, values: list[Any] | None = None) -> Any:
        with errors(self._at):
            row = self._connection.execute(text, values).fetchone()
        if row is None:
            raise Failure(f"{self.address}: its table of columns is empty; build the index anew")
        return row[0]


@contextmanager
def alone(address: str) -> Iterator[bool]:
    """Yield whether no other process is in here for the same table; the server lets whoever dies go.

    Args:
        address: of an index that need not be there yet.
    """
    place = _place(address)
    name = int.from_bytes(hashlib.sha256(place.table.encode()).digest()[:8], "big", signed=True)
    with connected(place) as connection:
        with errors(place):
            (first,) = connection.execute("select pg_try_advisory_lock(%s)", [name]).fetchone()
        yield bool(first)


def _text(vector: Floats) -> str:
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def _place(address: str) -> Place:
    return place_of(address, "fastness_index", "no index here; make one with: fastness index build")
