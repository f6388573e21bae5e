"""Vectors are made: of data that is new, and by a new encoder of what others have seen.

Each content is embedded once, and what is kept is never made again, so that whoever is killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastness.core.errors import BadInput
from fastness.data.dataset import Dataset
from fastness.data.frame import Frame
from fastness.features.events import Events, Rows, events_of, names_in, once
from fastness.features.moments import NEVER, moment, moments
from fastness.features.table import Encoding, Features

if TYPE_CHECKING:
    from fastness.bundle import Bundle

CHUNK = 4096  # contents that are embedded and kept at once
_DIGITS = 12  # of a bundle's id, as it is called
Say = Callable[[str], None]


@dataclass(frozen=True)
class Filled:
    """What a table was given.

    Attributes:
        encoding: of which vectors were made.
        events: how many have a vector now that had none.
        embedded: how many contents were embedded for that.
        kept: how many events of the data had a vector before.
        undated: items without an entity or a moment.
        damaged: items that could not be embedded.
        left: events of other encoders that still have no vector of this one.
    """

    encoding: Encoding
    events: int
    embedded: int
    kept: int
    undated: int
    damaged: int
    left: int


@dataclass(frozen=True)
class _Seen:
    """A data set as events: item ``places[i]`` is event i."""

    dataset: Dataset
    places: Rows
    events: Events


@dataclass
class _Count:
    """What was done so far."""

    events: int = 0
    embedded: int = 0
    damaged: int = 0


def add(
    address: str | Path,
    encoder: Bundle | str | Path,
    data: Any,
    *,
    entity: str,
    time: str | None = None,
    at: str | None = None,
    unit: str | None = None,
    registry: str | Path | None = None,
    say: Say | None = None,
    **columns: str | None,
) -> Filled:
    """Embed data and keep a vector of each item as what was seen of an entity at a moment.

    May be killed at any moment and be run again; what is there already stays as it is.

    Args:
        address: of the table, see `Features.open`; made if it is not there.
        encoder: a bundle or its folder, or ``NAME@NUMBER`` or ``NAME@ALIAS`` of a registry.
        data: see `open_data`. Its address is remembered, for `backfill`.
        entity: the column that says of whom or what an item is.
        time: the column that says when it was seen, see `moments`.
        at: the moment of all items, in place of ``time``.
        unit: of moments that are numbers: ``s``, ``ms`` or ``us`` since 1970.
        registry: where it is; default: ``FASTNESS_REGISTRY``.
        say: called with lines of progress.
        **columns: see `open_data`. Of a table, ``row`` says which columns are the content; the rest says more of it.

    Raises:
        BadInput: the data cannot be opened, a column is not there or a cell no moment, two items of an entity have one
            moment, or the table has other content there.
    """
    if (time is None) == (at is None):
        raise BadInput("say when items were seen: a column of moments (--time COLUMN), or one for all (--at MOMENT)")
    tell: Say = say or (lambda line: None)
    with _loaded(encoder, registry) as (bundle, name), Features.open(address, create=True) as table:
        given = {key: value for key, value in columns.items() if value is not None}
        source = {"entity": entity, "time": time, "at": at, "unit": unit, "columns": given}
        seen, undated = _seen(bundle, data, source)
        encoding = table.enter(bundle.id, bundle.dim, name)
        absent = table.absent(encoding, seen.events)
        if isinstance(data, str | Path):
            there = str(Path(data).absolute()) if Path(data).exists() else str(data)
            table.remember({"data": there, **source})
        count = _Count(damaged=len(seen.dataset.quarantine))
        kept = len(seen.events) - len(absent)
        _make(table, encoding, bundle, _among(seen, absent), count, tell)
        left = len(table.missing(encoding))
        return Filled(encoding, count.events, count.embedded, kept, undated, count.damaged, left)


def backfill(
    address: str | Path,
    encoder: Bundle | str | Path,
    *,
    registry: str | Path | None = None,
    say: Say | None = None,
) -> Filled:
    """Let an encoder have a vector of everything that others have one of, from the data that was added.

    Only contents that it has no vector of are embedded. May be killed at any moment and be run again.

    Args:
        address: of the table.
        encoder, registry, say: see `add`.

    Returns:
        what was done; ``left`` counts events whose content is in none of the data any more.

    Raises:
        BadInput: there is no table, or no such encoder.
    """
    tell: Say = say or (lambda line: None)
    with Features.open(address) as table, _loaded(encoder, registry) as (bundle, name):
        encoding = table.enter(bundle.id, bundle.dim, name)
        missing, count = table.missing(encoding), _Count()
        kept = len(table.held(encoding).events)
        missing = missing.take(_copied(table, encoding, missing, count))
        for source in reversed(table.sources()):  # what is missing is most likely in what came last
            if not len(missing):
                break
            try:
                seen, _ = _seen(bundle, source["data"], source)
            except BadInput as error:
                tell(f"passed over: {error}")
                continue
            wanted = np.flatnonzero(np.isin(seen.events.content, missing.content))
            _, first = np.unique(seen.events.content[wanted], return_index=True)
            found = _among(seen, wanted[first])
            _embed(table, encoding, bundle, found, missing, count, tell)
            missing = table.missing(encoding)
        return Filled(encoding, count.events, count.embedded, kept, 0, count.damaged, len(missing))


@contextmanager
def _loaded(encoder: Bundle | str | Path, registry: str | Path | None) -> Iterator[tuple[Bundle, str]]:
    """Yield a bundle and what it is called."""
    from fastness.bundle import load
    from fastness.bundle.bundle import Bundle as Loaded

    if isinstance(encoder, Loaded):
        yield encoder, encoder.id[:_DIGITS]
    elif "@" not in str(encoder) or Path(encoder).exists():
        bundle = load(encoder)
        yield bundle, bundle.id[:_DIGITS]
    else:
        from fastness.registry import Registry

        with Registry(registry, create=False) as opened:
            version = opened.find(str(encoder))
            yield load(opened.pull(str(version))), str(version)


def _seen(bundle: Bundle, data: Any, source: dict[str, Any]) -> tuple[_Seen, int]:
    """Return data as events, and how many items say no entity or no moment."""
    dataset = bundle.open(data, **source["columns"])
    manifest = dataset.manifest
    frame = Frame(dict(manifest.facts), manifest.names, source=manifest.source)
    whose = names_in(frame[source["entity"]])
    if source["at"] is None:
        when = moments(frame, source["time"], source["unit"], late=True)
    else:
        when = np.full(len(dataset), moment(source["at"], source["unit"]), np.int64)
    said = pc.not_equal(whose, "").fill_null(False).to_numpy(zero_copy_only=False)
    places = np.flatnonzero(said & (when != NEVER))
    events = events_of(whose.take(pa.array(places)), when[places], manifest.hashes[places])
    kept = once(events, manifest.source)
    return _Seen(dataset, places[kept], events.take(kept)), len(dataset) - len(places)


def _among(seen: _Seen, which: Rows) -> _Seen:
    return _Seen(seen.dataset, seen.places[which], seen.events.take(which))


def _make(table: Features, encoding: Encoding, bundle: Bundle, seen: _Seen, count: _Count, say: Say) -> None:
    """Give events vectors: those of contents that are known, else new ones."""
    rest = _among(seen, _copied(table, encoding, seen.events, count))
    _, first = np.unique(rest.events.content, return_index=True)
    _embed(table, encoding, bundle, _among(rest, first), rest.events, count, say)


def _copied(table: Features, encoding: Encoding, events: Events, count: _Count) -> Rows:
    """Give events whose content this encoder has seen elsewhere the same vector; return the places of the others."""
    held = table.held(encoding)
    known, first = np.unique(held.events.content, return_index=True)
    content = events.content
    at = np.minimum(np.searchsorted(known, content), max(0, len(known) - 1))
    there = known[at] == content if len(known) else np.zeros(len(content), np.bool_)
    places = np.flatnonzero(there)
    for start in range(0, len(places), CHUNK):
        part = places[start : start + CHUNK]
        count.events += table.put(encoding, events.take(part), held.vectors(first[at[part]]))
    return np.flatnonzero(~there)


def _embed(
    table: Features, encoding: Encoding, bundle: Bundle, seen: _Seen, events: Events, count: _Count, say: Say
) -> None:
    """Embed contents, each once, and keep a vector for each of the events that show one of them.

    Args:
        seen: the contents, each once.
        events: to which vectors are given.
    """
    if not len(seen.places):
        return
    taking = bundle.taking(seen.dataset)
    ready = taking.encoder.prepare(seen.dataset.select(seen.places))
    count.damaged += len(seen.places) - len(ready)
    content = np.ascontiguousarray(ready.dataset.manifest.hashes).view("S32").ravel()
    by_content = np.argsort(events.content, kind="stable")
    ordered = events.content[by_content]
    for start in range(0, len(ready), CHUNK):
        part = np.arange(start, min(start + CHUNK, len(ready)))
        vectors = taking.embed_items(ready.select(part))
        low, high = (np.searchsorted(ordered, content[part], side=side) for side in ("left", "right"))
        showing = np.concatenate([by_content[a:b] for a, b in zip(low, high, strict=True)])
        count.events += table.put(encoding, events.take(showing), np.repeat(vectors, high - low, axis=0))
        count.embedded += len(part)
        say(f"{start + len(part):,} of {len(ready):,} embedded")
