"""A vector index over cosine similarity (FAISS): exact up to 50,000 vectors, a graph (HNSW) above."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.index.exact import unit

EXACT_UP_TO = 50_000
Floats = npt.NDArray[np.float32]


class VectorIndex:
    """Finds the nearest of a set of vectors by cosine similarity.

    Args:
        vectors: float32 ``[N, D]``; normalised here, zero vectors stay zero.
        exact: compare with every vector; default: when there are at most 50,000.
    """

    def __init__(self, vectors: Floats, exact: bool | None = None) -> None:
        import faiss

        if vectors.ndim != 2 or not len(vectors):
            raise BadInput(f"an index needs vectors [N, D] with N > 0; got {vectors.shape}")
        self.exact = len(vectors) <= EXACT_UP_TO if exact is None else exact
        dim = vectors.shape[1]
        self._index: Any = faiss.IndexFlatIP(dim)
        if not self.exact:
            self._index = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction, self._index.hnsw.efSearch = 80, 64
        self._index.add(unit(vectors))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Floats, k: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return similarities and positions ``[M, min(k, N)]`` of the nearest, best first."""
        scores, rows = self._index.search(unit(queries), min(k, len(self)))
        return scores, rows
