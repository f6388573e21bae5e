"""How fast are texts encoded on a CPU? fastness against sentence-transformers' default ``encode``, in turns.

The same MiniLM, the same texts (Banking77's questions), the same number of threads; tokenising is counted. Each side
lives in a process of its own and waits while the other works.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import time
from typing import Any

import numpy as np
import torch

import common
import fastness as fs
from fastness.core.hardware import cores

ASK, ASK_COSINE = 1.8, 0.999


def texts(n: int) -> list[str]:
    """Return the first ``n`` questions."""
    with (common.DATA / "text" / "banking77" / "train.csv").open(encoding="utf-8") as handle:
        return [row["text"] for row in csv.DictReader(handle)][:n]


def main() -> None:
    """Measure in turns and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    turns, asked = (2, texts(500)) if quick else (7, texts(3000))
    common.WORK.mkdir(exist_ok=True)
    written, out = common.WORK / "texts.json", common.WORK / "theirs.npy"
    written.write_text(json.dumps(asked))
    python = common.peer_python("sentence_transformers")
    command = [python, common.PEERS / "st_encode.py", common.minilm(), written, out, str(cores())]
    peer = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert peer.stdin is not None and peer.stdout is not None
    bundle = fs.load(common.minilm_bundle())
    torch.set_num_threads(cores())
    bundle.embed(asked[:64], precision="auto")
    assert peer.stdout.readline().strip() == "ready"
    seconds: dict[str, list[float]] = {"sentence-transformers": [], "fastness float32": [], "fastness auto": []}
    for _ in range(turns):
        print("go", file=peer.stdin, flush=True)
        seconds["sentence-transformers"].append(float(peer.stdout.readline()))
        for precision in ("float32", "auto"):
            started = time.perf_counter()
            vectors = bundle.embed(asked, precision=precision)
            seconds[f"fastness {precision}"].append(time.perf_counter() - started)
    peer.stdin.close()
    peer.wait()
    cosine = (vectors * np.load(out)).sum(1)
    rows: list[dict[str, Any]] = [
        {"row": name, "texts_a_second": round(len(asked) / statistics.median(found), 1), "turns": turns}
        for name, found in seconds.items()
    ]
    ratios = [a / b for a, b in zip(seconds["sentence-transformers"], seconds["fastness auto"], strict=True)]
    ratio = statistics.median(ratios)
    asks = [
        common.ask(
            "speed against sentence-transformers",
            f">= {ASK}x",
            f"{ratio:.2f}x [{min(ratios):.2f}, {max(ratios):.2f}]",
            ratio >= ASK,
        ),
        common.ask(
            "smallest cosine with its vectors",
            f"> {ASK_COSINE}",
            f"{cosine.min():.5f}",
            bool(cosine.min() > ASK_COSINE),
        ),
    ]
    common.save(
        "text_encode" + ("_quick" if quick else ""),
        rows,
        asks,
        protocol=f"{len(asked):,} texts, MiniLM, {cores()} threads",
    )


if __name__ == "__main__":
    main()
