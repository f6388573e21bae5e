"""Vectors cut to signs: centred, turned at random, one bit for what is positive and none for what is not.

The angle between two vectors shows in how many bits differ (Charikar 2002, STOC, 380). Without centring, embeddings
that are never negative, as those behind a ReLU, would all have the same bits.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastness.index.exact import Floats

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Signs:
    """How vectors become bits.

    Attributes:
        turn: float32 ``[D, B]``, directions in groups of D that stand on each other; B is a multiple of 8.
        centre: float32 ``[D]``, what lies in the middle of the vectors.
    """

    turn: Floats
    centre: Floats

    @classmethod
    def learnt(cls, vectors: Floats) -> Signs:
        """Return three bits for two numbers, centred at the mean of vectors float32 ``[N, D]``."""
        dim = vectors.shape[1]
        bits = -(-3 * dim // 16) * 8
        generator = np.random.default_rng(0)
        turns = [np.linalg.qr(generator.normal(size=(dim, dim)))[0] for _ in range(-(-bits // dim))]
        turn = np.ascontiguousarray(np.concatenate(turns, 1)[:, :bits], np.float32)
        return cls(turn, vectors.mean(0, dtype=np.float64).astype(np.float32))

    @property
    def number(self) -> int:
        """How many bits a vector has."""
        return int(self.turn.shape[1])

    def of(self, vectors: Floats) -> Bits:
        """Return the bits of vectors, packed, uint8 ``[N, B / 8]``."""
        return np.packbits((vectors - self.centre) @ self.turn > 0, axis=1)

    def to_bytes(self, **more: Bits) -> bytes:
        """Return all that is needed to make the same bits again, and further arrays with it, as an npz file."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, turn=self.turn, centre=self.centre, **more)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> tuple[Signs, dict[str, Bits]]:
        """Return what `to_bytes` was given."""
        with np.load(io.BytesIO(content), allow_pickle=False) as parts:
            arrays = dict(parts)
        return cls(arrays.pop("turn"), arrays.pop("centre")), arrays
