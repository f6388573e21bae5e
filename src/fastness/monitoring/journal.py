"""The journal: what a service remembers of its traffic, window by window; nothing of what was asked or answered.

``WATCH/NAME@ALIAS/PROCESS/`` is one process's alone, which holds a lock on it while it lives. A window is a JSON file
(counts, latencies, clusters) that names a Parquet file beside it (a uniform sample of the items: vectors, ids, what is
known of them). Both are rewritten every few seconds: the Parquet file under a new name first, so that the JSON file,
which replaces the one before, speaks of what is there. A process that is killed loses what came since.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import json
import os
import re
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastness.core.errors import BadInput
from fastness.core.files import disk_errors, write_json
from fastness.monitoring import stored
from fastness.monitoring.reservoir import Reservoir
from fastness.monitoring.window import Array, Floats, Window

FORMAT = 1
SECONDS = tuple(round(10 ** (k / 10 - 3), 6) for k in range(48))
"""Upper ends of the latencies that are counted together: ten to a decade, from a millisecond to 50 seconds; what
took longer is counted behind the last."""

COUNTS = ("requests", "asked", "errors", "refused", "invalid", "undecodable", "seconds", "items", "answered")
"""Counts that every window has; see `Kept.counts`."""

SUMS = ("confidence", "novelty", "abstained")
"""Columns of which the sum over all items is kept, also of those that are not in the sample."""

_SECOND = 1_000_000
_LONGEST = 86_400 * _SECOND  # a window
_PENDING = 16_384  # items that are in no sum and no cluster yet
_UNWRITTEN = 24  # windows that wait for room on the disk
_QUICK, _QUICKLY = 500, 3  # items of the windows that follow an early end, and how many of them are so short
_LOCK = "lock"
_PLAIN = re.compile(r"[^A-Za-z0-9.-]+")
_FILE = re.compile(r"(\d{16})-(\d+)\.json")
Known = Mapping[str, Sequence[Any] | Array]
Facts = Callable[[Sequence[int]], Known]


def moment_now() -> int:
    """Return the moment in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


class _Stored:
    """A field that is given as a window, or as the file of one, which is read anew whenever it is asked for.

    A month of windows is gigabytes, and whoever looks through them looks at one after the other.
    """

    def __set__(self, kept: Kept, value: Window | Path) -> None:
        kept.__dict__["_window"] = value

    def __get__(self, kept: Kept | None, owner: type[Kept] | None = None) -> Window:
        if kept is None:
            raise AttributeError("window")  # so that the field has no default
        value: Window | Path = kept.__dict__["_window"]
        return value if isinstance(value, Window) else stored.read(value)


@dataclass(frozen=True)
class Kept:
    """A window of one process's traffic.

    Attributes:
        id: names it among all of the alias's windows.
        start, end: when, in microseconds since 1970 (UTC).
        version, index: what answered: ``photos@3``, ``shop#17`` or ``None``.
        counts: ``requests``, ``asked`` (items in them), ``errors`` (answered 500 and above, 503 aside), ``refused``
            (429 and 503), ``invalid`` (other 4xx), ``undecodable`` (of these, requests with an item that cannot be
            read), ``seconds``, ``requests./v1/search`` …, ``status.200`` …; ``items`` (that were embedded),
            ``answered`` (of these, what a head has seen), and the sums of `SUMS` over them.
        latency: int64, requests by the time that they took; see `SECONDS`.
        clusters: int64 ``[K]``, items by the nearest centroid of the version's sketch, if it has one.
        window: a uniform sample of the items, read from its file whenever it is asked for.
        whole: it was closed; else its process was killed, and the last seconds before ``end`` may be missing.
    """

    id: str
    start: int
    end: int
    version: str
    index: str | None
    counts: dict[str, float]
    latency: Array
    clusters: Array | None
    window: _Stored = _Stored()
    whole: bool = True


def folder_of(folder: Path, name: str, alias: str) -> Path:
    """Return where what is kept of an alias's traffic lies.

    Raises:
        BadInput: one of them is no name for a folder.
    """
    spec = f"{name}@{alias}"
    if not name or not alias or "/" in spec or "\\" in spec or spec.startswith(".") or "\0" in spec:
        raise BadInput(f"'{spec[:80]}': is nothing that is watched; say NAME@ALIAS, as fastness serve does")
    return folder / spec


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
        if not 0 < window * _SECOND <= _LONGEST or most < 1 or cut < 0 or keep <= 0:
            raise BadInput("a window lasts up to a day, holds an item at least, and is kept for more than no time")
        self._length, self._most, self._cut, self._keep = int(window * _SECOND), most, cut, int(keep * _SECOND)
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
            self._held: IO[bytes] = (self.folder / _LOCK).open("wb")
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
                known: dict[str, Any] = dict(metadata[position]) if metadata else {}
                known |= {name: values[position] for name, values in columns.items()}
                known |= {name: values[row] for name, values in told.items()}
                vector, name = vectors[position].astype(np.float16), ids[position] if ids else ""
                asked = now if at is None else int(at[position])
                window.put(place, (vector, name, asked, known | ({"route": route} if route else {})))
            window.add(vectors, columns)
            if window.waiting > _PENDING:  # they are not to fill the memory
                window.counted(*_sums(window.take(), self._centroids(version)))
            if window.cut and window.reservoir.passed >= window.cut:
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
            for key in [key for key in self._open if key[0] == version]:
                self._close(key, self._clock())

    def flush(self) -> None:
        """Write what has come since the last time, and close what is over; called every few seconds.

        Raises:
            Failure: the disk is full or refuses; what is not written yet waits for the next time.
        """
        with self._writing:
            with self._lock:
                now = self._clock()
                for key in [key for key, window in self._open.items() if window.end <= now]:
                    self._close(key, self._open[key].end)
                over, self._over = self._over, []
                under_way = [window for window in self._open.values() if window.changed]
            try:
                while over:
                    self._write(over[0], over[0].end, closed=True)
                    del over[0]
                for window in under_way:
                    self._write(window, now, closed=False)
            finally:
                with self._lock:
                    self._over = (over + self._over)[-_UNWRITTEN:]
            if now - self._pruned > min(3600 * _SECOND, self._keep / 10):
                self._pruned = now
                _prune(self._home, now - self._keep)

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
        if window is not None and at < window.end:
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


def quantile(latency: Array, q: float) -> float:
    """Return the seconds within which a share of the requests was answered: the upper end of where that falls.

    Args:
        latency: see `Kept.latency`.
        q: in [0, 1].

    Returns:
        infinity beyond the last of `SECONDS`, NaN of no requests.
    """
    if not latency.sum():
        return float("nan")
    place = int(np.searchsorted(np.cumsum(latency), q * latency.sum()))
    return SECONDS[place] if place < len(SECONDS) else float("inf")


def _kind(status: int) -> str | None:
    if status in (429, 503):
        return "refused"
    return "errors" if status >= 500 else "invalid" if status >= 400 else None


def kept(folder: Path, name: str, alias: str, since: int = 0) -> list[Kept]:
    """Return the windows that are over, of all processes and versions, the one that ended first first.

    A window is over when its process has closed it, or is no more. One that was over stays as it is.

    Args:
        folder: of all that is watched.
        name, alias: of what serves.
        since: microseconds since 1970; what ended before is left out.

    Raises:
        BadInput: a file is damaged; names it.
    """
    found = []
    for home in _processes(folder_of(folder, name, alias)):
        alive = _alive(home)  # asked first: what is written in between belongs to a window that is under way
        for path in home.glob("*.json"):
            named = _FILE.fullmatch(path.name)
            if named is None or int(named[1]) + _LONGEST < since:
                continue
            window = _read(path, alive)
            if window is not None and window.end >= since:
                found.append(window)
    return sorted(found, key=lambda window: (window.end, window.id))


def _processes(home: Path) -> list[Path]:
    return sorted(lock.parent for lock in home.glob(f"*/{_LOCK}"))


def _alive(folder: Path) -> bool:
    """Whether the process whose folder it is holds its lock."""
    try:
        with (folder / _LOCK).open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False  # it was old, and has just been taken away
    return False


def _read(path: Path, alive: bool) -> Kept | None:
    """Return a window, ``None`` while it is under way."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise BadInput(f"{path}: format {said['format']} is not this version's ({FORMAT}); upgrade fastness")
        if alive and not said["closed"]:
            return None
        return Kept(
            f"{path.parent.name}/{path.stem}",
            int(said["start"]),
            int(said["end"]),
            str(said["version"]),
            said["index"],
            {str(key): float(value) for key, value in said["counts"].items()},
            np.array(said["latency"], np.int64),
            None if said["clusters"] is None else np.array(said["clusters"], np.int64),
            Window(np.zeros((0, 0), np.float32)) if said["items"] is None else path.parent / str(said["items"]),
            bool(said["closed"]),
        )
    except FileNotFoundError:
        return None  # it was old, and has just been taken away
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: is no window ({type(error).__name__}: {error}); move it away") from None


def _prune(home: Path, before: int) -> None:
    """Take away what is older, whoever wrote it, and the folders of processes that are no more."""
    for folder in _processes(home):
        named = [(path, _FILE.fullmatch(path.name)) for path in folder.glob("*.json")]
        for path, name in named:
            if name is not None and int(name[1]) < before:
                path.unlink(missing_ok=True)
        for path in folder.glob("*.parquet"):
            if path.name[:16].isdecimal() and int(path.name[:16]) < before:
                path.unlink(missing_ok=True)
        old = (folder / _LOCK).stat().st_mtime * _SECOND < before
        if old and not any(folder.glob("*.json")) and not _alive(folder):
            (folder / _LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else lies there
                folder.rmdir()
