"""What is searched before the vectors themselves: a small structure that a kind of index keeps in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from fastness.core.registry import Registry
from fastness.index.exact import Floats, Rows

faiss: Any = _faiss  # its own types know but a part of it
Mask = npt.NDArray[np.bool_]
_TRAINED_ON = 100_000  # vectors that a structure learns from


class Kind(ABC):
    """A structure that proposes rows; the index rescores them with the vectors, which lie on the disk.

    Attributes:
        candidates: how many rows are proposed for 10 answers.
    """

    candidates: ClassVar[int]
    about: ClassVar[str]

    def __init__(self, structure: Any) -> None:
        self.structure = structure

    def __len__(self) -> int:
        return int(self.structure.ntotal)

    @classmethod
    @abstractmethod
    def learnt(cls, vectors: Floats) -> Kind:
        """Return an empty structure that suits vectors, float32 ``[N, D]``, of length 1."""

    def add(self, vectors: Floats) -> None:
        """Append vectors; row i of the index is entry i."""
        self.structure.add(vectors)

    @abstractmethod
    def propose(self, queries: Floats, number: int, allowed: Mask | None) -> Rows:
        """Return rows that are probably near, int64 ``[M, number]``, -1 where there are fewer.

        Args:
            allowed: bool ``[N]``, which rows may be proposed; all if not given.
        """

    def write(self, path: Path) -> None:
        """Write the structure to a file."""
        faiss.write_index(self.structure, str(path))

    @classmethod
    def read(cls, content: bytes) -> Kind:
        """Return the structure that `write` wrote."""
        return cls(faiss.deserialize_index(np.frombuffer(content, np.uint8)))


KINDS: Registry[type[Kind]] = Registry(
    "kind of index", "fastness.index", {"hnsw": "graph", "int8": "scalar", "binary": "binary", "pq": "quantised"}
)
FLAT = "flat"  # no structure: every vector is compared


def known() -> list[str]:
    """Return the names of all kinds."""
    return [FLAT, *KINDS]


def sample(vectors: Floats) -> Floats:
    """Return at most 100,000 of the vectors, evenly drawn, to learn from."""
    return np.ascontiguousarray(vectors[:: max(1, len(vectors) // _TRAINED_ON)][:_TRAINED_ON], np.float32)


def selector(allowed: Mask) -> Any:
    """Return what tells FAISS which rows are allowed; it keeps the bits alive."""
    bits = np.packbits(allowed, bitorder="little")
    return faiss.IDSelectorBitmap(bits)
