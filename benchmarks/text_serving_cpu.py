"""Sentences a second on a CPU: the exported forms of MiniLM against sentence-transformers and fastembed, in turns.

Every way lives in a process of its own, has the same number of threads, embeds the same texts (Banking77's test
questions, then Multi30k's test captions; tokenising is counted) and waits while the others work. Quality is measured on
the vectors that each way itself gave: Spearman on STS-B test, logistic regression on 8 questions a class of Banking77
(five draws), and nDCG@10 on Cranfield. Nothing was calibrated or fitted on any of the three: exports are made on
captions and film reviews.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

import common
import fastness as fs
from fastness.core.files import write_json, write_text
from fastness.core.hardware import cores
from fastness.metrics.retrieval import ranking
from few_label_text import banking77, draw
from sts import stsb

FOLDER = common.WORK / "text_serving"
TEXT = common.DATA / "text"
FORMS = ("onnx", "onnx-int8", "openvino", "openvino-int8", "static")
PEERS = {  # each with the environment it lives in: optimum's parts for ONNX and for OpenVINO exclude each other
    "torch_default": "text_openvino",
    "onnx_int8": "text_onnx",
    "openvino": "text_openvino",
    "openvino_int8": "text_openvino",
    "fastembed": "text_onnx",
}
BASE = "sentence-transformers torch_default"
SHOTS, DRAWS = 8, 5


def captions(part: str) -> list[str]:
    """Return the English captions of a part of Multi30k."""
    return (TEXT / "multi30k" / f"task1_raw_{part}.en.txt").read_text(encoding="utf-8").splitlines()


def corpus() -> Path:
    """Return a file of what exports are calibrated and fitted on, a text a line."""
    path = FOLDER / "corpus.txt"
    if not path.exists():
        with gzip.open(TEXT / "imdb_20k.jsonl.gz", "rt", encoding="utf-8") as lines:
            reviews = [" ".join(json.loads(line)["text"].split()[:60]) for line in itertools.islice(lines, 4000)]
        write_text(path, "\n".join([*captions("train")[:4000], *reviews]))
    return path


def exported(form: str) -> Path:
    """Return MiniLM in one form, made on first use."""
    folder = FOLDER / form
    if not (folder / "export.json").exists():
        fs.export(common.minilm_bundle(), corpus(), form, out=folder, say=lambda line: print(form, line))
    return folder


class Way:
    """One way to embed texts, in a process that waits when it is not asked."""

    def __init__(self, python: str | Path, way: str, model: Path) -> None:
        command = [python, common.PEERS / "text_server.py", way, model, cores()]
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> bool:
        """Wait until it is; a peer that cannot start here is none."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.strip() == "ready":
                return True
        return False

    def embed(self, name: str) -> tuple[float, np.ndarray]:
        """Return the seconds that a set of texts took, and its vectors of length 1."""
        assert self._process.stdin is not None and self._process.stdout is not None
        out = FOLDER / "vectors.npy"
        print(f"{FOLDER / name}.json\t{out}", file=self._process.stdin, flush=True)
        seconds = float(self._process.stdout.readline())
        vectors = np.load(out)
        return seconds, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sets() -> dict[str, list[str]]:
    """Write the sets of texts that are embedded, by name."""
    with stsb("test").open(encoding="utf-8", newline="") as handle:
        pairs = list(csv.reader(handle))
    texts, labels, test, _ = banking77()
    places = sorted({int(i) for number in range(DRAWS) for i in draw(labels, SHOTS, number)})
    cranfield = fs.open_data(TEXT / "cranfield")
    documents = [cranfield.payloads.read(int(row)) for row in cranfield.rows]
    queries = cranfield.payloads.judgements.queries
    found = {
        "sts": [row[0] for row in pairs] + [row[1] for row in pairs],
        "banking": test,
        "banking-few": [texts[i] for i in places],
        "captions": captions("test_2016_flickr"),
        "documents": documents,
        "queries": [queries.payloads.read(int(row)) for row in queries.rows],
    }
    for name, listed in found.items():
        write_json(FOLDER / f"{name}.json", listed)
    return found


def quality(vectors: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the three figures of the vectors of all sets."""
    with stsb("test").open(encoding="utf-8", newline="") as handle:
        scores = [float(row[2]) for row in csv.reader(handle)]
    first, second = np.split(vectors["sts"], 2)
    _, labels, _, wanted = banking77()
    draws = [draw(labels, SHOTS, number) for number in range(DRAWS)]
    place = {int(i): at for at, i in enumerate(sorted({int(i) for chosen in draws for i in chosen}))}
    right = []
    for chosen in draws:
        few = vectors["banking-few"][[place[int(i)] for i in chosen]]
        model = LogisticRegression(max_iter=2000, C=10.0).fit(few, np.array(labels)[chosen])
        right.append(float((model.predict(vectors["banking"]) == np.array(wanted)).mean()))
    judged = fs.open_data(TEXT / "cranfield")
    known = judged.payloads.judgements
    where = {int(row): at for at, row in enumerate(judged.rows)}
    document = np.array([where.get(int(row), -1) for row in known.document])
    found = ranking(vectors["queries"], vectors["documents"], known.query, document, known.gain)
    return {
        "sts": round(float(spearmanr((first * second).sum(1), scores)[0]), 4),
        "banking_few": round(statistics.mean(right), 4),
        "cranfield_ndcg": round(float(found["ndcg@10"].mean()), 4),
    }


def kept(name: str, way: Way, texts: dict[str, list[str]]) -> dict[str, float]:
    """Return the quality of a way, which is measured once."""
    path = FOLDER / f"quality-{name.replace(' ', '-')}.json"
    if not path.exists():
        write_json(path, quality({part: way.embed(part)[1] for part in texts}))
    return dict(json.loads(path.read_text()))


def ways() -> dict[str, Way]:
    """Start every way that can run here."""
    write_json(FOLDER / "captions" / "train.json", [{"text": text} for text in captions("train")[:300]])
    model = FOLDER / "minilm"
    if not model.exists():
        model.symlink_to(common.minilm())
    started = {f"fastness {form}": Way(sys.executable, "fastness", exported(form)) for form in FORMS}
    found = {name: way for name, way in started.items() if way.ready()}
    for kind, environment in PEERS.items():  # one after the other: some prepare files that others use
        way = Way(common.peer_python(environment), kind, model)
        if way.ready():
            found[kind if kind == "fastembed" else f"sentence-transformers {kind}"] = way
    return found


def main() -> None:
    """Measure in turns and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts, found = sets(), ways()
    turns = 2 if quick else 7
    timed = ("banking", "captions")
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(turns):
        for name, way in found.items():
            seconds[name].append(sum(way.embed(part)[0] for part in timed))
    figures = {name: kept(name, way, texts) for name, way in found.items()}
    number = sum(len(texts[part]) for part in timed)
    rows: list[dict[str, Any]] = []
    for name in found:
        ratios = [a / b for a, b in zip(seconds[BASE], seconds[name], strict=True)]
        rows.append(
            {
                "row": name,
                "texts_a_second": round(number / statistics.median(seconds[name])),
                "times_torch": round(statistics.median(ratios), 2),
                "from": round(min(ratios), 2),
                "to": round(max(ratios), 2),
                **figures[name],
            }
        )
    missing = [f"sentence-transformers {kind}" for kind in PEERS if kind != "fastembed"] + ["fastembed"]
    rows += [{"row": name, "not_measured": "cannot run here"} for name in missing if name not in found]
    common.save("text_serving_cpu" + ("_quick" if quick else ""), rows, asks(rows), turns=turns, threads=cores())


def asks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked and what was found: the fastest form whose quality holds, and the static one."""
    by_name = {row["row"]: row for row in rows}
    base, static = by_name[BASE], by_name["fastness static"]
    held = [
        row
        for name, row in by_name.items()
        if name.startswith("fastness ")
        and row is not static
        and row["sts"] >= 0.995 * base["sts"]
        and all(row[figure] >= base[figure] - 0.01 for figure in ("banking_few", "cranfield_ndcg"))
    ]
    best = max(held, key=lambda row: row["times_torch"], default=None)
    said = "no form holds its quality" if best is None else f"{best['times_torch']}x ({best['row']})"
    fast, quickest = best is not None and best["times_torch"] >= 6, static["times_torch"] >= 100
    shown = ", ".join(f"{figure} {static[figure]}" for figure in ("sts", "banking_few", "cranfield_ndcg"))
    return [
        common.ask("against torch, quality within 99.5 % of STS-B and a point of the others", ">= 6x", said, fast),
        common.ask("the static form against torch", ">= 100x", f"{static['times_torch']}x", quickest),
        common.ask("quality of the static form", "stated", shown, None),
    ]


if __name__ == "__main__":
    main()
