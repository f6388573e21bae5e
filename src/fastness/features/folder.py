"""A table of features in a folder of Parquet files, which any tool that reads Parquet can read.

``version=BUNDLE/part-*.parquet`` has the columns ``entity``, ``time``, ``sha256`` and ``vector``; a part is there whole
or not at all, and is never changed. ``_features.json`` says what the encoders are called, and which data were embedded.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from fastness.core.errors import BadInput, Failure
from fastness.core.files import atomic_path, disk_errors, write_json
from fastness.features.events import Cells, Events, Rows, joined
from fastness.features.table import FORMAT, NOTHING, Encoding, Features, Floats, Held

_ABOUT, _LOCK = "_features.json", "_lock"
_GROUP = 65_536  # rows that are read at once
_WAIT = 600  # seconds for other writers
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


class FolderFeatures(Features):
    """A table in a folder.

    Args:
        folder: where it is.
        create: make an empty one where there is none.
    """

    def __init__(self, folder: Path, create: bool = False) -> None:
        super().__init__(str(folder))
        self._folder = folder
        self._read: dict[Path, Events] = {}  # parts never change, so what was read of one holds
        if create:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if not (folder / _ABOUT).exists():
                    if any(path.name != _LOCK for path in folder.iterdir()):
                        raise BadInput(f"{folder}: is a folder with something else in it; choose another name")
                    write_json(folder / _ABOUT, {"format": FORMAT, "encodings": {}, "sources": []})
        self._about()

    def close(self) -> None:
        """Forget what was read."""
        self._read.clear()

    def encodings(self) -> list[Encoding]:
        """See `Features.encodings`."""
        kept = sorted(self._about()["encodings"].items(), key=lambda entry: int(entry[1]["number"]))
        return [Encoding(bundle, int(known["dim"]), tuple(known["names"])) for bundle, known in kept]

    def sources(self) -> list[dict[str, Any]]:
        """See `Features.sources`."""
        return list(self._about()["sources"])

    def remember(self, source: dict[str, Any]) -> None:
        """See `Features.remember`."""
        with self._alone():
            about = self._about()
            if source not in about["sources"]:
                write_json(self._folder / _ABOUT, {**about, "sources": [*about["sources"], source]})

    def held(self, encoding: Encoding, among: Cells | None = None) -> Held:
        """See `Features.held`; only keys are read, and once."""
        parts = self._parts(encoding.bundle)
        events = [self._events(part) for part in parts]
        starts = np.cumsum([0, *map(len, events)])
        whole = joined(events)
        rows = _of(whole, among)
        return Held(
            whole if rows is None else whole.take(rows),
            lambda places: _vectors(parts, starts, places if rows is None else rows[places], encoding.dim),
        )

    def others(self, encoding: Encoding, among: Cells | None = None) -> Events:
        """See `Features.others`."""
        bundles = [known.bundle for known in self.encodings() if known.bundle != encoding.bundle]
        whole = joined([self._events(part) for bundle in bundles for part in self._parts(bundle)])
        rows = _of(whole, among)
        return whole if rows is None else whole.take(rows)

    def _enter(self, encoding: Encoding) -> Encoding:
        if not _ID.fullmatch(encoding.bundle):
            raise BadInput(f"'{encoding.bundle[:80]}' is no id of an encoder; take letters, digits, '.', '_' and '-'")
        with self._alone():
            about = self._about()
            fresh = {"number": len(about["encodings"]), "dim": encoding.dim, "names": []}
            known = about["encodings"].setdefault(encoding.bundle, fresh)
            known["names"] = list(dict.fromkeys([*known["names"], *encoding.names]))
            write_json(self._folder / _ABOUT, about)
        return Encoding(encoding.bundle, encoding.dim, tuple(known["names"]))

    def _put(self, encoding: Encoding, events: Events, vectors: Floats) -> int:
        with self._alone():
            new = self.absent(encoding, events)
            if len(new):
                folder = self._of(encoding.bundle)
                for left in folder.glob(".part-*.tmp"):  # whoever wrote it was killed, since nobody else writes now
                    left.unlink(missing_ok=True)
                part = folder / f"part-{uuid.uuid4().hex}.parquet"
                _write(part, events.take(new), vectors[new])
        return len(new)

    def _about(self) -> dict[str, Any]:
        path = self._folder / _ABOUT
        try:
            about: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise BadInput(f"{self.address}: {NOTHING}") from None
        except ValueError:
            raise Failure(f"{path}: is damaged; restore it from a backup") from None
        if about.get("format") != FORMAT:
            raise BadInput(f"{self.address}: is no table of this version's format ({FORMAT}); add to another one")
        return about

    def _of(self, bundle: str) -> Path:
        return self._folder / f"version={bundle}"

    def _parts(self, bundle: str) -> list[Path]:
        return sorted(self._of(bundle).glob("part-*.parquet"))

    def _events(self, part: Path) -> Events:
        import pyarrow.parquet as pq

        if part not in self._read:
            try:
                table = pq.read_table(part, columns=["entity", "time", "sha256"], partitioning=None)
            except (pa.ArrowException, OSError) as error:
                raise Failure(f"{part}: not readable ({str(error).splitlines()[0]}); restore it") from None
            hashes = table["sha256"].combine_chunks()
            self._read[part] = Events(
                table["entity"].combine_chunks().cast(pa.large_string()),
                table["time"].combine_chunks().cast(pa.int64()).to_numpy(),
                np.frombuffer(hashes.buffers()[1], np.uint8).reshape(-1, 32)[hashes.offset :][: len(hashes)],
            )
        return self._read[part]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only writer in here; one that is killed holds up nobody."""
        lock = FileLock(self._folder / _LOCK)
        try:
            with disk_errors(self._folder):
                lock.acquire(timeout=_WAIT)
        except Timeout:
            raise Failure(f"{self.address}: others have been writing for {_WAIT} seconds; try again later") from None
        try:
            yield
        finally:
            lock.release()


def _of(events: Events, among: Cells | None) -> Rows | None:
    """Return the places of the events of some entities; ``None`` for all."""
    if among is None:
        return None
    theirs = pc.is_in(events.entities, value_set=pc.unique(among).drop_null())
    return np.flatnonzero(theirs.to_numpy(zero_copy_only=False))


def _write(part: Path, events: Events, vectors: Floats) -> None:
    """Write a part, in the order of its entities and moments."""
    import pyarrow.parquet as pq

    order = pc.sort_indices(
        pa.table({"entity": events.entities, "time": events.times}),
        sort_keys=[("entity", "ascending"), ("time", "ascending")],
    ).to_numpy()
    events, vectors = events.take(order.astype(np.int64)), vectors[order]
    n, dim = vectors.shape
    columns = {
        "entity": events.entities,
        "time": pa.array(events.times, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "sha256": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), n, [None, pa.py_buffer(np.ascontiguousarray(events.hashes))]
        ),
        "vector": pa.LargeListArray.from_arrays(np.arange(0, n * dim + 1, dim), pa.array(vectors.reshape(-1))),
    }
    with atomic_path(part) as temporary:
        pq.write_table(
            pa.table(columns), temporary, row_group_size=_GROUP, compression="zstd", use_dictionary=["entity"]
        )


def _vectors(parts: list[Path], starts: Rows, places: Rows, dim: int) -> Floats:
    """Return the vectors at some places of several parts, of which only the row groups that hold them are read."""
    import pyarrow.parquet as pq

    found = np.empty((len(places), dim), np.float32)
    order = np.argsort(places, kind="stable")
    sought = places[order]
    for number, part in enumerate(parts):
        first, last = np.searchsorted(sought, starts[number : number + 2])
        if first == last:
            continue
        with pq.ParquetFile(part) as opened:
            begin = int(starts[number])
            for group in range(opened.num_row_groups):
                rows = opened.metadata.row_group(group).num_rows
                low, high = first + np.searchsorted(sought[first:last], (begin, begin + rows))
                if low < high:
                    column = opened.read_row_group(group, columns=["vector"])["vector"]
                    vectors = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).reshape(-1, dim)
                    found[order[low:high]] = vectors[sought[low:high] - begin]
                begin += rows
    return found
