"""What a table of features can do, wherever it is kept: hold vectors of events, and say what was known when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.core.postgres import SCHEMES
from fastness.features.events import Cells, Events, Rows, events_of, newest, once, same, texts

FORMAT = 1
NOTHING = "no features here; make a table with: fastness features add TABLE BUNDLE DATA --entity … --time …"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Encoding:
    """An encoder whose vectors a table holds.

    Attributes:
        bundle: its bundle's id, or what else tells it from others.
        dim: length of its vectors.
        names: what it was called: ``photos@3``, or the first digits of the bundle's id.
    """

    bundle: str
    dim: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Held:
    """What a table holds of one encoding at a moment.

    Attributes:
        events: those that it has a vector of.
        vectors: gives the vectors at some places of the events, float32 ``[M, dim]``.
    """

    events: Events
    vectors: Callable[[Rows], Floats]


@dataclass(frozen=True)
class Joined:
    """What was known at N rows.

    Attributes:
        encoding: of which all vectors are.
        place: where a row's vector is, int64 ``[N]``, -1 where nothing was known.
        vectors: each once, float32 ``[M, dim]``.
        times: when what they show was seen, int64 ``[M]``, microseconds since 1970.
        behind: rows whose entity has a newer event that this encoding has no vector of.
    """

    encoding: Encoding
    place: Rows
    vectors: Floats
    times: Rows
    behind: int


class Features(ABC):
    """Embeddings as features of other models: a vector for each entity, moment and encoder.

    What a table holds never changes: an entity has one content at a moment, whichever encoder looks at it, and the same
    again adds nothing. So a join can be repeated, and whoever is killed runs again. Writers take turns.

    ``Features.open(address)`` takes a folder of Parquet files, or ``postgresql://user@host/database?table=NAME``.
    """

    @staticmethod
    def open(address: str | Path, *, create: bool = False) -> Features:
        """Open a table.

        Args:
            address: a folder, or an address on PostgreSQL.
            create: make an empty one where there is none.

        Raises:
            BadInput: there is none, or it is of another format.
        """
        if str(address).startswith(SCHEMES):
            from fastness.features.postgres import PostgresFeatures

            return PostgresFeatures(str(address), create)
        from fastness.features.folder import FolderFeatures

        return FolderFeatures(Path(address), create)

    def __init__(self, address: str) -> None:
        self.address = address  # as messages say it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of connections."""

    @abstractmethod
    def encodings(self) -> list[Encoding]:
        """Return the encoders whose vectors are here, in the order in which they came."""

    @abstractmethod
    def sources(self) -> list[dict[str, Any]]:
        """Return of which data vectors were made, in the order in which they came, as JSON values."""

    @abstractmethod
    def remember(self, source: dict[str, Any]) -> None:
        """Keep of which data vectors are made; the same again adds nothing."""

    @abstractmethod
    def held(self, encoding: Encoding, among: Cells | None = None) -> Held:
        """Return what is held of an encoding, of all entities or of some."""

    @abstractmethod
    def others(self, encoding: Encoding, among: Cells | None = None) -> Events:
        """Return the events of all other encodings; one that several have may come several times."""

    @abstractmethod
    def _enter(self, encoding: Encoding) -> Encoding:
        """Enter an encoding or a further name of it; return it as it is kept."""

    @abstractmethod
    def _put(self, encoding: Encoding, events: Events, vectors: Floats) -> int:
        """Keep checked events that are not there yet, to the disk, all or none; return how many were new."""

    def enter(self, bundle: str, dim: int, name: str) -> Encoding:
        """Make an encoder known.

        Args:
            bundle: its bundle's id.
            dim: length of its vectors.
            name: what it is called.

        Raises:
            BadInput: the bundle's vectors have another length here, or the name means another bundle.
        """
        for known in self.encodings():
            if known.bundle == bundle and known.dim != dim:
                raise BadInput(f"{self.address}: vectors of {known} have {known.dim} numbers here, not {dim}")
            if known.bundle != bundle and name in known.names:
                raise BadInput(f"{self.address}: {name} is another encoder here; give the folder of its bundle")
            if known.bundle == bundle and name in known.names:
                return known
        if not bundle or dim < 1:
            raise BadInput("an encoder has an id, and vectors of at least one number")
        return self._enter(Encoding(bundle, dim, (name,)))

    def encoding(self, version: str | None = None) -> Encoding:
        """Return an encoder by one of its names or the first digits of its bundle's id; default: the only one.

        Raises:
            BadInput: there is none, or several.
        """
        known = self.encodings()
        named = [e for e in known if version is None or version in e.names]
        found = named or [e for e in known if version and len(version) >= 6 and e.bundle.startswith(version)]
        if len(found) == 1:
            return found[0]
        there = ", ".join(map(str, known)) or "none yet"
        if version is None:
            raise BadInput(f"{self.address}: say of which encoder (--version); there are: {there}")
        raise BadInput(f"{self.address}: no vectors of '{version[:80]}' here; there are: {there}")

    def put(self, encoding: Encoding, events: Events, vectors: Floats) -> int:
        """Keep vectors of events; those that are there already stay as they are.

        Args:
            encoding: that made the vectors; see `enter`.
            events: N, see `events_of`.
            vectors: float32 ``[N, dim]``.

        Returns:
            how many were new.

        Raises:
            BadInput: an entity has other content at that moment, or vectors are not finite or of another shape.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.shape != (len(events), encoding.dim):
            raise BadInput(f"vectors of shape {list(vectors.shape)}; give [{len(events)}, {encoding.dim}]")
        if not np.isfinite(vectors).all():
            raise BadInput("a vector is not finite; leave its event out")
        kept = once(events_of(events.entities, events.times, events.hashes), self.address)
        return self._put(encoding, events.take(kept), vectors[kept]) if len(kept) else 0

    def absent(self, encoding: Encoding, events: Events) -> Rows:
        """Return the places of events that an encoding has no vector of.

        Raises:
            BadInput: an entity has other content here at that moment.
        """
        among = events.entities
        self.matched(self.others(encoding, among), events)
        return np.flatnonzero(self.matched(self.held(encoding, among).events, events) < 0)

    def missing(self, encoding: Encoding) -> Events:
        """Return the events of other encodings that this one has no vector of, each once."""
        others = self.others(encoding)
        others = others.take(np.unique(same(others, others)))
        return others.take(same(self.held(encoding).events, others) < 0)

    def matched(self, there: Events, events: Events) -> Rows:
        """Return where events are among those that are there, -1 where they are not.

        Raises:
            BadInput: an entity has other content there at that moment.
        """
        place = same(there, events)
        rows = np.flatnonzero(place >= 0)
        differ = rows[there.content[place[rows]] != events.content[rows]]
        if len(differ):
            raise BadInput(
                f"{self.address}: {events.named(int(differ[0]))} has other content here, and what is held never "
                "changes; give what is new a moment of its own, or take another table"
            )
        return place

    def join(
        self,
        entities: Sequence[str] | Cells,
        times: Sequence[int] | Rows,
        version: str | None = None,
        *,
        max_age: int | None = None,
        partial: bool = False,
    ) -> Joined:
        """Return for each of N rows the newest vector of its entity that was known at its moment, never a later one.

        Args:
            entities: whose vector is wanted, ``None`` where nobody's.
            times: int64 ``[N]``, microseconds since 1970; `moments.NEVER` where a row says none.
            version: of which encoder all vectors are; see `encoding`.
            max_age: in microseconds; what is older counts as not known.
            partial: take what there is where another encoder has a newer event; else that is refused, since it would
                give old vectors unseen.

        Raises:
            BadInput: there is no such encoder, or its vectors are not whole.
        """
        names, moments = texts(entities), np.asarray(times, np.int64)
        if len(names) != len(moments):
            raise BadInput(f"{len(names)} entities and {len(moments)} moments; give one each")
        encoding = self.encoding(version)
        held, others = self.held(encoding, names), self.others(encoding, names)
        place = newest(held.events, names, moments)
        newer = newest(others, names, moments)
        for events, rows in ((held.events, place), (others, newer)):
            if max_age is not None:
                there = np.flatnonzero(rows >= 0)
                rows[there[moments[there] - events.times[rows[there]] > max_age]] = -1
        behind = _behind(held.events, place, others, newer)
        if behind and not partial:
            raise BadInput(
                f"{self.address}: {encoding} has no vector yet of what {behind:,} rows would be given; run: fastness "
                "features backfill, or take what there is (--partial)"
            )
        used, numbered = np.unique(place, return_inverse=True)
        none = int(len(used) > 0 and used[0] < 0)
        used = used[none:]
        return Joined(encoding, numbered - none, held.vectors(used), held.events.times[used], behind)

    def show(self) -> list[dict[str, Any]]:
        """Return what a person wants to know of each encoding, JSON-able; moments are microseconds since 1970."""
        import pyarrow.compute as pc

        found = []
        for encoding in self.encodings():
            events = self.held(encoding).events
            found.append(
                {
                    "version": str(encoding),
                    "names": list(encoding.names),
                    "bundle": encoding.bundle,
                    "dim": encoding.dim,
                    "events": len(events),
                    "entities": pc.count_distinct(events.entities).as_py(),
                    "first": int(events.times.min()) if len(events) else None,
                    "last": int(events.times.max()) if len(events) else None,
                    "missing": len(self.missing(encoding)),
                }
            )
        return found


def _behind(events: Events, place: Rows, others: Events, other: Rows) -> int:
    """Return for how many rows others have an event that is newer than the one found."""
    rows = np.flatnonzero(other >= 0)
    mine, theirs = place[rows], others.times[other[rows]]
    ours = np.where(mine >= 0, events.times[mine], -1) if len(events) else np.zeros(len(rows))
    return int(((mine < 0) | (theirs > ours)).sum())
