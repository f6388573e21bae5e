"""``int8``: one byte a number."""

from __future__ import annotations

from fastness.index.exact import Floats, Rows
from fastness.index.kinds import KINDS, Kind, Mask, faiss, sample, selector


@KINDS.register("int8")
class Scalar(Kind):
    """Each number is one of 256 steps between the least and the greatest of its dimension."""

    candidates = 20
    about = "one byte a number: 1/4 of float32's memory, every vector is compared"

    @classmethod
    def learnt(cls, vectors: Floats) -> Scalar:
        """Return an empty structure whose bytes span the vectors' range."""
        structure = faiss.IndexScalarQuantizer(
            vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        structure.train(sample(vectors))
        return cls(structure)

    def propose(self, queries: Floats, number: int, allowed: Mask | None) -> Rows:
        """Compare with every allowed row."""
        chosen = None if allowed is None else faiss.SearchParameters(sel=selector(allowed))
        proposed: Rows = self.structure.search(queries, min(number, len(self)), params=chosen)[1]
        return proposed
