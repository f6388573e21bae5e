"""Raw FAISS and usearch on the same vectors: build, memory, queries a second, recall@10; one thread.

``python vectors_run.py build|search faiss:KIND|usearch:KIND PLACE BASE.npy QUESTIONS.npy TRUTH.npy`` prints one line
of JSON. ``faiss:binary`` and ``usearch:b1`` have no rescoring: their recall is that of sign bits alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

K, AT_ONCE = 10, 100


def memory_mb() -> dict[str, float]:
    """Return what this process holds, and what of files is mapped into its memory, in MB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {
        "held_mb": int(fields["RssAnon"].split()[0]) * 1024 / 1e6,
        "mapped_mb": int(fields["RssFile"].split()[0]) * 1024 / 1e6,
    }


def answered(search: Callable[[np.ndarray], Any], asked: np.ndarray) -> tuple[list[list[int]], float]:
    """Return all answers, and the seconds they took; 100 queries at a time, the first 100 asked before for warmth."""
    search(asked[:AT_ONCE])
    start = time.perf_counter()
    found = [list(row) for first in range(0, len(asked), AT_ONCE) for row in search(asked[first : first + AT_ONCE])]
    return found, time.perf_counter() - start


def recall(found: list[list[int]], true: np.ndarray) -> float:
    """Return which share of the ten nearest was found."""
    shares = [len(set(map(int, a)) & set(b.tolist())) / len(b) for a, b in zip(found, true, strict=True)]
    return round(float(np.mean(shares)), 4)


class Faiss:
    """An index of raw FAISS."""

    def __init__(self, kind: str, place: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._faiss, self._kind, self._path = faiss, kind, place / "index"

    def build(self, vectors: np.ndarray) -> None:
        """Train, add and write."""
        faiss, dim, inner = self._faiss, vectors.shape[1], self._faiss.METRIC_INNER_PRODUCT
        if self._kind == "binary":
            index = faiss.IndexBinaryFlat(dim)
            index.add(self._bits(vectors))
            faiss.write_index_binary(index, str(self._path))
            return
        cells = 2 * int(len(vectors) ** 0.5)
        names = {"flat": "Flat", "int8": "SQ8", "pq": f"IVF{cells},PQ32", "hnsw": "HNSW16"}
        index = faiss.index_factory(dim, names[self._kind], inner)
        if self._kind == "hnsw":
            index.hnsw.efConstruction = 80
        index.train(vectors[:: max(1, len(vectors) // 100_000)])
        index.add(vectors)
        faiss.write_index(index, str(self._path))

    def open(self) -> Callable[[np.ndarray], Any]:
        """Return the search of the index that was written."""
        faiss = self._faiss
        if self._kind == "binary":
            signs = faiss.read_index_binary(str(self._path))
            return lambda q: signs.search(self._bits(q), K)[1]
        index = faiss.read_index(str(self._path))
        if self._kind == "hnsw":
            index.hnsw.efSearch = 64
        if self._kind == "pq":
            index.nprobe = index.nlist // 16
        return lambda q: index.search(q, K)[1]

    def _bits(self, vectors: np.ndarray) -> np.ndarray:
        centre = self._path.with_suffix(".npy")
        if not centre.exists():
            np.save(centre, vectors.mean(0))
        return np.packbits(vectors > np.load(centre), axis=1)


class Usearch:
    """An index of usearch: always a graph, of float32, int8 or sign bits."""

    def __init__(self, kind: str, place: Path) -> None:
        self._kind, self._path, self._centre = kind, place / "index", place / "centre.npy"

    def build(self, vectors: np.ndarray) -> None:
        """Add and write, with its own settings but the links and breadth that the other graphs have."""
        from usearch.index import Index

        np.save(self._centre, vectors.mean(0))
        metric = "hamming" if self._kind == "b1" else "ip"
        index = Index(ndim=vectors.shape[1], metric=metric, dtype=self._kind, connectivity=16, expansion_add=80)
        index.add(np.arange(len(vectors)), self._made(vectors), threads=1)
        index.save(str(self._path))

    def open(self) -> Callable[[np.ndarray], Any]:
        """Return the search of the index that was written."""
        from usearch.index import Index

        index = Index.restore(str(self._path))
        index.expansion_search = 64
        return lambda q: index.search(self._made(q), K, threads=1).keys

    def _made(self, vectors: np.ndarray) -> np.ndarray:
        return np.packbits(vectors > np.load(self._centre), axis=1) if self._kind == "b1" else vectors


def main() -> None:
    """Do one step and print what it took."""
    step, what = sys.argv[1:3]
    place, base, questions, true = map(Path, sys.argv[3:])
    library, kind = what.split(":")
    place.mkdir(exist_ok=True)
    index = Faiss(kind, place) if library == "faiss" else Usearch(kind, place)
    if step == "build":
        vectors = np.load(base)
        start = time.perf_counter()
        index.build(vectors)
        print(json.dumps({"build_s": round(time.perf_counter() - start, 1)}))
        return
    asked = np.load(questions)
    index_bytes = sum(path.stat().st_size for path in place.iterdir())
    before = memory_mb()
    search = index.open()  # held until memory is measured
    found, seconds = answered(search, asked)
    held = {key: round(value - before[key], 1) for key, value in memory_mb().items()}
    row = {"queries_per_s": round(len(found) / seconds, 1), "recall": recall(found, np.load(true))}
    print(
        json.dumps({**row, "structure_mb": round(index_bytes / 1e6, 1), "disk_mb": round(index_bytes / 1e6, 1), **held})
    )


if __name__ == "__main__":
    main()
