"""``hnsw``: a navigable graph of near vectors (Malkov and Yashunin 2016, arXiv 1603.09320)."""

from __future__ import annotations

from fastness.index.exact import Floats, Rows
from fastness.index.kinds import KINDS, Kind, Mask, faiss, sample, selector

_LINKS, _BUILT_WITH, _SEARCHED = 16, 80, 64


@KINDS.register("hnsw")
class Graph(Kind):
    """Links to 16 near vectors on each level; the vectors in it are of one byte a number."""

    candidates = 20
    about = "a graph of near vectors: the fastest; 3/8 of float32's memory, slow to build"

    @classmethod
    def learnt(cls, vectors: Floats) -> Graph:
        """Return an empty graph whose bytes span the vectors' range."""
        graph = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, _LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = _BUILT_WITH
        graph.train(sample(vectors))
        return cls(graph)

    def propose(self, queries: Floats, number: int, allowed: Mask | None) -> Rows:
        """Walk the graph; the fewer rows are allowed, the further."""
        share = 1.0 if allowed is None else max(float(allowed.mean()), 0.01)
        looked = int(max(number, _SEARCHED) / share)
        found = faiss.SearchParametersHNSW(
            sel=None if allowed is None else selector(allowed), efSearch=min(looked, len(self))
        )
        proposed: Rows = self.structure.search(queries, min(number, len(self)), params=found)[1]
        return proposed
