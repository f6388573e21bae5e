"""What every vector index can do, wherever it is kept: add, remove, search, show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastness.core.conditions import Condition, parse
from fastness.core.errors import BadInput
from fastness.index.checked import Value, checked_columns, checked_ids
from fastness.index.exact import Floats, unit

CANDIDATES = 10  # answers that a kind's number of candidates is meant for


@dataclass(frozen=True)
class Hit:
    """One answer: an item's id, its cosine similarity to the query, and what is known of it."""

    id: str
    similarity: float
    metadata: dict[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What an index is made for.

    Attributes:
        dim: length of its vectors.
        kind: how it is searched.
        space: what made its vectors, a bundle's id say; vectors of another space are not comparable. May be empty.
    """

    dim: int
    kind: str
    space: str = ""


@dataclass(frozen=True)
class Batch:
    """Items to be added, checked: ids, vectors float32 ``[N, D]`` of length 1, and columns of one type each."""

    ids: list[str]
    vectors: Floats
    columns: dict[str, list[Value]]
    kinds: dict[str, str]


class Index(ABC):
    """Vectors by id, searched by cosine similarity; one object serves one thread.

    Make one with `Index.build` and open it again with `Index.open`; both take a folder, or an address
    ``postgresql://user@host/database?table=photos``.
    """

    about: About

    @staticmethod
    def build(address: str | Path, dim: int, kind: str = "flat", space: str = "") -> Index:
        """Make an empty index.

        Args:
            address: a folder that is not there yet, or a PostgreSQL address with a table that is not.
            dim: length of a vector.
            kind: ``flat``, ``hnsw``, ``int8``, ``binary``, ``pq``; on PostgreSQL ``flat``, ``hnsw``, ``binary``.
            space: what makes the vectors, a bundle's id say; it is kept, for whoever opens the index to compare.

        Raises:
            BadInput: there is one already, or the kind is not known.
        """
        if dim < 1:
            raise BadInput(f"an index needs vectors of at least one number; got {dim}")
        return _place(address).create(address, About(dim, kind, space))

    @staticmethod
    def open(address: str | Path) -> Index:
        """Open an index.

        Raises:
            BadInput: there is none.
        """
        return _place(address)(address)

    @classmethod
    @abstractmethod
    def create(cls, address: str | Path, about: About) -> Index:
        """Make an empty index of this place."""

    def __init__(self, address: str | Path) -> None:
        self.address = address

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""

    @abstractmethod
    def discard(self) -> None:
        """Remove the index with all that is in it, and let go of it."""

    @abstractmethod
    def columns(self) -> dict[str, str]:
        """Return what is known of items: ``number`` or ``text``, by column."""

    @abstractmethod
    def ids(self) -> list[str]:
        """Return the ids of all items, in no good order."""

    @abstractmethod
    def show(self) -> dict[str, Any]:
        """Return what a person wants to know: items, kind, bytes on the disk …, JSON-able."""

    @abstractmethod
    def _add(self, batch: Batch) -> None: ...

    @abstractmethod
    def _remove(self, ids: list[str]) -> int: ...

    @abstractmethod
    def _search(self, queries: Floats, k: int, where: Condition | None, candidates: int | None) -> list[list[Hit]]: ...

    def add(
        self, ids: Sequence[str], vectors: npt.ArrayLike, metadata: Mapping[str, Sequence[Any]] | None = None
    ) -> None:
        """Add items; whoever has the same id is replaced. When it returns, they are kept: all, or on an error none.

        Args:
            ids: ``[N]``, all different.
            vectors: ``[N, D]``, finite; scaled to length 1.
            metadata: columns of numbers or of texts, with a value an item; ``None``, NaN and ``""`` are missing.

        Raises:
            BadInput: ids, vectors or columns do not fit each other or the index; names the item.
        """
        columns, kinds = checked_columns(list(ids), metadata or {}, self.columns())
        self._add(Batch(checked_ids(ids), self._checked(vectors, len(ids)), columns, kinds))

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items and return how many were there.

        Raises:
            BadInput: an id is not there; then none is removed.
        """
        return self._remove(checked_ids(ids))

    def search(
        self, queries: npt.ArrayLike, k: int = 10, where: str | None = None, candidates: int | None = None
    ) -> list[list[Hit]]:
        """Return the nearest items of each query, best first; fewer than ``k`` where fewer are there.

        Args:
            queries: ``[M, D]``.
            where: only items for which this holds: ``price < 20 and colour == 'red'``; see `conditions.parse`.
            candidates: how many items are rescored with their true vectors; more are slower and more exact.

        Raises:
            BadInput: the queries have another length, or the condition is none.
        """
        if k < 1:
            raise BadInput(f"-k {k}: ask for at least one answer")
        vectors = self._checked(queries, None)
        condition = None if where is None else parse(where, self.columns(), "--where")
        return self._search(vectors, k, condition, candidates) if len(vectors) else []

    def same_space(self, space: str, name: str) -> None:
        """Refuse vectors that something else made than the index's own.

        Raises:
            BadInput: they are of another space.
        """
        if self.about.space != space:
            own = self.about.space[:12] or "no bundle"
            raise BadInput(f"{self.address}: its vectors are of {own}, not of {name} ({space[:12]}); build it anew")

    def _checked(self, vectors: npt.ArrayLike, n: int | None) -> Floats:
        found = np.asarray(vectors, np.float32)
        if found.ndim != 2 or found.shape[1] != self.about.dim:
            raise BadInput(f"{self.address}: takes vectors [N, {self.about.dim}]; got {list(found.shape)}")
        if n is not None and len(found) != n:
            raise BadInput(f"{self.address}: {n} ids for {len(found)} vectors")
        if not (finite := np.isfinite(found).all(1)).all():
            raise BadInput(f"{self.address}: vector {int(np.argmin(finite))} is not finite")
        return unit(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _place(address: str | Path) -> type[Index]:
    """Return what keeps an index at an address."""
    if str(address).startswith(("postgresql://", "postgres://")):
        from fastness.index.postgres import PostgresIndex

        return PostgresIndex
    from fastness.index.folder import FolderIndex

    return FolderIndex
