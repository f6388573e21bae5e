"""``pq``: cells, and product-quantised differences in them (Jégou, Douze and Schmid 2011, IEEE TPAMI 33, 117)."""

from __future__ import annotations

from fastness.index.exact import Floats, Rows
from fastness.index.kinds import KINDS, Kind, Mask, faiss, sample, selector

_PER_CELL = 39  # vectors that a centre wants to learn from; FAISS warns below


@KINDS.register("pq")
class Quantised(Kind):
    """K-means cells of which 1 in 16 are visited; a vector's difference from its centre takes a byte for 4 numbers."""

    candidates = 300
    about = "cells of product-quantised vectors: fast at 1/13 of float32's memory; less exact"

    @classmethod
    def learnt(cls, vectors: Floats) -> Quantised:
        """Return empty cells, the square root of four times as many as vectors."""
        dim, learnt_from = vectors.shape[1], sample(vectors)
        cells = max(1, min(int(2 * len(vectors) ** 0.5), len(learnt_from) // _PER_CELL))
        bits = max(1, min(8, (len(learnt_from) // _PER_CELL).bit_length() - 1))
        parts = next(parts for parts in range(max(dim // 4, 1), 0, -1) if dim % parts == 0)
        centres = faiss.IndexFlatIP(dim)
        structure = faiss.IndexIVFPQ(centres, dim, cells, parts, bits, faiss.METRIC_INNER_PRODUCT)
        structure.train(learnt_from)
        return cls(structure)

    def propose(self, queries: Floats, number: int, allowed: Mask | None) -> Rows:
        """Visit the cells with the nearest centres."""
        found = faiss.SearchParametersIVF(
            sel=None if allowed is None else selector(allowed), nprobe=max(8, self.structure.nlist // 16)
        )
        proposed: Rows = self.structure.search(queries, min(number, len(self)), params=found)[1]
        return proposed
