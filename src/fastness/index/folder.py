"""A vector index in a folder: a ledger, the vectors memory-mapped, and a structure that can be made again.

An add writes the vectors behind those there are, flushes them, and then commits the ledger: only then it counts.
What lies behind the committed rows is rubbish of an add that was cut short, and is written over. The structure covers
the rows that were there when it was made; those behind are compared one by one until it grows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from fastness.core.conditions import Condition
from fastness.core.errors import BadInput, Failure
from fastness.core.files import atomic_path, disk_errors, replace_folder, write_json
from fastness.index.about import ABOUT, read_about
from fastness.index.base import CANDIDATES, About, Batch, Hit, Index
from fastness.index.exact import Floats, Rows, merged, nearest, rescored
from fastness.index.kinds import FLAT, KINDS, Kind, known
from fastness.index.ledger import Ledger, State
from fastness.index.structure import grown, kept, read_structure, write_structure

TAIL = 10_000  # rows that no structure covers, or that hold nothing, are borne up to here
EXACT = 50_000  # matching rows are compared one by one up to here
_WAIT = 60  # seconds for another writer
_BLOCK = 65_536


@dataclass(frozen=True)
class _View:
    """What a search sees: a state, its vectors, which rows hold items (``None``: all), and its structure."""

    state: State
    vectors: Floats
    live: npt.NDArray[np.bool_] | None
    structure: Kind | None

    def rows(self, start: int = 0) -> Rows:
        """Return the rows from ``start`` on that hold items."""
        if self.live is None:
            return np.arange(start, self.state.rows)
        return np.flatnonzero(self.live[start:]) + start


class FolderIndex(Index):
    """A vector index in a folder; many read it while one writes."""

    @classmethod
    def create(cls, address: str | Path, about: About) -> FolderIndex:
        """Make an empty index in a folder that is not there yet."""
        folder = Path(address)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(f"{folder}: is there already; add to it, or choose another name")
        if about.kind != FLAT and about.kind not in KINDS:
            raise BadInput(f"unknown kind of index '{about.kind}'; known: {', '.join(known())}")

        def fill(temporary: Path) -> None:
            Ledger.create(temporary / "items.sqlite").close()
            (temporary / _vectors_name(0)).touch()
            write_json(temporary / ABOUT, {"format": 1, **asdict(about)})

        replace_folder(folder, fill)
        return cls(folder)

    def __init__(self, address: str | Path) -> None:
        super().__init__(address)
        self._folder = Path(address)
        self.about = read_about(self._folder)
        self._ledger = Ledger(self._folder / "items.sqlite")
        self._lock = FileLock(self._folder / "lock", timeout=_WAIT)
        self._last: _View | None = None

    def __len__(self) -> int:
        with self._ledger.transaction() as state:
            return state.rows - state.removed

    def close(self) -> None:
        """Close the ledger and let go of the vectors."""
        self._last = None
        self._ledger.close()

    def discard(self) -> None:
        """Delete the folder."""
        self.close()
        with disk_errors(self._folder):
            shutil.rmtree(self._folder)

    def columns(self) -> dict[str, str]:
        """Return ``number`` or ``text`` by column."""
        return self._ledger.columns()

    def ids(self) -> list[str]:
        """Return the ids of all items."""
        with self._ledger.transaction():
            return self._ledger.ids()

    def show(self) -> dict[str, Any]:
        """Return items, kind, what waits for the structure, and bytes: on the disk, and held while searching."""
        with self._viewed() as view:
            covered = 0 if view.structure is None else len(view.structure)
            files = {path.name: path.stat().st_size for path in sorted(self._folder.iterdir()) if path.is_file()}
            structure = files.get(view.state.structure, 0)
            return {
                "items": view.state.rows - view.state.removed,
                **asdict(self.about),
                "columns": self.columns(),
                "not_covered": view.state.rows - covered if self.about.kind != FLAT else 0,
                "removed": view.state.removed,
                "disk_bytes": sum(files.values()),
                "mapped_bytes": view.vectors.nbytes,
                "memory_bytes": structure + (0 if view.live is None else view.live.nbytes),
            }

    def _add(self, batch: Batch) -> None:
        with self._writing():
            with self._ledger.transaction(write=True) as state:
                replaced = self._ledger.insert(state.rows, batch.ids, batch.columns, batch.kinds)
                self._append(state, batch.vectors)
                rows, removed = state.rows + len(batch.ids), state.removed + replaced
                self._ledger.advance(replace(state, rows=rows, removed=removed))
            self._maintain()

    def _remove(self, ids: list[str]) -> int:
        with self._writing():
            with self._ledger.transaction(write=True) as state:
                if absent := self._ledger.absent(ids):
                    raise BadInput(f"{self.address}: no item '{absent[0][:100]}'; nothing was removed")
                removed = self._ledger.delete(ids)
                self._ledger.advance(replace(state, removed=state.removed + removed))
            self._maintain()
        return removed

    def _append(self, state: State, vectors: Floats) -> None:
        path, start = self._folder / _vectors_name(state.generation), state.rows * self.about.dim * 4
        if not path.is_file() or path.stat().st_size < start:  # made longer it would hold zeros in place of vectors
            raise Failure(_cut(path))
        with disk_errors(path), path.open("r+b") as handle:
            handle.truncate(start)
            handle.seek(start)
            handle.write(vectors.data)
            handle.flush()
            os.fsync(handle.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with disk_errors(self._folder), self._lock:
                yield
        except Timeout:
            raise Failure(f"{self._folder}: another process has been writing for {_WAIT} seconds; try later") from None

    @contextmanager
    def _viewed(self) -> Iterator[_View]:
        """Yield the index as it is at one moment. A writer may put another file in the place of one just now."""
        for _ in range(10):
            with self._ledger.transaction() as state:
                try:
                    if self._last is None or self._last.state != state:
                        self._last = self._load(state)
                except FileNotFoundError:
                    continue
                yield self._last
                return
        raise Failure(f"{self._folder}: {_vectors_name(state.generation)} is missing; get an intact copy")

    def _load(self, state: State) -> _View:
        path = self._folder / _vectors_name(state.generation)
        shape = (state.rows, self.about.dim)
        if path.stat().st_size < state.rows * self.about.dim * 4:
            raise Failure(_cut(path))
        vectors: Floats = np.memmap(path, np.float32, "r", shape=shape) if state.rows else np.zeros(shape, np.float32)
        live = None
        if state.removed:
            live = np.ones(state.rows, np.bool_)
            live[self._ledger.removed()] = False
        last = self._last
        if last is not None and last.state.structure == state.structure:
            return _View(state, vectors, live, last.structure)
        return _View(state, vectors, live, read_structure(self._folder, self.about.kind, state))

    def _maintain(self) -> None:
        """Drop rows without items when there are many, and let the structure cover what it does not yet."""
        with self._viewed() as view:
            state = view.state
        if state.removed > max(TAIL, state.rows // 3):
            self._compact(view)
            with self._viewed() as view:
                state = view.state
        covered = 0 if view.structure is None else len(view.structure)
        if self.about.kind == FLAT or state.rows - covered <= max(TAIL, covered // 5):
            return
        structure, learnt = grown(self.about.kind, view.structure, view.vectors, state.learnt)
        name, sha256 = write_structure(self._folder, structure, state)
        with self._ledger.transaction(write=True) as now:
            self._ledger.advance(replace(now, structure=name, sha256=sha256, learnt=learnt))
            self._last = replace(view, structure=structure, state=replace(now, changes=now.changes + 1, structure=name))
        self._tidy()

    def _compact(self, view: _View) -> None:
        """Write the vectors that are left to a new file, and let the items' rows be theirs."""
        rows, generation = view.rows(), view.state.generation + 1
        with atomic_path(self._folder / _vectors_name(generation)) as temporary, temporary.open("wb") as handle:
            for start in range(0, len(rows), _BLOCK):
                handle.write(view.vectors[rows[start : start + _BLOCK]].data)
        with self._ledger.transaction(write=True) as state:
            self._ledger.renumber(rows)
            fresh = State(generation, len(rows), 0, state.changes, "", "", 0)
            self._ledger.advance(fresh)
        self._tidy()

    def _tidy(self) -> None:
        """Delete files of earlier states; who has them open keeps them."""
        with self._ledger.transaction() as state:
            for path in self._folder.iterdir():
                if path.name.startswith(("vectors-", "structure-")) and not kept(path.name, state):
                    path.unlink(missing_ok=True)

    def _search(self, queries: Floats, k: int, where: Condition | None, candidates: int | None) -> list[list[Hit]]:
        self._repair()
        with self._viewed() as view:
            matching = None if where is None else self._ledger.rows(where)
            scores, rows = _found(view, queries, k, matching, candidates)
            items = self._ledger.items(np.unique(rows[rows >= 0]).tolist())
        return [
            [
                Hit(items[row][0], round(float(score), 6), items[row][1])
                for score, row in zip(s, r, strict=True)
                if row >= 0
            ]
            for s, r in zip(scores, rows.tolist(), strict=True)
        ]

    def _repair(self) -> None:
        """Make a damaged structure again, if nobody writes; until then every vector is compared."""
        with self._viewed() as view:
            damaged = view.structure is None and bool(view.state.structure)
        if damaged and os.access(self._folder, os.W_OK):
            try:
                with self._lock.acquire(timeout=0):
                    self._maintain()
            except Timeout:
                return


def _found(view: _View, queries: Floats, k: int, matching: Rows | None, candidates: int | None) -> tuple[Floats, Rows]:
    """Return the nearest rows: of few that match exactly, else what the structure proposes, rescored."""
    few = matching is not None and len(matching) <= max(EXACT, view.state.rows // 20)
    rows = view.rows() if matching is None else matching
    k = min(k, len(rows))
    if few or view.structure is None:
        return nearest(queries, view.vectors, rows, k)
    covered = len(view.structure)
    allowed = view.live
    if matching is not None:
        allowed = np.zeros(view.state.rows, np.bool_)
        allowed[matching] = True
    number = max(k, candidates or -(-k * view.structure.candidates // CANDIDATES))
    proposed = view.structure.propose(queries, number, None if allowed is None else allowed[:covered])
    best = merged(
        rescored(queries, view.vectors, proposed, k), nearest(queries, view.vectors, rows[rows >= covered], k)
    )
    short = (best[1] < 0).any(1)  # a graph may find too few that are allowed
    if short.any():
        best[0][short], best[1][short] = nearest(queries[short], view.vectors, rows, k)
    return best


def _cut(path: Path) -> str:
    return f"{path}: is missing or was cut; get an intact copy, or build the index anew"


def _vectors_name(generation: int) -> str:
    return f"vectors-{generation}.f32"
