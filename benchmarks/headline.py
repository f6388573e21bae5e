"""Does contrastive learning make models more robust? Six ways to train, three amounts of labels, five minutes each.

CIFAR-10 (JPEG-75), ResNet-18 of width 16, five CPU minutes of one core for whatever is trained: as many steps as a
training of 60 steps promises, so that all seeds of a way have the same number. Ways: supervised (on
the labelled images alone), untrained, SimCLR, MoCo and BYOL (on all images, without labels), and the mixture that
sees all images and learns from the labels there are. On each encoder a linear probe is fitted to the labelled images,
of them to at most 20,000.
Measured on the test images: clean, under the 15 common corruptions at 5 severities (the mean and the worst), on
ImageNet photographs of 7 of the classes, out of distribution (AUROC of the distance to the class means; near: Tiny-
ImageNet less the classes that overlap; far: photographs of clothes; both through the same 32 pixels and JPEG-75 as
the test images), and ECE.

Jobs are resumable: each encoder leaves a file in ``.bench/headline``. Two run at a time, one a core. The result file
holds the seeds of which all jobs are done.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
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
from fastness.bundle.bundle import Bundle
from fastness.core.files import write_json
from fastness.core.seeds import numpy_generator
from fastness.data.cache import decoded
from fastness.data.sources.arrays import from_pixels
from fastness.evaluation.checks import CHECKS
from fastness.evaluation.checks.corruption import Corruption
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import student
from fastness.metrics.robustness import effective_robustness

FOLDER = common.WORK / "headline"
MINUTES, SEEDS = 5.0, 3
SHARES = {"10 %": 0.1, "1 %": 0.01, "all": 1.0}
WITHOUT_LABELS = ("untrained", "simclr", "moco", "byol")  # one encoder serves every amount of labels
WAYS = ("supervised", *WITHOUT_LABELS, "semi")
NAMES = np.array(("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"))
PROBED, CORRUPTED, TIMED = 20_000, 400, 60
FIGURES = {
    "clean": "linear.accuracy",
    "corruption mean": "corruption.mean.accuracy",
    "corruption worst": "corruption.worst.accuracy",
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
    """One encoder, and the amounts of labels with which it is measured."""

    way: str
    shares: tuple[str, ...]
    seed: int
    minutes: float

    @property
    def name(self) -> str:
        """File name of its result."""
        labels = "any" if self.way in WITHOUT_LABELS else self.shares[0].replace(" %", "pc")
        return f"{self.way}-{labels}-{self.seed}-{self.minutes:g}m"


class Remembering(Bundle):
    """A bundle that embeds the same batches once, whatever the amount of labels."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.path, bundle.id, bundle.encoder, bundle.recipe, bundle.data)
        self.known: dict[str, Any] = {}

    def embed_batches(
        self, batches: Iterator[tuple[Any, torch.Tensor]], n: int, normalize: bool = True, precision: str = "float32"
    ) -> Any:
        """Return the embeddings; see `Bundle.embed_batches`."""
        kept = [(positions, batch) for positions, batch in batches]
        digest = hashlib.sha256(f"{n} {normalize} {precision}".encode())
        for positions, batch in kept:
            digest.update(np.asarray(positions).tobytes() + batch.numpy().tobytes())
        key = digest.hexdigest()
        if key not in self.known:
            self.known[key] = super().embed_batches(iter(kept), n, normalize, precision)
        return self.known[key]


def jobs(quick: bool) -> list[Job]:
    """Return all jobs, seed by seed."""
    seeds, minutes, shares = (1, 0.5, ("1 %",)) if quick else (SEEDS, MINUTES, tuple(SHARES))
    found = []
    for seed in range(seeds):
        for way in WAYS:
            groups = [shares] if way in WITHOUT_LABELS else [(share,) for share in shares]
            found += [Job(way, group, seed, minutes) for group in groups]
    return found


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


def train(job: Job, data: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Train a job's encoder in its CPU time, unless it is there; return its run and what was done."""
    folder = FOLDER / f"run-{job.name}"
    said = folder / "said.json"
    if said.exists():
        return folder, dict(json.loads(said.read_text()))
    images, labels = data["images"], data["labels"]
    known = labelled(labels, SHARES[job.shares[0]], job.seed)
    if job.way == "supervised":
        source = from_pixels(images[known], labels[known])
    elif job.way == "semi":
        source = from_pixels(images, np.where(known, labels, -1))
    else:
        source = from_pixels(images)
    options: dict[str, Any] = {"width": 16, "seed": job.seed, "quiet": True}

    def run(steps: int, **further: Any) -> float:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        start = time.process_time()
        fs.train(source, out=folder, steps=steps, **options, **further)
        return time.process_time() - start

    if job.way == "untrained":
        # Nothing is learnt at such a rate; the statistics of batch normalisation become those of the images.
        steps, used = 0, 0.0
        run(TIMED, method="simclr", lr=1e-12)
    else:
        timed = FOLDER / f"second-a-step-{job.way}.json"
        if not timed.exists():
            short, long = run(5, method=job.way), run(5 + TIMED, method=job.way)
            write_json(timed, (long - short) / TIMED)
        steps = int(60 * job.minutes / json.loads(timed.read_text()))
        used = run(steps, method=job.way)
    done = {"steps": steps, "cpu_seconds": used}
    write_json(said, done)
    return folder, done


def measure(job: Job) -> list[dict[str, Any]]:
    """Train, measure and return a job's rows, one an amount of labels."""
    torch.set_num_threads(1)
    data = pixels()
    folder, done = train(job, data)
    bundle = Remembering(fs.load(folder))
    sets = {name: bundle.open(FOLDER / f"{name}.npy") for name in ("tiny_imagenet", "clothes")}
    kinds = [CHECKS.get(name)() for name in ("linear", "calibration", "ood", "shift", "corruption")]
    assert isinstance(kinds[-1], Corruption)
    kinds[-1].most = CORRUPTED
    rows = []
    for share in job.shares:
        fitting = np.flatnonzero(labelled(data["labels"], SHARES[share], job.seed))
        fitting = np.sort(numpy_generator(job.seed, "probed").permutation(fitting)[:PROBED])
        dataset = from_pixels(
            np.concatenate([data["images"][fitting], data["test_images"]]),
            NAMES[np.concatenate([data["labels"][fitting], data["test_labels"]])],
            splits=np.array(["train"] * len(fitting) + ["test"] * len(data["test_labels"])),
        )
        subject = Subject.of(bundle, dataset, job.seed).with_sets(sets, {"imagenet": bundle.open(FOLDER / "imagenet")})
        values = {m.name: m.value for kind in kinds for m in kind.run(subject).measurements}
        found: dict[str, Any] = {figure: values[name] for figure, name in FIGURES.items()}
        here = found["ImageNet shift"] + values["shift.imagenet.drop"]
        found |= {"clean, the shift's classes": here}
        rows.append({"way": job.way, "labels": share, "seed": job.seed, **done, **found})
    return rows


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


def run(job: Job, core: int) -> None:
    """Run a job in a process of its own on one core, unless its rows are there."""
    path = FOLDER / f"{job.name}.json"
    if not path.exists():
        command = [sys.executable, __file__, "--one", job.way, ",".join(job.shares), str(job.seed), str(job.minutes)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(["taskset", "-c", str(core), *command], check=True, env=env)
    for row in json.loads(path.read_text()):
        said = f"{row['clean']:.3f} clean, {row['corruption mean']:.3f} corrupted"
        print(f"{job.name}, {row['labels']} labels: {said}", flush=True)


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


def finished(every: list[Job], quick: bool) -> None:
    """Write the result file of the seeds whose jobs are all done."""
    paths = {job: FOLDER / f"{job.name}.json" for job in every}
    open_seeds = {job.seed for job, path in paths.items() if not path.exists()}
    rows = [row for job, path in paths.items() if job.seed not in open_seeds for row in json.loads(path.read_text())]
    if rows:
        size = f"width 16, {every[0].minutes:g} CPU minutes; corruptions on {CORRUPTED} test images a seed"
        found = table(rows)
        name = "headline" + ("_quick" if quick else "")
        common.save(name, found, asks(found), protocol=f"{common.cifar10_kind()}, {size}", runs=rows)


def main() -> None:
    """Run what is missing, one job a core, and write the result file."""
    if sys.argv[1:2] == ["--one"]:
        way, shares, seed, minutes = sys.argv[2:]
        job = Job(way, tuple(shares.split(",")), int(seed), float(minutes))
        write_json(FOLDER / f"{job.name}.json", measure(job))
        return
    quick = common.arguments(__doc__ or "").quick
    prepare()
    every, cores = jobs(quick), Queue[int]()
    for core in sorted(os.sched_getaffinity(0))[:2]:
        cores.put(core)

    def work(job: Job) -> None:
        core = cores.get()
        try:
            run(job, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(cores.qsize()) as pool:
        for job, _, following in zip(every, pool.map(work, every), [*every[1:], None], strict=True):
            if following is None or following.seed != job.seed:
                finished(every, quick)


if __name__ == "__main__":
    main()
