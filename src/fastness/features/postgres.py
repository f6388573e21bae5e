"""A table of features on PostgreSQL with pgvector: ``postgresql://user@host/database?table=features``.

``NAME`` holds the vectors, ``NAME_encodings`` what made them and what it is called, ``NAME_about`` which data were
embedded. What is kept is one transaction. Rows go in PostgreSQL's binary form, which NumPy makes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from fastness.core.errors import BadInput
from fastness.core.postgres import connect, errors, place_of
from fastness.features.events import Cells, Events
from fastness.features.table import FORMAT, NOTHING, Encoding, Features, Floats, Held

_BLOCK = 10_000  # rows that are sent at once
_2000 = 946_684_800_000_000  # where PostgreSQL's moments begin, in microseconds since 1970
_KEYS = "t.entity, (extract(epoch from t.time) * 1000000)::bigint, t.sha256"


class PostgresFeatures(Features):
    """A table on PostgreSQL.

    Args:
        address: ``postgresql://user@host/database?table=NAME``.
        create: make an empty one where there is none.
    """

    def __init__(self, address: str, create: bool = False) -> None:
        self._at = place_of(address, "fastness_features", NOTHING)
        super().__init__(self._at.shown)
        self._table = self._at.table
        # Whoever writes holds this until the end of its transaction, so that what it has compared with stays so.
        self._turn = int.from_bytes(hashlib.sha256(f"features {self._table}".encode()).digest()[:8], "big", signed=True)
        with errors(self._at):
            self._connection = connect(self._at)
        try:
            if create:
                self._create()
            self._about()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def encodings(self) -> list[Encoding]:
        """See `Features.encodings`."""
        rows = self._rows(f"select bundle, dim, names from {self._table}_encodings order by number")
        return [Encoding(bundle, dim, tuple(names)) for bundle, dim, names in rows]

    def sources(self) -> list[dict[str, Any]]:
        """See `Features.sources`."""
        return list(self._about()["sources"])

    def remember(self, source: dict[str, Any]) -> None:
        """See `Features.remember`."""
        with self._writing():
            about = self._about()
            if source not in about["sources"]:
                about["sources"].append(source)
                self._connection.execute(f"update {self._table}_about set about = %s", [json.dumps(about)])

    def held(self, encoding: Encoding, among: Cells | None = None) -> Held:
        """See `Features.held`."""
        events = self._events([encoding.bundle], among)
        return Held(events, lambda places: self._vectors(encoding, events.take(places)))

    def others(self, encoding: Encoding, among: Cells | None = None) -> Events:
        """See `Features.others`."""
        return self._events([e.bundle for e in self.encodings() if e.bundle != encoding.bundle], among)

    def _enter(self, encoding: Encoding) -> Encoding:
        with self._writing():
            table = f"{self._table}_encodings"
            known = self._rows(f"select names from {table} where bundle = %s", [encoding.bundle])
            names = list(dict.fromkeys([*(known[0][0] if known else []), *encoding.names]))
            self._connection.execute(
                f"insert into {table} (bundle, dim, names) values (%s, %s, %s) "
                "on conflict (bundle) do update set names = excluded.names",
                [encoding.bundle, encoding.dim, json.dumps(names)],
            )
        return Encoding(encoding.bundle, encoding.dim, tuple(names))

    def _put(self, encoding: Encoding, events: Events, vectors: Floats) -> int:
        table = self._table
        with self._writing():
            self._connection.execute(
                'create temporary table added (entity text collate "C", time timestamptz, sha256 bytea, vector vector) '
                "on commit drop"
            )
            self._send("added", events, vectors)
            self._connection.execute(
                "analyze added (entity, time)"
            )  # else few rows are searched for in all that is there
            other = self._rows(
                f"select {_KEYS} from {table} t join added a using (entity, time) where t.sha256 <> a.sha256 limit 1"
            )
            if other:
                self.matched(_events(other), events)
            (number,) = self._rows(f"select number from {table}_encodings where bundle = %s", [encoding.bundle])[0]
            done = self._connection.execute(
                f"insert into {table} (entity, time, encoding, sha256, vector) "
                "select entity, time, %s, sha256, vector from added on conflict do nothing",
                [number],
            )
            return int(done.rowcount)

    def _create(self) -> None:
        table = self._table
        with self._writing():
            if self._rows("select to_regclass(%s)", [f"{table}_about"]) != [(None,)]:
                return
            for made in (
                "create extension if not exists vector",
                f"create table {table}_about (about jsonb not null)",
                f"create table {table}_encodings (number integer generated always as identity primary key, "
                "bundle text not null unique, dim integer not null, names jsonb not null)",
                f'create table {table} (entity text collate "C" not null, time timestamptz not null, '
                f"encoding integer not null references {table}_encodings, sha256 bytea not null, "
                "vector vector not null, primary key (entity, time, encoding))",
            ):
                self._connection.execute(made)
            about = json.dumps({"format": FORMAT, "sources": []})
            self._connection.execute(f"insert into {table}_about values (%s)", [about])

    def _about(self) -> dict[str, Any]:
        rows = self._rows(f"select about from {self._table}_about")
        if not rows or rows[0][0].get("format") != FORMAT:
            raise BadInput(f"{self.address}: is no table of this version's format ({FORMAT}); add to another one")
        return dict(rows[0][0])

    def _events(self, bundles: list[str], among: Cells | None) -> Events:
        """Return the events of some encodings."""
        if not bundles:
            return _events([])
        table = self._table
        found = self._rows(f"select number from {table}_encodings where bundle = any(%s)", [bundles])
        text, values = f"select {_KEYS} from {table} t where t.encoding = any(%s)", [[number for (number,) in found]]
        if among is not None:
            text += " and t.entity = any(%s)"
            values.append(among.unique().drop_null().to_pylist())
        return _events(self._rows(text, values))

    def _vectors(self, encoding: Encoding, events: Events) -> Floats:
        """Return the vectors of events that are held."""
        found = np.empty((len(events), encoding.dim), np.float32)
        if not len(events):
            return found
        with errors(self._at), self._connection.transaction():
            self._connection.execute(
                'create temporary table asked (entity text collate "C", time timestamptz, place integer) on commit drop'
            )
            self._send("asked", events, None)
            self._connection.execute("analyze asked")
            text = (
                f"select a.place, vector_send(t.vector) from asked a join {self._table} t using (entity, time) "
                f"join {self._table}_encodings e on e.number = t.encoding where e.bundle = %s"
            )
            with self._connection.cursor(name="vectors", binary=True) as cursor:
                cursor.execute(text, [encoding.bundle])
                while rows := cursor.fetchmany(_BLOCK):
                    sent = np.frombuffer(b"".join(sent for _, sent in rows), np.uint8).reshape(len(rows), -1)
                    found[[place for place, _ in rows]] = np.ascontiguousarray(sent[:, 4:]).view(">f4")
        return found

    def _send(self, table: str, events: Events, vectors: Floats | None) -> None:
        """Send events to a temporary table, with their hashes and vectors, or with their places."""
        fields = 3 if vectors is None else 4
        with self._connection.cursor().copy(f"copy {table} from stdin (format binary)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            for start in range(0, len(events), _BLOCK):
                rows = range(start, min(start + _BLOCK, len(events)))
                copy.write(_lines(events, vectors, rows, fields))
            copy.write(b"\xff\xff")

    def _rows(self, text: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        with errors(self._at), self._connection.cursor(binary=True) as cursor:
            cursor.execute(text, values)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Be the only writer, until all of it is kept or nothing."""
        with errors(self._at), self._connection.transaction():
            self._connection.execute("select pg_advisory_xact_lock(%s)", [self._turn])
            yield


def _events(rows: list[tuple[Any, ...]]) -> Events:
    entities, times, hashes = zip(*rows, strict=True) if rows else ((), (), ())
    return Events(
        pa.array(entities, pa.large_string()),
        np.array(times, np.int64),
        np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32),
    )


def _lines(events: Events, vectors: Floats | None, rows: range, fields: int) -> bytes:
    """Return rows as COPY takes them: the number of fields, and each field's length before its bytes."""
    part = slice(rows.start, rows.stop)
    time: list[Any] = [("time_length", ">i4"), ("time", ">i8")]
    if vectors is None:
        packed = np.zeros(len(rows), [*time, ("place_length", ">i4"), ("place", ">i4")])
        packed["place_length"], packed["place"] = 4, np.arange(part.start, part.stop)
    else:
        dim = vectors.shape[1]
        sha = [("sha_length", ">i4"), ("sha", "u1", 32)]
        vector = [("vector_length", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("vector", ">f4", dim)]
        packed = np.zeros(len(rows), [*time, *sha, *vector])
        packed["sha_length"], packed["sha"] = 32, events.hashes[part]
        packed["vector_length"], packed["dim"], packed["vector"] = 4 + 4 * dim, dim, vectors[part]
    packed["time_length"], packed["time"] = 8, events.times[part] - _2000
    tails, width = packed.tobytes(), packed.dtype.itemsize
    head = fields.to_bytes(2, "big")
    lines: list[bytes] = []
    for i, entity in enumerate(events.entities[part].to_pylist()):
        name = entity.encode()
        lines += (head, len(name).to_bytes(4, "big"), name, tails[i * width : (i + 1) * width])
    return b"".join(lines)
