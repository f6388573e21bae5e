"""Retrieval: how high the right answers stand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def best_ranks(
    queries: Floats, answers: Floats, wanted: npt.NDArray[np.generic], keys: npt.NDArray[np.generic], block: int = 1024
) -> Ints:
    """Return the rank of the first right answer of each query, from 1; int64 ``[Q]``.

    Among equals the right answer stands last, so that an encoder that finds everything alike finds nothing.

    Args:
        queries, answers: float32 ``[Q, D]`` and ``[A, D]``, length 1.
        wanted, keys: ``[Q]`` and ``[A]``; an answer is right if its key is the one that is wanted. A query without a
            right answer has rank ``A + 1``.
    """
    out = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ answers.T
        right = wanted[start : start + block, None] == keys
        best = np.where(right, scores, -np.inf).max(1)
        ahead = ((scores >= best[:, None]) & ~right).sum(1)
        out[start : start + block] = np.where(right.any(1), ahead + 1, len(answers) + 1)
    return out
