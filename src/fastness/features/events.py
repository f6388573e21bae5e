"""Events: what was seen of an entity at a moment. Which is the newest that was known then is answered here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastness.core.errors import BadInput
from fastness.data.manifest import HashArray
from fastness.features.moments import EARLIEST, LATEST, NEVER, shown

Cells: TypeAlias = Any  # an Arrow array of texts; null where there is none
Rows = npt.NDArray[np.int64]
_NUMBER = r"^-?(0|[1-9]\d*)(\.\d+)?([eE]\+?\d+)?$"


@dataclass(frozen=True)
class Events:
    """What was seen of entities.

    Attributes:
        entities: of what, Arrow array of texts ``[N]`` without nulls.
        times: when, int64 ``[N]``, microseconds since 1970 (UTC).
        hashes: SHA-256 of what was seen, uint8 ``[N, 32]``.
    """

    entities: Cells
    times: Rows
    hashes: HashArray

    def __len__(self) -> int:
        return len(self.times)

    @property
    def content(self) -> npt.NDArray[np.bytes_]:
        """The hashes as values that can be sorted, ``[N]`` of 32 bytes each."""
        return np.ascontiguousarray(self.hashes).view("S32").ravel()

    def take(self, places: npt.NDArray[Any]) -> Events:
        """Return those at some places, or under a mask."""
        rows = np.flatnonzero(places) if places.dtype == np.bool_ else places
        return Events(self.entities.take(pa.array(rows, pa.int64())), self.times[rows], self.hashes[rows])

    def named(self, place: int) -> str:
        """Return how a person calls one."""
        return f"entity '{str(self.entities[place].as_py())[:100]}' at {shown(int(self.times[place]))}"


def events_of(entities: Sequence[str] | Cells, times: Sequence[int] | Rows, hashes: HashArray) -> Events:
    """Return events, checked.

    Raises:
        BadInput: an entity is empty or no text that can be kept, a moment lies outside of the years 1 to 9999, or
            something has another length.
    """
    names = texts(entities)
    moments = np.asarray(times, np.int64)
    found = Events(names, moments, np.asarray(hashes, np.uint8).reshape(-1, 32))
    if not len(names) == len(moments) == len(found.hashes):
        raise BadInput(f"{len(names)} entities, {len(moments)} moments, {len(found.hashes)} hashes; give one each")
    if names.null_count or pc.any(pc.equal(names, "")).as_py():
        raise BadInput("an entity has no name; leave out what is known of nobody")
    if pc.any(pc.match_substring(names, "\0")).as_py():
        raise BadInput("an entity's name holds a NUL; no database keeps it")
    if len(moments) and (moments.min() < EARLIEST or moments.max() > LATEST):
        raise BadInput("a moment lies outside of the years 1 to 9999; give microseconds since 1970")
    return found


def texts(values: Sequence[str] | Cells) -> Cells:
    """Return texts as one Arrow array."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values.cast(pa.large_string())
    try:
        return pa.array(values, pa.large_string())
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise BadInput(f"entities are texts ({str(error).splitlines()[0][:100]})") from None


def names_in(cells: Cells) -> Cells:
    """Return what a column calls entities, trimmed; whole numbers that became floats beside a gap are whole again."""
    found = texts(pc.utf8_trim_whitespace(cells))
    said = pc.if_else(pc.equal(found, ""), None, found)
    if not (pc.all(pc.match_substring_regex(said, _NUMBER)).as_py() and pc.any(pc.match_substring(said, ".")).as_py()):
        return found
    numbers = [None if text is None else Decimal(text) for text in said.to_pylist()]
    if any(x is not None and x != x.to_integral_value() for x in numbers):
        return found
    return pa.array([None if x is None else str(int(x)) for x in numbers], pa.large_string())


def joined(parts: Sequence[Events]) -> Events:
    """Return the events of several parts one after the other."""
    if not parts:
        return Events(pa.array([], pa.large_string()), np.zeros(0, np.int64), np.zeros((0, 32), np.uint8))
    return Events(
        pa.concat_arrays([part.entities for part in parts]),
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.hashes for part in parts]),
    )


def newest(events: Events, entities: Cells, times: Rows) -> Rows:
    """Return for each of N rows the place of its entity's newest event that is not after the row, -1 without one.

    An entity's number and the rank of a moment among all events' make one number, in whose order a binary search
    finds the last event that is not behind the row: O((M + N) log M), and about ten times as fast as Arrow's
    ``join_asof``, which also wants both sides sorted.

    Args:
        events: M of them, in no order; of several of one entity and moment any is found.
        entities: Arrow array of texts ``[N]``, null where a row has none.
        times: int64 ``[N]``, `NEVER` where a row has none.
    """
    found = np.full(len(times), -1, np.int64)
    known = pc.unique(entities).drop_null()
    whose = pc.index_in(events.entities, known).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    places = np.flatnonzero(whose >= 0)  # events of others are of no interest, and may be most
    asked = pc.index_in(entities, known).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.flatnonzero((asked >= 0) & (times != NEVER))
    if not len(places) or not len(rows):
        return found
    ranks, rank = np.unique(events.times[places], return_inverse=True)
    width = len(ranks) + 1
    keys = whose[places] * width + rank + 1
    order = np.argsort(keys)
    wanted = asked[rows] * width + np.searchsorted(ranks, times[rows], side="right")
    by_key = np.argsort(wanted)  # a search in order finds what it wants in the cache
    last = np.empty(len(rows), np.int64)
    last[by_key] = np.searchsorted(keys[order], wanted[by_key], side="right") - 1
    at = places[order[last]]
    same = (last >= 0) & (whose[at] == asked[rows])
    found[rows[same]] = at[same]
    return found


def same(events: Events, asked: Events) -> Rows:
    """Return the place of the event of the same entity and moment for each that is asked for, -1 without one."""
    place = newest(events, asked.entities, asked.times)
    there = np.flatnonzero(place >= 0)
    place[there[events.times[place[there]] != asked.times[there]]] = -1
    return place


def once(events: Events, source: str) -> Rows:
    """Return the places of events with each entity and moment once.

    Raises:
        BadInput: two of an entity and moment differ.
    """
    place = same(events, events)
    differ = np.flatnonzero(events.content != events.content[place])
    if len(differ):
        raise BadInput(
            f"{source}: two things are of {events.named(int(differ[0]))}; give each its own moment, or its own entity"
        )
    return np.unique(place)
