"""Does contrastive learning make models more robust? Six ways to train, three amounts of labels, five minutes each.

CIFAR-10 (JPEG-75), ResNet-18 of width 16, five CPU minutes of one core for whatever is trained. Ways: supervised (on
the labelled images alone), untrained, SimCLR, MoCo and BYOL (on all images, without labels), and the mixture that
sees all images and learns from the labels there are. On each encoder a linear probe is fitted to the labelled images.
Measured on the test images: clean, under the 15 common corruptions at 5 severities (the mean and the worst), on
ImageNet photographs of 7 of the classes, out of distribution (AUROC of the distance to the class means; near: Tiny-
ImageNet less the classes that overlap; far: photographs of clothes; both through the same 32 pixels and JPEG-75 as
the test images), and ECE.

Jobs are resumable: each leaves a file in ``.bench/headline``. Two run at a time, one a core.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
from PIL import Image

import common
import fastness as fs
from fastness.core.files import write_json
from fastness.core.seeds import numpy_generator
from fastness.data.cache import decoded
from fastness.data.sources.arrays import from_pixels
from fastness.metrics.intervals import student
from fastness.metrics.robustness import effective_robustness

FOLDER = common.WORK / "headline"
MINUTES, SEEDS = 5.0, 3
SHARES = {"10 %": 0.1, "1 %": 0.01, "all": 1.0}
WITHOUT_LABELS = ("untrained", "simclr", "moco", "byol")  # one encoder serves every amount of labels
WAYS = ("supervised", *WITHOUT_LABELS, "semi")
CHECKS = ("linear", "calibration", "ood", "shift", "corruption")
FIGURES = {
    "clean": "linear.accuracy",
    "corruption mean": "corruption.mean.accuracy",
    "corruption worst": "corruption.worst.",
    "ImageNet shift": "shift.imagenet.accuracy",
    "near OOD AUROC": "ood.tiny_imagenet.mahalanobis.auroc",
    "far OOD AUROC": "ood.clothes.mahalanobis.auroc",
    "ECE": "calibration.raw.ece",
}
# Classes of Tiny-ImageNet that show what CIFAR-10's classes show.
OVERLAP = (
    "Chihuahua", "Egyptian cat", "German shepherd", "golden retriever", "tabby", "albatross", "black stork", "bullfrog",
    "beach wagon", "convertible", "limousine", "trolleybus", "tractor", "gondola", "gazelle",
)  # fmt: skip
STRANGERS = 2000


@dataclass(frozen=True)
class Job:
    """One encoder with one amount of labels."""

    way: str
    share: str
    seed: int
    minutes: float

    @property
    def name(self) -> str:
        """File name of its result."""
        return f"{self.way}-{self.share.replace(' %', 'pc')}-{self.seed}-{self.minutes:g}m"

    @property
    def encoder(self) -> Path:
        """Where its encoder lies; those that see no label serve every amount."""
        share = "any" if self.way in WITHOUT_LABELS else self.share.replace(" %", "pc")
        return FOLDER / f"run-{self.way}-{share}-{self.seed}-{self.minutes:g}m"


def jobs(quick: bool) -> list[Job]:
    """Return all jobs; those that share an encoder one after the other."""
    seeds, minutes, shares = (1, 0.5, ["1 %"]) if quick else (SEEDS, MINUTES, list(SHARES))
    return [Job(way, share, seed, minutes) for seed in range(seeds) for way in WAYS for share in shares]


def pixels() -> dict[str, Any]:
    """Return CIFAR-10 as arrays."""
    return dict(np.load(common.cifar10_npz()))


def labelled(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which training images are labelled: as many of every class."""
    generator = numpy_generator(seed, "labelled")
    each = int(len(labels) * share / 10)
    chosen = [generator.permutation(np.flatnonzero(labels == c))[:each] for c in range(10)]
    mask = np.zeros(len(labels), np.bool_)
    mask[np.concatenate(chosen)] = True
    return mask


def train(job: Job) -> dict[str, Any]:
    """Train a job's encoder in its CPU time, unless it is there; return what was done."""
    said = job.encoder / "said.json"
    if said.exists():
        return dict(json.loads(said.read_text()))
    data = pixels()
    images, labels = data["images"], data["labels"]
    known = labelled(labels, SHARES[job.share], job.seed)
    if job.way == "supervised":
        source = from_pixels(images[known], labels[known])
    elif job.way == "semi":
        source = from_pixels(images, np.where(known, labels, -1))
    else:
        source = from_pixels(images)
    method = "simclr" if job.way == "untrained" else job.way
    options: dict[str, Any] = {"method": method, "width": 16, "seed": job.seed, "quiet": True}

    def run(steps: int) -> float:
        subprocess.run(["rm", "-rf", str(job.encoder)], check=True)
        start = time.process_time()
        fs.train(source, out=job.encoder, steps=steps, **options)
        return time.process_time() - start

    if job.way == "untrained":
        # Nothing is learnt at such a rate; the statistics of batch normalisation become those of the images.
        steps, used = 0, 0.0
        fs.train(source, out=job.encoder, steps=60, lr=1e-12, **options)
    else:
        short, long = run(5), run(20)
        steps = int(60 * job.minutes / ((long - short) / 15))
        used = run(steps)
    write_json(said, {"steps": steps, "cpu_seconds": used})
    return {"steps": steps, "cpu_seconds": used}


def measure(job: Job) -> dict[str, Any]:
    """Train, measure and return a job's row."""
    torch.set_num_threads(1)
    done = train(job)
    data = pixels()
    known = labelled(data["labels"], SHARES[job.share], job.seed)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    dataset = from_pixels(
        np.concatenate([data["images"][known], data["test_images"]]),
        np.array(names)[np.concatenate([data["labels"][known], data["test_labels"]])],
        splits=np.array(["train"] * int(known.sum()) + ["test"] * len(data["test_labels"])),
    )
    report = fs.evaluate(
        job.encoder,
        dataset,
        CHECKS,
        ood=[FOLDER / "tiny_imagenet.npy", FOLDER / "clothes.npy"],
        shift=[FOLDER / "imagenet"],
        out=FOLDER / f"evidence-{job.name}",
        seed=job.seed,
    )
    found = {}
    for figure, name in FIGURES.items():
        every = [m for m in report.evidence.measurements if m.name.startswith(name)]
        assert len(every) == 1, (name, every)
        found[figure] = every[0].value
    here = found["ImageNet shift"] + report["shift.imagenet.drop"]
    return {"way": job.way, "labels": job.share, "seed": job.seed, **done, **found, "clean, the shift's classes": here}


def prepare() -> None:
    """Write the sets from outside, through the test images' own path: 32 pixels, JPEG of quality 75."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    shift = FOLDER / "imagenet"
    if not shift.exists():
        shift.mkdir()
        (shift / "test.parquet").symlink_to((common.DATA / "cifar10_jpeg" / "shift_imagenet.parquet").resolve())
    tiny = fs.open_data(common.DATA / "tiny_imagenet_100" / "val.parquet")
    strange = np.array([not any(name.startswith(word) for word in OVERLAP) for name in tiny.class_names])
    for name, source in (
        ("tiny_imagenet", tiny.select(strange[tiny.labels])),
        ("clothes", fs.open_data(common.DATA / "clothing" / "clothing.zip")),
    ):
        path = FOLDER / f"{name}.npy"
        if not path.exists():
            rows = np.sort(numpy_generator(0, name).permutation(len(source))[:STRANGERS])
            images = torch.cat([batch for _, batch in decoded(source.select(rows), 32).batches(1000)])
            np.save(path, np.stack([_jpeg(image) for image in images.permute(0, 2, 3, 1).numpy()]))


def _jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def run(job: Job, core: int) -> dict[str, Any]:
    """Run a job in a process of its own on one core, unless its result is there."""
    path = FOLDER / f"{job.name}.json"
    if not path.exists():
        command = [sys.executable, __file__, "--one", job.way, job.share, str(job.seed), str(job.minutes)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(["taskset", "-c", str(core), *command], check=True, env=env)
        row = json.loads(path.read_text())
        print(f"{job.name}: {row['clean']:.3f} clean, {row['corruption mean']:.3f} corrupted", flush=True)
    return dict(json.loads(path.read_text()))


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the README's headline table.

    In points the mean over seeds and its interval, the same of the difference from supervised training in pairs of
    seeds, and effective robustness against the line of the supervised ones.
    """
    line = [row for row in rows if row["way"] == "supervised"]
    found = []
    for share in dict.fromkeys(row["labels"] for row in rows):
        for way in WAYS:
            mine = [row for row in rows if (row["way"], row["labels"]) == (way, share)]
            line_of = {"way": way, "labels": share, "seeds": len(mine)}
            for figure in FIGURES:
                line_of[figure] = _points([row[figure] for row in mine])
                if way != WAYS[0]:
                    line_of[f"{figure} less supervised"] = _points(_gains(rows, way, share, figure))
            for figure, clean in (("corruption mean", "clean"), ("ImageNet shift", "clean, the shift's classes")):
                if len({row[clean] for row in line}) > 1:
                    above = effective_robustness(
                        *([row[key] for row in some] for some, key in ((mine, clean), (mine, figure))),
                        *([row[key] for row in line] for key in (clean, figure)),
                    )
                    line_of[f"{figure} above the supervised line"] = round(100 * float(above.mean()), 2)
            found.append(line_of)
    return found


def _points(shares: list[float]) -> list[float]:
    return [round(x, 2) for x in student(100 * np.array(shares))]


def _gains(rows: list[dict[str, Any]], way: str, share: str, figure: str) -> list[float]:
    """Return by how much a way differs from supervised training, for each seed."""
    mine, line = (
        {row["seed"]: row[figure] for row in rows if (row["way"], row["labels"]) == (one, share)}
        for one in (way, WAYS[0])
    )
    return [mine[seed] - line[seed] for seed in sorted(mine.keys() & line.keys())]


def asks(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the documents' claim comes to: accuracy under corruptions against supervised training."""
    out = []
    for row in found:
        if row["way"] == WAYS[0]:
            continue
        mean, low, high = row["corruption mean less supervised"]
        text = f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}] over {row['seeds']} seeds"
        out.append(common.ask(f"corruption mean, {row['labels']} labels: {row['way']}", "to be stated", text, None))
    return out


def main() -> None:
    """Run what is missing and write the result file."""
    if sys.argv[1:2] == ["--one"]:
        way, share, seed, minutes = sys.argv[2:]
        job = Job(way, share, int(seed), float(minutes))
        write_json(FOLDER / f"{job.name}.json", measure(job))
        return
    quick = common.arguments(__doc__ or "").quick
    prepare()
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0))[:2]:
        cores.put(core)

    def work(group: list[Job]) -> list[dict[str, Any]]:
        core = cores.get()
        try:
            return [run(job, core) for job in group]
        finally:
            cores.put(core)

    groups: dict[Path, list[Job]] = {}
    for job in jobs(quick):
        groups.setdefault(job.encoder, []).append(job)
    with ThreadPoolExecutor(cores.qsize()) as pool:
        rows = [row for part in pool.map(work, groups.values()) for row in part]
    protocol = f"{common.cifar10_kind()}, width 16, {MINUTES:g} CPU minutes; corruptions on 1,000 test images"
    found = table(rows)
    common.save("headline" + ("_quick" if quick else ""), found, asks(found), protocol=protocol, runs=rows)


if __name__ == "__main__":
    main()
