"""``binary``: signs instead of numbers, compared by Hamming distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastness.index.exact import Floats, Rows
from fastness.index.kinds import KINDS, Kind, Mask, faiss, sample, selector
from fastness.index.signs import Signs


@KINDS.register("binary")
class Binary(Kind):
    """The bits of `Signs`; every vector's are compared."""

    candidates = 3000
    about = "signs: 1/21 of float32's memory, every vector is compared, many candidates are rescored from the disk"

    def __init__(self, structure: Any, signs: Signs) -> None:
        super().__init__(structure)
        structure.use_heap = False  # counting is faster than a heap for so many candidates
        self._signs = signs

    @classmethod
    def learnt(cls, vectors: Floats) -> Binary:
        """Return an empty structure, centred at the vectors' mean."""
        signs = Signs.learnt(sample(vectors))
        return cls(faiss.IndexBinaryFlat(signs.number), signs)

    def add(self, vectors: Floats) -> None:
        """Append the vectors' bits."""
        self.structure.add(self._signs.of(vectors))

    def propose(self, queries: Floats, number: int, allowed: Mask | None) -> Rows:
        """Return the rows whose bits differ in the fewest places."""
        chosen = None if allowed is None else faiss.SearchParameters(sel=selector(allowed))
        found: Rows = self.structure.search(self._signs.of(queries), min(number, len(self)), params=chosen)[1]
        return found

    def write(self, path: Path) -> None:
        """Write the bits, and how they are made."""
        bits = faiss.vector_to_array(self.structure.xb).reshape(len(self), -1)
        path.write_bytes(self._signs.to_bytes(bits=bits))

    @classmethod
    def read(cls, content: bytes) -> Binary:
        """Return the structure that `write` wrote."""
        signs, more = Signs.from_bytes(content)
        structure = faiss.IndexBinaryFlat(signs.number)
        structure.add(more["bits"])
        return cls(structure, signs)
