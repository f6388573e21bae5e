"""The journal: what a service remembers of its traffic, window by window; nothing of what was asked or answered.

``WATCH/NAME@ALIAS/PROCESS/`` is one process's alone, which holds a lock on it while it lives. A window is a JSON file
(counts, latencies, clusters) that names a Parquet file beside it (a uniform sample of the items: vectors, ids, what is
known of them). Both are rewritten every few seconds: the Parquet file under a new name first, so that the JSON file,
which replaces the one before, speaks of what is there. A process that is killed loses what came since.
"""

from __future__ import annotations

import bisect
import fcntl
import os
import re
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastness.core.errors import BadInput, Failure
from fastness.core.files import disk_errors, write_json
from fastness.monitoring.kept import stored
from fastness.monitoring.kept.reservoir import Reservoir
from fastness.monitoring.kept.windows import COUNTS, FORMAT, LOCK, LONGEST, SECOND, SECONDS, SUMS, folder_of, prune
from fastness.monitoring.window import Array, Floats, Window

_PENDING = 16_384  # items that are in no sum and no cluster yet
_UNWRITTEN = 24  # windows that wait for room on the disk
_QUICK, _QUICKLY = 500, 3  # items of the windows that follow an early end, and how many of them are so short
_NAMES = 64  # that clients may give what they know of a window's items
_PLAIN = re.compile(r"[^A-Za-z0-9.-]+")
Known = Mapping[str, Sequence[Any] | Array]
Facts = Callable[[Sequence[int]], Known]


def moment_now() -> int:
    """Return the moment in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


class Journal:
    """Writes down what comes by; of one process. Its methods may be called from any thread.

    Args:
        folder: of all that is watched.
        name, alias: of what serves.
        window: seconds that a window lasts; they begin at multiples of it, in all processes alike.
        most: items of a window that are kept.
        cut: items after which a window is closed before its time; 0: never.
        keep: seconds for which windows are kept.
        centroids: float32 ``[K, D]`` of a version's sketch, ``None`` if it has none.
        seed: of the samples; ``None``: another one each time.
        clock: tells the moment in microseconds since 1970.

    Raises:
        BadInput: a number is out of its range.
        Failure: nothing can be written there.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        alias: str,
        *,
        window: float = 300.0,
        most: int = 2000,
        cut: int = 0,
        keep: float = 30 * 86_400.0,
        centroids: Callable[[str], Floats | None] = lambda version: None,
        seed: int | None = None,
        clock: Callable[[], int] = moment_now,
    ) -> None:
        if not 0 < window * SECOND <= LONGEST or most < 1 or cut < 0 or keep <= 0:
            raise BadInput("a window lasts up to a day, holds an item at least, and is kept for more than no time")
        self._length, self._most, self._cut, self._keep = int(window * SECOND), most, cut, int(keep * SECOND)
        self._centroids, self._clock = centroids, clock
        self._seed = secrets.randbits(60) if seed is None else seed
        self._began, self._numbers, self._pruned = clock(), 0, 0
        self._ended: dict[tuple[str, str | None], int] = {}
        self._quick: dict[str, int] = {}  # windows of a version that end early
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._open: dict[tuple[str, str | None], _Open] = {}
        self._over: list[_Open] = []
        self._last: tuple[str, str | None] = ("", None)
        self._home = folder_of(folder, name, alias)
        host = _PLAIN.sub("-", socket.gethostname())[:40]
        self.folder = self._home / f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True)
            self._held: IO[bytes] = (self.folder / LOCK).open("wb")
        fcntl.flock(self._held, fcntl.LOCK_EX)

    def seen(
        self,
        vectors: Floats,
        *,
        version: str,
        index: str | None = None,
        route: str = "",
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        columns: Known | None = None,
        facts: Facts | None = None,
        at: Sequence[int] | Array | None = None,
    ) -> None:
        """Write down items that were embedded.

        Args:
            vectors: float32 ``[N, D]``, length 1; not to be changed afterwards.
            version, index: what answered.
            route: where they were asked about; stands in the column ``route``.
            ids: of the items, as the client has them.
            metadata: of each item what the client says of it: numbers, texts, ``None``.
            columns: what a head says and else is known of all items, ``[N]`` each; stands before metadata.
            facts: from positions to what can be told of these items; asked of those alone that are kept.
            at: when they were asked about, of one window; ``None``: now.
        """
        columns = columns or {}
        with self._lock:
            now = self._clock()
            window = self._current(version, index, now)
            taken = window.reservoir.taken(len(vectors))
            places = [position for position, _ in taken]
            told = facts(places) if facts is not None and places else {}
            for row, (position, place) in enumerate(taken):
                known: dict[str, Any] = window.known(metadata[position]) if metadata else {}
                known |= {name: values[position] for name, values in columns.items()}
                known |= {name: values[row] for name, values in told.items()}
                vector = np.where(np.isfinite(vectors[position]), vectors[position], 0).astype(np.float16)
                name = ids[position] if ids else ""
                asked = now if at is None else int(at[position])
                window.put(place, (vector, name, asked, known | ({"route": route} if route else {})))
            window.add(vectors, columns)
            if window.waiting > _PENDING:  # they are not to fill the memory
                window.counted(*_sums(window.take(), self._centroids(version)))
            room = len(self._over) < _UNWRITTEN // 2
            if window.cut and window.reservoir.passed >= window.cut and room:
                self._close((version, index), now)

    def count(
        self,
        route: str,
        status: int,
        seconds: float,
        items: int,
        *,
        version: str | None = None,
        index: str | None = None,
        undecodable: bool = False,
    ) -> None:
        """Count a request that was answered.

        Args:
            route: that was asked.
            status: of HTTP.
            seconds: from its first byte to the last.
            items: that it asked about, as far as that was known.
            version, index: what answered, or would have; ``None``: what did last.
            undecodable: whether it was refused for an item that cannot be read.
        """
        with self._lock:
            key = self._last if version is None else (version, index)
            counts = (window := self._current(*key, self._clock())).counts
            counts["requests"] += 1
            counts["asked"] += items
            counts["seconds"] += seconds
            counts[f"requests.{route}"] += 1
            counts[f"status.{status}"] += 1
            if (kind := _kind(status)) is not None:
                counts[kind] += 1
            if undecodable:
                counts["undecodable"] += 1
            window.latency[bisect.bisect_left(SECONDS, seconds)] += 1
            window.changed = True

    def end_early(self, version: str) -> None:
        """Close the window of a version that is under way, and the next few as soon as they have items enough.

        What has come until now is one thing, what comes from now on another, and it is to be judged soon.
        """
        with self._lock:
            self._quick[version] = _QUICKLY
            now = self._clock()
            for key in [key for key in self._open if key[0] == version]:
                self._close(key, min(now, self._open[key].end))

    def flush(self) -> None:
        """Write what has come since the last time, and close what is over; called every few seconds.

        Raises:
            Failure: the disk is full or refuses; what is not written yet waits for the next time.
        """
        with self._writing:
            with self._lock:
                now = self._clock()
                for key in [key for key, window in self._open.items() if not self._lasts(window, now)]:
                    self._close(key, self._open[key].end)
                over, self._over = self._over, []
                under_way = [window for window in self._open.values() if window.changed]
            broken: Exception | None = None
            try:
                for window in [*over, *under_way]:
                    closed = window in over
                    try:
                        self._write(window, window.end if closed else now, closed)
                    except (OSError, Failure):
                        raise  # the disk: all that follows would fail too, and waits
                    except Exception as error:  # noqa: BLE001 - it can never be written, and what follows can
                        broken = error
                    if closed:
                        over.remove(window)
            finally:
                with self._lock:
                    self._over = (over + self._over)[-_UNWRITTEN:]
            if now - self._pruned > min(3600 * SECOND, self._keep / 10):
                self._pruned = now
                prune(self._home, now - self._keep)
            if broken is not None:
                raise Failure(f"{self.folder}: a window is left out ({type(broken).__name__}: {broken})") from broken

    def close(self) -> None:
        """Write everything, and let go of the folder."""
        with self._lock:
            now = self._clock()
            for key in [*self._open]:
                self._close(key, min(now, self._open[key].end))
        self.flush()
        self._held.close()

    def _current(self, version: str, index: str | None, at: int) -> _Open:
        """Return the window that is under way; one that is over gives way to the next."""
        key = self._last = (version, index)
        window = self._open.get(key)
        if window is not None and self._lasts(window, at):
            return window
        if window is not None:
            self._close(key, window.end)
        start = at - at % self._length
        self._numbers += 1
        reservoir = Reservoir(self._most, self._seed + self._numbers)
        first = self._ended.get(key, at if self._ended or self._open else self._began)
        window = _Open(version, index, max(start, min(first, at)), start + self._length, self._numbers, reservoir)
        window.cut = self._cut
        if self._quick.get(version, 0):
            self._quick[version] -= 1
            window.cut = min(self._cut or _QUICK, _QUICK)
        self._open[key] = window
        return window

    def _lasts(self, window: _Open, at: int) -> bool:
        """Whether a window is under way; one that begins in the future is of a clock that was set back since."""
        return window.start - self._length <= at < window.end

    def _close(self, key: tuple[str, str | None], at: int) -> None:
        window = self._open.pop(key)
        window.end = max(at, window.start + 1)
        self._ended[key] = window.end  # one that follows in the same stretch begins here
        self._over.append(window)
        if len(self._over) > _UNWRITTEN:
            del self._over[0]

    def _write(self, window: _Open, until: int, closed: bool) -> None:
        centroids = self._centroids(window.version)
        with self._lock:
            pending = window.take()
        found = _sums(pending, centroids)
        with self._lock:
            window.counted(*found)
            items, window.changed = [*window.items], False
            said = {
                "format": FORMAT,
                "version": window.version,
                "index": window.index,
                "start": window.start,
                "end": max(until, window.start + 1),
                "closed": closed,
                "counts": dict(window.counts),
                "latency": window.latency.tolist(),
                "clusters": None if window.clusters is None else window.clusters.tolist(),
            }
        stem, before = f"{window.start:016d}-{window.number}", window.file
        try:
            if items:
                window.writes += 1
                window.file = f"{stem}.{window.writes}.parquet"
                stored.write(self.folder / window.file, _as_window(items))
            write_json(self.folder / f"{stem}.json", said | {"items": window.file})
        except BaseException:
            window.changed = True
            raise
        if before not in (None, window.file):
            (self.folder / str(before)).unlink(missing_ok=True)


_Part = tuple[Floats, Known]
Item = tuple[Array, str, int, Mapping[str, Any]]
"""What is kept of an item: its vector float16, its id, the moment, what is known of it."""


class _Open:
    """A window that is under way."""

    def __init__(
        self, version: str, index: str | None, start: int, end: int, number: int, reservoir: Reservoir
    ) -> None:
        self.version, self.index, self.start, self.end, self.number = version, index, start, end, number
        self.reservoir = reservoir
        self.items: list[Item] = []
        self.counts: defaultdict[str, float] = defaultdict(float, dict.fromkeys(COUNTS, 0.0))
        self.latency = np.zeros(len(SECONDS) + 1, np.int64)
        self.clusters: Array | None = None
        self.waiting = 0  # items that are in no sum and no cluster yet
        self.cut = 0  # items after which it is closed before its time; 0: never
        self.changed, self.writes = False, 0
        self.file: str | None = None
        self._pending: list[_Part] = []
        self._names: set[str] = set()

    def known(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a client says of an item, without names that are too many: each is a column."""
        for name in said:
            if len(self._names) < _NAMES:
                self._names.add(name)
        return {name: value for name, value in said.items() if name in self._names}

    def put(self, place: int, item: Item) -> None:
        """Keep an item in a place: the next one, or one that is taken."""
        if place == len(self.items):
            self.items.append(item)
        else:
            self.items[place] = item

    def add(self, vectors: Floats, columns: Known) -> None:
        """Count items, whether they are kept or not."""
        self.changed = True
        self.counts["items"] += len(vectors)
        if "confidence" in columns:
            self.counts["answered"] += len(vectors)
        self._pending.append((vectors, columns))
        self.waiting += len(vectors)

    def take(self) -> list[_Part]:
        """Return the items that are in no sum and no cluster yet, and forget them."""
        found, self._pending, self.waiting = self._pending, [], 0
        return found

    def counted(self, sums: Mapping[str, float], found: Array | None) -> None:
        """Take over sums, and numbers of items by cluster."""
        for name, value in sums.items():
            self.counts[name] += value
        if found is not None:
            self.clusters = found if self.clusters is None else self.clusters + found


def _as_window(items: Sequence[Item]) -> Window:
    vectors, ids, at, known = zip(*items, strict=True)
    return Window(np.array(vectors, np.float32), stored.columns_of(known), list(ids), np.array(at, np.int64))


def _sums(parts: Sequence[_Part], centroids: Floats | None) -> tuple[dict[str, float], Array | None]:
    """Return what `SUMS` asks for, and how many items are nearest to each centroid, int64 ``[K]``.

    For many requests together it is a fraction of what it would be for each.
    """
    columns = {name: [told[name] for _, told in parts if name in told] for name in SUMS}
    sums = {name: float(np.concatenate(values).sum()) for name, values in columns.items() if values}
    if centroids is None or not parts or parts[0][0].shape[1] != centroids.shape[1]:
        return sums, None
    vectors = np.concatenate([vectors for vectors, _ in parts])
    return sums, np.bincount(nearest(vectors, centroids), minlength=len(centroids))


def nearest(vectors: Floats, centroids: Floats) -> Array:
    """Return which centroid is nearest to each vector, int64 ``[N]``.

    Args:
        vectors, centroids: ``[N, D]``, ``[K, D]``.
    """
    found: Array = (vectors @ centroids.T - np.square(centroids).sum(1) / 2).argmax(1)
    return found


def _kind(status: int) -> str | None:
    if status in (429, 503):
        return "refused"
    return "errors" if status >= 500 else "invalid" if status >= 400 else None
