"""How long do the checks take on 10,000 images that are embedded already, and how much memory? Corruptions apart.

Every check that needs no further forward pass, on 10,000 held-out images of CIFAR-10 (JPEG-75) and as many fitting
ones, in a process of its own; then the corruptions' forward passes, in images a second.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

import common
import fastness as fs
from fastness.core.files import write_json
from fastness.data.dataset import Dataset
from fastness.data.sources.arrays import from_pixels

FOLDER = common.WORK / "evaluation"
ITEMS, MINUTES, GIGABYTES = 10_000, 3.0, 3.0
CHECKS = (
    "knn",
    "linear",
    "neighbours",
    "clustering",
    "calibration",
    "selective",
    "slices",
    "groups",
    "domains",
    "votes",
)


def data(items: int) -> Dataset:
    """Return as many fitting as held-out images, each of a group."""
    kept = np.load(common.cifar10_npz())
    rows = np.random.default_rng(0).permutation(len(kept["labels"]))[:items]  # in the file class by class
    images = np.concatenate([kept["images"][rows], kept["test_images"][:items]])
    labels = np.concatenate([kept["labels"][rows], kept["test_labels"][:items]])
    splits = np.array(["train"] * items + ["test"] * len(kept["test_labels"][:items]))
    return from_pixels(images, labels, splits=splits).described(camera=[f"c{i % 4}" for i in range(len(labels))])


def measured(items: int) -> dict[str, Any]:
    """Embed, then run each check; return seconds of each and the largest memory."""
    from fastness.evaluation import evidence, report
    from fastness.evaluation.checks import CHECKS as EVERY
    from fastness.evaluation.subject import Subject

    dataset = data(items)
    run = fs.train(dataset, steps=10, batch_size=128, width=16, out=FOLDER / "run", quiet=True)
    bundle = fs.load(run.bundle)
    votes = np.eye(10)[dataset.split("test").labels] * 10 + 1
    subject = Subject.of(bundle, dataset, 0)
    subject = replace(subject, sensitive=("camera",), domain="camera", votes=votes)
    begin = time.perf_counter()
    _ = subject.fit_vectors, subject.test_vectors
    seconds = {"embedding": time.perf_counter() - begin}
    findings = {}
    for name in CHECKS:
        begin = time.perf_counter()
        findings[name] = EVERY.get(name)().run(subject)
        seconds[name] = time.perf_counter() - begin
    begin = time.perf_counter()
    out = FOLDER / "evidence"
    subprocess.run(["rm", "-rf", str(out)], check=True)
    out.mkdir()
    report.write(evidence.write(out, subject, findings, {}), subject)
    seconds["evidence and report"] = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    begin = time.perf_counter()
    found = EVERY.get("corruption")().run(subject)
    corrupted = sum(column.size for column in found.items.values())
    return {"seconds": seconds, "gigabytes": memory, "corrupted images/s": corrupted / (time.perf_counter() - begin)}


def main() -> None:
    """Measure three times in processes of their own and write the result file."""
    if sys.argv[1:2] == ["--one"]:
        write_json(FOLDER / "one.json", measured(int(sys.argv[2])))
        return
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows, items = [], 1000 if quick else ITEMS
    for _ in range(1 if quick else 3):
        subprocess.run(["rm", "-rf", str(FOLDER / "run")], check=True)
        subprocess.run([sys.executable, __file__, "--one", str(items)], check=True)
        rows.append(json.loads((FOLDER / "one.json").read_text()))
    minutes = float(np.median([sum(s for n, s in row["seconds"].items() if n != "embedding") for row in rows])) / 60
    memory = max(row["gigabytes"] for row in rows)
    speed = float(np.median([row["corrupted images/s"] for row in rows]))
    asks = [
        common.ask(
            f"checks and report on {items:,} embedded images",
            f"< {MINUTES:g} min",
            f"{minutes:.2f} min",
            minutes < MINUTES,
        ),
        common.ask("memory", f"< {GIGABYTES:g} GB", f"{memory:.2f} GB", memory < GIGABYTES),
        common.ask("corrupted images, embedded and judged", "to be stated", f"{speed:.0f} a second", None),
    ]
    common.save("evaluation" + ("_quick" if quick else ""), rows, asks)


if __name__ == "__main__":
    main()
