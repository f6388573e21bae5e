"""Windows of traffic as journals have left them: how they lie on the disk, and how they are read."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastness.core.errors import BadInput
from fastness.monitoring.kept import stored
from fastness.monitoring.window import Array, Window

FORMAT = 1
SECONDS = tuple(round(10 ** (k / 10 - 3), 6) for k in range(48))
"""Upper ends of the latencies that are counted together: ten to a decade, from a millisecond to 50 seconds; what
took longer is counted behind the last."""

COUNTS = ("requests", "asked", "errors", "refused", "invalid", "undecodable", "seconds", "items", "answered")
"""Counts that every window has; see `Kept.counts`."""

SUMS = ("confidence", "novelty", "abstained")
"""Columns of which the sum over all items is kept, also of those that are not in the sample."""

SECOND = 1_000_000
LONGEST = 86_400 * SECOND
"""A second, and the longest window, in microseconds."""

LOCK = "lock"
"""A process holds a lock on this file in its folder while it lives."""

_FILE = re.compile(r"(\d{16})-(\d+)\.json")


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


def kept(
    folder: Path, name: str, alias: str, since: int = 0, damaged: Callable[[BadInput], None] | None = None
) -> list[Kept]:
    """Return the windows that are over, of all processes and versions, the one that ended first first.

    A window is over when its process has closed it, or is no more. One that was over stays as it is.

    Args:
        folder: of all that is watched.
        name, alias: of what serves.
        since: microseconds since 1970; what ended before is left out.
        damaged: is told of files that are; ``None``: the first of them is an error.

    Raises:
        BadInput: a file is damaged; names it.
    """
    found = []
    for home in _processes(folder_of(folder, name, alias)):
        alive = _alive(home)  # asked first: what is written in between belongs to a window that is under way
        for path in home.glob("*.json"):
            named = _FILE.fullmatch(path.name)
            if named is None or int(named[1]) + LONGEST < since:
                continue
            try:
                window = _read(path, alive)
            except BadInput as error:
                if damaged is None:
                    raise
                damaged(error)
                continue
            if window is not None and window.end >= since:
                found.append(window)
    return sorted(found, key=lambda window: (window.end, window.id))


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


def _processes(home: Path) -> list[Path]:
    return sorted(lock.parent for lock in home.glob(f"*/{LOCK}"))


def _alive(folder: Path) -> bool:
    """Whether the process whose folder it is holds its lock."""
    try:
        with (folder / LOCK).open("rb") as handle:
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
    except OSError as error:  # of a folder that is shared, a file that is just replaced can be stale
        raise BadInput(f"{path}: cannot be read now ({error.strerror}); it is looked for again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: is no window ({type(error).__name__}: {error}); move it away") from None


def prune(home: Path, before: int) -> None:
    """Take away what is older, whoever wrote it, and the folders of processes that are no more."""
    for folder in _processes(home):
        named = [(path, _FILE.fullmatch(path.name)) for path in folder.glob("*.json")]
        for path, name in named:
            if name is not None and int(name[1]) < before:
                path.unlink(missing_ok=True)
        for path in folder.glob("*.parquet"):
            if path.name[:16].isdecimal() and int(path.name[:16]) < before:
                path.unlink(missing_ok=True)
        for path in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime * SECOND < before:
                    path.unlink()
        old = (folder / LOCK).stat().st_mtime * SECOND < before
        if old and not any(folder.glob("*.json")) and not _alive(folder):
            (folder / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else lies there
                folder.rmdir()
