"""``binary``: the signs of rotated vectors, one bit a number, compared by Hamming distance."""

from __future__ import annotations

import io
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from fastness.index.exact import Floats, Rows
from fastness.index.kinds import KINDS, Kind, Mask, sample, selector

Bits = npt.NDArray[np.uint8]
_ROUNDS = 20  # of fitting signs and rotation to each other


@KINDS.register("binary")
class Binary(Kind):
    """Centred, rotated so that all bits tell as much (ITQ, Gong and Lazebnik 2011), and cut to signs."""

    candidates = 1000
    about = "one bit a number: 1/32 of float32's memory; many candidates are rescored from the disk"

    def __init__(self, structure: faiss.IndexBinaryFlat, turn: Floats, centre: Floats) -> None:
        super().__init__(structure)
        self._turn, self._centre = turn, centre

    @classmethod
    def learnt(cls, vectors: Floats) -> Binary:
        """Return an empty structure with a rotation learnt of the vectors."""
        learnt_from = sample(vectors)
        centre = learnt_from.mean(0)
        turn = _rotation(learnt_from - centre)
        return cls(faiss.IndexBinaryFlat(turn.shape[1]), turn, centre)

    def add(self, vectors: Floats) -> None:
        """Append the vectors' bits."""
        self.structure.add(self._bits(vectors))

    def propose(self, queries: Floats, number: int, allowed: Mask | None) -> Rows:
        """Return the rows whose bits differ in the fewest places."""
        chosen = None if allowed is None else faiss.SearchParameters(sel=selector(allowed))
        found: Rows = self.structure.search(self._bits(queries), min(number, len(self)), params=chosen)[1]
        return found

    def write(self, path: Path) -> None:
        """Write the rotation, the centre and the bits."""
        bits = faiss.vector_to_array(self.structure.xb).reshape(len(self), -1)
        with path.open("wb") as handle:
            np.savez(handle, turn=self._turn, centre=self._centre, bits=bits)

    @classmethod
    def read(cls, content: bytes) -> Binary:
        """Return the structure that `write` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as parts:
            turn, centre, bits = parts["turn"], parts["centre"], parts["bits"]
        structure = faiss.IndexBinaryFlat(turn.shape[1])
        structure.add(bits)
        return cls(structure, turn, centre)

    def _bits(self, vectors: Floats) -> Bits:
        return np.packbits((vectors - self._centre) @ self._turn > 0, axis=1)


def _rotation(centred: Floats) -> Floats:
    """Return the rotation ``[D, bits]`` after which the signs are nearest to the vectors; bits are a multiple of 8.

    Principal directions first, then signs and rotation fitted to each other in turns, as ITQ does.
    """
    dim = centred.shape[1]
    bits = -(-dim // 8) * 8
    start = np.linalg.qr(np.random.default_rng(0).normal(size=(bits, bits)))[0][:dim].astype(np.float32)
    turn = start
    if bits == dim:
        for _ in range(_ROUNDS):
            left, _, right = np.linalg.svd(centred.T @ np.sign(centred @ turn))
            turn = left @ right
    return np.ascontiguousarray(turn, np.float32)
