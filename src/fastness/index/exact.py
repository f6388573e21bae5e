"""Exact search: every vector is compared, in blocks, so that a memory-mapped file is read once and never held."""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
_BLOCK = 65_536


def unit(x: npt.NDArray[np.floating]) -> Floats:
    """Return vectors scaled to length 1, float32 ``[N, D]``; zero vectors stay zero."""
    x = np.array(x, dtype=np.float32, order="C")
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return x


def nearest(queries: Floats, vectors: Floats, rows: Rows, k: int) -> tuple[Floats, Rows]:
    """Return the ``k`` of some rows with the greatest inner products, best first.

    Args:
        queries: float32 ``[M, D]``.
        vectors: float32 ``[N, D]``, may be memory-mapped.
        rows: which are compared, int64, ascending.

    Returns:
        inner products and rows ``[M, k]``; ``-inf`` and -1 where there are fewer than ``k``.
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    for start in range(0, len(rows), _BLOCK):
        chosen = rows[start : start + _BLOCK]
        whole = chosen[-1] - chosen[0] + 1 == len(chosen)
        part = vectors[chosen[0] : chosen[-1] + 1] if whole else vectors[chosen]
        scores, near = faiss.knn(queries, part, min(k, len(chosen)), metric=faiss.METRIC_INNER_PRODUCT)
        best, found = _merged(best, found, scores, np.where(near < 0, -1, chosen[near]))
    return best, found


def rescored(queries: Floats, vectors: Floats, candidates: Rows, k: int) -> tuple[Floats, Rows]:
    """Return the ``k`` best of each query's own candidates by their true inner products.

    Args:
        candidates: int64 ``[M, C]``, -1 where there are fewer than C.

    Returns:
        inner products and rows ``[M, k]``; ``-inf`` and -1 where there are fewer than ``k``.
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    for i, row in enumerate(candidates):
        own = np.sort(row[row >= 0])  # ascending, so that the file is read in its order
        scores = vectors[own] @ queries[i]
        top = np.argsort(-scores, kind="stable")[:k]
        best[i, : len(top)], found[i, : len(top)] = scores[top], own[top]
    return best, found


def merged(first: tuple[Floats, Rows], second: tuple[Floats, Rows]) -> tuple[Floats, Rows]:
    """Return the best of two findings of different rows, as many as the first has."""
    return _merged(*first, *second)


def _merged(best: Floats, found: Rows, scores: Floats, rows: Rows) -> tuple[Floats, Rows]:
    k = best.shape[1]
    scores, rows = np.concatenate([best, scores], 1), np.concatenate([found, rows], 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
