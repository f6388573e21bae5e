"""A million vectors for the benchmark of the vector index: embeddings of pictures, and mixtures of near ones.

A SimCLR encoder (ResNet-18 of width 16, 128 numbers an embedding) is trained for some minutes on CIFAR-10. The
collection is the embeddings of the 50,000 training images and, up to the wanted number, points between an image's
embedding and that of one of its ten nearest, so that they lie where embeddings lie. Questions are embeddings of test
images, which the collection does not hold; by another thousand of them the kinds' numbers of candidates were chosen.
Uniform directions, which have no near ones at all, are the hard case.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

import common
import fastness as fs
from fastness.core.files import atomic_path

DIM, QUESTIONS, STEPS = 128, 1000, 400
FOLDER = common.WORK / "vector_index"
Floats = npt.NDArray[np.float32]


def embeddings() -> dict[str, Floats]:
    """Return the embeddings of CIFAR-10, float32 ``[50000, 128]`` and ``[10000, 128]``; made on first use."""
    path = FOLDER / "embedded.npz"
    if not path.exists():
        pictures = np.load(common.cifar10_npz())
        run = fs.train(
            pictures["images"], method="simclr", encoder="resnet18", width=16, steps=STEPS, out=FOLDER / "run"
        )
        bundle = fs.load(run.bundle)
        found = {"base": bundle.embed(pictures["images"]), "test": bundle.embed(pictures["test_images"])}
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **found)
    return dict(np.load(path))


def collection(kind: str, n: int) -> tuple[Path, Path]:
    """Return the files of ``n`` vectors and of 1,000 questions, float32 of length 1; made on first use.

    Args:
        kind: ``pictures`` or ``uniform``.
    """
    base, questions = FOLDER / f"{kind}-{n}.npy", FOLDER / f"{kind}-questions.npy"
    if not (base.exists() and questions.exists()):
        FOLDER.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(0)
        if kind == "uniform":
            vectors, asked = _unit(generator.normal(size=(n, DIM))), _unit(generator.normal(size=(QUESTIONS, DIM)))
        else:
            real = embeddings()
            asked = real["test"][generator.permutation(len(real["test"]))[QUESTIONS : 2 * QUESTIONS]]
            vectors = _mixtures(real["base"], n, generator)
        for path, values in ((base, vectors), (questions, asked)):
            with atomic_path(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, values)
    return base, questions


def _mixtures(real: Floats, n: int, generator: np.random.Generator) -> Floats:
    """Return the real embeddings, and behind them points between one and one of its ten nearest."""
    _, near = faiss.knn(real, real, 11, metric=faiss.METRIC_INNER_PRODUCT)
    first = generator.integers(0, len(real), max(n - len(real), 0))
    second = near[first, generator.integers(1, 11, len(first))]
    share = generator.uniform(0, 1, (len(first), 1)).astype(np.float32)
    mixed = _unit(real[first] + share * (real[second] - real[first]))
    return np.concatenate([real, mixed])[:n] if len(first) else real[:n]


def _unit(x: npt.NDArray[np.floating]) -> Floats:
    return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)
