"""How small and how fast can an image encoder become, and what does it cost, robustness included?

CIFAR-10 (JPEG-75). A float teacher (ResNet-18, the mixture that learns from all labels and all images) is pruned, in
several strengths, recovers by distillation from itself, and is exported in int8. Each student also stands there in
float, so that it is seen which step costs what. Against the teacher's float export, all through ``fastness_runtime``
in one thread: bytes, speed (in turns, 64 images at a time), kNN accuracy on test images, and the corruption check's
mean over the common corruptions at 5 severities.

Trainings are kept in ``.bench/small_image`` and resumed. The full size trains a teacher for 8 epochs, half an hour on
a core, and lets each student recover for 4. The quick one takes the teacher of ``headline.py`` if it is there, else
trains one for a minute, and lets students recover for a few steps: its figures show that all of it runs, not what can
be reached.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import common
import fastness as fs
from fastness.core.seeds import numpy_generator
from fastness.data import Dataset
from fastness.data.sources.arrays import from_pixels
from fastness.delivery.prune import Size, prune, size_of
from fastness.evaluation.checks.corruption import Corruption
from fastness.evaluation.checks.knn import KNN
from fastness.evaluation.subject import Subject
from fastness_runtime import load as load_export

FOLDER = common.WORK / "small_image"
STRENGTHS = ((0.35, 0), (0.35, 2), (0.35, 4))  # share of the channels kept, blocks taken out
QUICK_STRENGTHS = ((0.5, 0), (0.35, 2))


@dataclass(frozen=True)
class Extent:
    """How much of everything: images to learn from, steps of recovery, items to measure with, turns to time."""

    images: int
    training: dict[str, Any]
    bank: int
    test: int
    corrupted: int
    turns: int


QUICK = Extent(4000, {"steps": 60, "batch_size": 64, "lr": 0.02}, 2000, 500, 100, 15)
FULL = Extent(50_000, {"epochs": 4, "batch_size": 128, "lr": 0.05}, 50_000, 10_000, 1000, 60)


def data(extent: Extent) -> tuple[Dataset, Dataset]:
    """Return the images to learn from, and those to measure with: a bank and test images."""
    arrays = dict(np.load(common.cifar10_npz()))
    order, chosen = (numpy_generator(0, name).permutation(len(arrays["labels"])) for name in ("learnt", "bank"))
    order, chosen, test = order[: extent.images], chosen[: extent.bank], slice(extent.test)
    measured = from_pixels(
        np.concatenate([arrays["images"][chosen], arrays["test_images"][test]]),
        np.concatenate([arrays["labels"][chosen], arrays["test_labels"][test]]),
        splits=np.array(["train"] * len(chosen) + ["test"] * len(arrays["test_labels"][test])),
    )
    return from_pixels(arrays["images"][order], arrays["labels"][order]), measured


def teacher(learnt: Dataset, quick: bool) -> Path:
    """Return the teacher's bundle."""
    kept = common.WORK / "headline" / "run-semi-all-0-5m" / "bundle"
    if quick and kept.exists():
        return kept
    length: dict[str, Any] = {"budget": "1m"} if quick else {"epochs": 8}
    name = "teacher-quick" if quick else "teacher"
    return fs.train(learnt, method="semi", width=16, out=FOLDER / name, quiet=True, **length).bundle


def student(whole: Path, learnt: Dataset, strength: tuple[float, int], extent: Extent) -> Path:
    """Prune the teacher, let it recover, and return the bundle."""
    identity = fs.load(whole).id[:8]
    folder = FOLDER / f"{identity}-{strength[0]:g}-{strength[1]}-{extent.images}"
    if not (folder / "pruned" / "bundle.json").exists():
        prune(whole, learnt, strength[0], layers=strength[1], out=folder / "pruned")
    asked = {"method": "distil", "options": {"teacher": str(whole)}, "init": str(folder / "pruned")}
    return fs.train(learnt, out=folder / "run", quiet=True, **asked, **extent.training).bundle


def export(bundle: Path, form: str, learnt: Dataset) -> Path:
    """Return a bundle's export; whatever it differs from the encoder by is measured here, not refused."""
    folder = bundle / "exports" / form
    if not (folder / "export.json").exists():
        fs.export(bundle, learnt, form, floor=-1.0)
    return folder


def measured(bundle: Path, folder: Path, evaluated: Dataset, extent: Extent) -> dict[str, Any]:
    """Return sizes and accuracies of an export."""
    size: Size = size_of(fs.load(bundle).encoder)
    subject = Subject.of(fs.load(folder), evaluated, 0)
    corruption = Corruption()
    corruption.most = extent.corrupted
    values = {m.name: m.value for check in (KNN(), corruption) for m in check.run(subject).measurements}
    graph = sum(file.stat().st_size for file in folder.glob("encoder*"))
    found = {"bytes": graph, "parameters": size.parameters, "operations": size.operations}
    accuracies = {"knn": values["knn.accuracy"], "corruption_mean": values["corruption.mean.accuracy"]}
    return found | {name: round(100 * value, 2) for name, value in accuracies.items()}


def speeds(folders: list[Path], turns: int) -> list[list[float]]:
    """Return for each export how many times as fast as the first it is: median, least and most over turns."""
    encoders = [load_export(folder, threads=1) for folder in folders]
    batch = numpy_generator(0, "speed").integers(0, 256, (64, 3, 32, 32)).astype(np.uint8)
    seconds: list[list[float]] = [[] for _ in encoders]
    for _ in range(turns + 2):
        for encoder, times in zip(encoders, seconds, strict=True):
            began = time.perf_counter()
            encoder.embed(batch)
            times.append(time.perf_counter() - began)
    ratios = [[a / b for a, b in zip(seconds[0][2:], times[2:], strict=True)] for times in seconds]
    return [[round(f(r), 2) for f in (statistics.median, min, max)] for r in ratios]


def asks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return whether one student does all at once, and what each does."""
    found, first = [], rows[0]
    for row in rows[1:]:
        if row["form"] != "onnx-int8":
            continue
        smaller, faster = first["bytes"] / row["bytes"], row["times_teacher"][0]
        lost, shaken = (first[name] - row[name] for name in ("knn", "corruption_mean"))
        said = f"{smaller:.1f}x smaller, {faster:.1f}x faster, kNN {-lost:+.1f}, corruption mean {-shaken:+.1f} points"
        holds = smaller >= 8 and faster >= 5 and lost <= 1 and shaken <= 1.5
        found.append(common.ask(row["encoder"], ">= 8x, >= 5x, >= -1, >= -1.5 points", said, holds))
    return found


def main() -> None:
    """Make what is missing, measure, and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    torch.set_num_threads(1)
    extent = QUICK if quick else FULL
    learnt, evaluated = data(extent)
    whole = teacher(learnt, quick)
    made = {"teacher": (whole, "onnx")}
    for keep, layers in QUICK_STRENGTHS if quick else STRENGTHS:
        bundle = student(whole, learnt, (keep, layers), extent)
        name = f"{keep:g} of the channels" + (f", {layers} blocks fewer" if layers else "")
        made |= {f"{name}, {form}": (bundle, form) for form in ("onnx", "onnx-int8")}
    made["teacher, onnx-int8"] = (whole, "onnx-int8")
    folders = [export(bundle, form, learnt) for bundle, form in made.values()]
    rows = []
    for (name, (bundle, form)), folder, times in zip(made.items(), folders, speeds(folders, extent.turns), strict=True):
        rows.append({"encoder": name, "form": form, **measured(bundle, folder, evaluated, extent)})
        rows[-1]["times_teacher"] = times
    size = f"{extent.test} test images, {extent.corrupted} of them corrupted, recovery {extent.training}"
    protocol = f"{common.cifar10_kind()}; {size}"
    common.save("small_image" + ("_quick" if quick else ""), rows, asks(rows), protocol=protocol, threads=1)


if __name__ == "__main__":
    main()
