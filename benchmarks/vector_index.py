"""The vector index: build, memory, queries a second and recall@10 of every kind, beside raw FAISS and usearch.

``full``: 1,000,000 vectors of 128 numbers; ``quick``: 100,000. One thread. Each row is measured in a process of its
own, so that its memory is its own: what the process holds (anonymous memory) grows from before the index is opened to
after the queries; what is only mapped from files, and given back when memory is short, is counted apart. Queries come
100 at a time, as recall is counted against an exact search of the same vectors; the first 100 warm up.

``killed``: a process adds batches and says each that is acknowledged; it is killed 20 times at random moments, and
whoever opens the index afterwards must find each of them, each with its own vector.

Resumable: each row leaves a file in ``.bench/vector_index``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import common
from fastness.core.files import write_json
from fastness.index import Hit, Index
from vector_data import DIM, FOLDER, collection

OURS = ("flat", "binary", "int8", "pq", "hnsw")
RAW = ("faiss:flat", "faiss:int8", "faiss:pq", "faiss:binary", "faiss:hnsw")
USEARCH = ("usearch:f32", "usearch:i8", "usearch:b1")
K, KILLS, AT_ONCE = 10, 20, 100


def truth(base: Path, questions: Path) -> Path:
    """Return the file of the ten nearest of each question, int64 ``[M, 10]``."""
    path = base.with_suffix(".truth.npy")
    if not path.exists():
        vectors, asked = np.load(base, mmap_mode="r"), np.load(questions)
        found = np.full((len(asked), K), -1)
        best = np.full((len(asked), K), -np.inf, np.float32)
        for start in range(0, len(vectors), 100_000):
            part = np.ascontiguousarray(vectors[start : start + 100_000])
            scores, rows = faiss.knn(asked, part, K, metric=faiss.METRIC_INNER_PRODUCT)
            scores, rows = np.concatenate([best, scores], 1), np.concatenate([found, rows + start], 1)
            order = np.argsort(-scores, 1, kind="stable")[:, :K]
            best, found = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        np.save(path, found)
    return path


def measured(what: str, base: Path, questions: Path) -> dict[str, Any]:
    """Return one row, measured in fresh processes; kept until the source of the index changes."""
    peers = common.PEERS / "vectors_run.py"
    code = common.source_hash("index") if ":" not in what else hashlib.sha256(peers.read_bytes()).hexdigest()[:10]
    kept = FOLDER / f"row-{what.replace(':', '-')}-{base.stem}-{code}.json"
    if not kept.exists():
        python = common.peer_python("usearch") if what.startswith("usearch") else Path(sys.executable)
        place = FOLDER / f"index-{what.replace(':', '-')}"
        shutil.rmtree(place, ignore_errors=True)
        script = [__file__, "--part"] if ":" not in what else [str(peers)]
        row: dict[str, Any] = {"what": what, "vectors": base.stem}
        for step in ("build", "search"):
            command = [
                str(python),
                *script,
                step,
                what,
                str(place),
                str(base),
                str(questions),
                str(truth(base, questions)),
            ]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            row |= json.loads(said.splitlines()[-1])
        shutil.rmtree(place, ignore_errors=True)
        write_json(kept, row)
    return dict(json.loads(kept.read_text()))


def part(step: str, kind: str, place: Path, base: Path, questions: Path, true: Path) -> dict[str, Any]:
    """Build one of our kinds, or open it and search; in a process of its own."""
    sys.path.insert(0, str(common.PEERS))
    from vectors_run import answered, memory_mb, recall

    faiss.omp_set_num_threads(1)
    if step == "build":
        vectors = np.load(base, mmap_mode="r")
        start = time.perf_counter()
        with Index.build(place, DIM, kind) as index:
            index.add([str(i) for i in range(len(vectors))], vectors, {"tenth": np.arange(len(vectors)) % 10})
        return {"build_s": round(time.perf_counter() - start, 1)}
    asked = np.load(questions)
    before = memory_mb()
    with Index.open(place) as index:
        shown = index.show()
        found, seconds = answered(lambda q: [[int(h.id) for h in hits] for hits in index.search(q, K)], asked)
        held = {key: round(value - before[key], 1) for key, value in memory_mb().items()}
        narrow = index.search(asked[:AT_ONCE], K, where="tenth == 3")
        assert all(h.metadata["tenth"] == 3 for hits in narrow for h in hits)
    return {
        "queries_per_s": round(len(found) / seconds, 1),
        "recall": recall(found, np.load(true)),
        "structure_mb": round(shown["memory_bytes"] / 1e6, 1),
        "disk_mb": round(shown["disk_bytes"] / 1e6, 1),
        **held,
    }


def adder(place: Path) -> None:
    """Add batches for ever and say the number of each when it is acknowledged."""
    with Index.open(place) as index:
        number = 1 + max((int(hit.metadata["batch"]) for hit in everything(index)), default=-1)
        while True:
            ids, vectors = batch(number)
            index.add(ids, vectors, {"batch": [number] * len(ids)})
            print(number, flush=True)
            number += 1


def batch(number: int) -> tuple[list[str], np.ndarray]:
    """Return 50 ids and vectors that ``number`` decides; each third batch replaces the items of the one before."""
    vectors = np.random.default_rng(number).normal(size=(50, 32)).astype(np.float32)
    return [f"{number - (number % 3 == 2)}-{i}" for i in range(50)], vectors


def everything(index: Index) -> list[Hit]:
    """Return all items."""
    return index.search(np.ones((1, 32), np.float32), max(len(index), 1))[0]


def killed() -> list[dict[str, Any]]:
    """Kill an adder 20 times at random moments, and look after each for what it had said."""
    place, rows = FOLDER / "killed", []
    shutil.rmtree(place, ignore_errors=True)
    Index.build(place, 32, "int8").close()
    generator = np.random.default_rng(0)
    for kill in range(KILLS):
        command = [sys.executable, __file__, "--adder", str(place)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(float(generator.uniform(0, 0.4)))
        process.send_signal(signal.SIGKILL)
        said = int((first + process.stdout.read()).split("\n")[-2])  # behind the last newline nothing was said
        process.wait()
        rows.append({"kill": kill, "acknowledged": said + 1, **looked(place, said)})
    return rows


def looked(place: Path, said: int) -> dict[str, int]:
    """Return how many acknowledged items are lost, and how many have another vector than their own."""
    with Index.open(place) as index:
        held = {hit.id: int(hit.metadata["batch"]) for hit in everything(index)}
        last = {name: number for number in range(said + 1) for name in batch(number)[0]}
        lost = sum(held.get(name, -1) < number for name, number in last.items())
        kept = sorted(set(held.values()))
        vectors = np.concatenate([batch(number)[1] for number in kept])
        names = [name for number in kept for name in batch(number)[0]]
        near = index.search(vectors, 1)
        wrong = sum(hits[0].id != name or hits[0].similarity < 0.9999 for hits, name in zip(near, names, strict=True))
        return {"items": len(index), "lost": lost, "wrong": wrong}


def main() -> None:
    """Measure and write the result file."""
    if "--part" in sys.argv:
        step, what, *paths = sys.argv[2:]
        print(json.dumps(part(step, what, *map(Path, paths))))
        return
    if "--adder" in sys.argv:
        adder(Path(sys.argv[2]))
        return
    quick = common.arguments(__doc__ or "").quick
    n = 100_000 if quick else 1_000_000
    pictures, uniform = collection("pictures", n), collection("uniform", n)
    wanted = [(what, pictures) for what in (*OURS[:4], *RAW[:4], *OURS[4:], *RAW[4:], *USEARCH)]
    wanted += [(what, uniform) for what in ("binary", "int8", "pq")]
    rows: list[dict[str, Any]] = []
    kills = killed()
    for what, files in wanted:
        rows.append(measured(what, *files))
        save(rows, kills, n, quick)


def save(rows: list[dict[str, Any]], kills: list[dict[str, Any]], n: int, quick: bool) -> None:
    """Write what is measured so far."""
    exact = n * DIM * 4 / 1e6
    binary = next((r for r in rows if r["what"] == "binary" and r["vectors"].startswith("pictures")), None)
    asks = []
    if binary is not None:
        share = binary["structure_mb"] / exact
        asks += [
            common.ask("binary + rescoring: recall@10", ">= 0.96", f"{binary['recall']:.4f}", binary["recall"] >= 0.96),
            common.ask("its memory, share of float32's", "<= 1/16", round(share, 4), share <= 1 / 16),
        ]
    lost = sum(r["lost"] + r["wrong"] for r in kills)
    asks.append(common.ask(f"acknowledged items lost in {len(kills)} kills", "0", lost, lost == 0))
    common.save("vector_index" + ("_quick" if quick else ""), rows, asks, killed=kills, float32_mb=exact)


if __name__ == "__main__":
    main()
