"""The few-label curve: does the encoder help somebody who can label little?

Three baselines answer «does it help me?»: the raw pixels, the same network untrained, and the same network
trained from scratch on the same labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fastness.core.recipe import Recipe
from fastness.core.seeds import derive, numpy_generator
from fastness.data.cache import DecodedImages
from fastness.encoders import build
from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Floats, Ints, Subject
from fastness.metrics.intervals import student
from fastness.metrics.probe import fit_linear
from fastness.training.fit import fit

LABELS_A_CLASS = (1, 5, 10, 50)
DRAWS = 5
SCRATCH_STEPS = 120


@CHECKS.register("few_label")
class FewLabel(Check):
    """Linear probes on 1, 5, 10 and 50 labels a class, five draws each."""

    def run(self, subject: Subject) -> Findings:
        """Measure the encoder and the three baselines on the same draws."""
        probes = {"encoder": _standardised(subject.fit_vectors, subject.test_vectors)}
        probes["raw_pixels"] = _standardised(_pixels(subject.fit), _pixels(subject.test))
        found: dict[tuple[int, str], list[float]] = {}
        for draw in range(DRAWS):
            probes["untrained"] = _untrained(subject, draw)
            for per_class, rows in _draws(subject, draw):
                labels = subject.fit_labels[rows]
                for name, (known, unknown) in probes.items():
                    right = fit_linear(known[rows], labels).predict(unknown) == subject.test_labels
                    found.setdefault((per_class, name), []).append(float(right.mean()))
                scratch = _from_scratch(subject, rows, draw)
                found.setdefault((per_class, "from_scratch"), []).append(scratch)
        return Findings([self._measurement(subject, *key, values) for key, values in sorted(found.items())])

    def _measurement(self, subject: Subject, per_class: int, name: str, values: list[float]) -> Measurement:
        how = {
            "encoder": "logistic regression on this encoder's frozen features",
            "untrained": "the same on the features of the same network with random weights",
            "raw_pixels": "the same on raw pixels",
            "from_scratch": f"the same network trained from scratch on these labels ({SCRATCH_STEPS} steps, AdamW)",
        }[name]
        mean, low, high = student(np.array(values))
        return Measurement(
            f"few_label.{per_class}.{name}.accuracy",
            mean,
            low,
            high,
            "draws",
            len(values),
            "share",
            f"{per_class} labels a class, {how}, measured on {len(subject.test):,} held-out items ({subject.how})",
            subject.data,
            seed=subject.seed,
        )


def _draws(subject: Subject, draw: int) -> Iterator[tuple[int, Ints]]:
    """Yield (labels a class, chosen fitting items); larger draws contain the smaller ones."""
    labels = subject.fit_labels
    generator = numpy_generator(subject.seed, "few labels", draw)
    by_class = [generator.permutation(np.flatnonzero(labels == c)) for c in range(subject.classes)]
    by_class = [rows for rows in by_class if len(rows)]
    for per_class in LABELS_A_CLASS:
        if all(len(rows) >= per_class for rows in by_class):
            yield per_class, np.concatenate([rows[:per_class] for rows in by_class])


def _standardised(known: Floats, unknown: Floats) -> tuple[Floats, Floats]:
    """Scale by the statistics of all fitting items, which needs no labels; a few alone would be too noisy."""
    mean, std = known.mean(0), known.std(0)
    std[std < 1e-6] = 1
    return (known - mean) / std, (unknown - mean) / std


def _pixels(images: DecodedImages) -> Floats:
    """Return the pictures as vectors, at most 1,024 values each (shrunk by averaging)."""
    side = min(images.size, 18)
    parts = [
        torch.nn.functional.interpolate(batch.float() / 255, size=(side, side), mode="area").flatten(1)
        for batch in images.batches(1000)
    ]
    return torch.cat(parts).numpy()


def _untrained(subject: Subject, draw: int) -> tuple[Floats, Floats]:
    torch.manual_seed(derive(subject.seed, "untrained", draw))
    bundle = subject.bundle
    spec = bundle.encoder.spec
    if spec.name == "module":
        raise ValueError("a module of the user's own cannot be built anew")
    fresh = type(bundle)(bundle.path, "", build(spec), {}, {})
    return _standardised(
        fresh.embed_images(subject.fit, normalize=False), fresh.embed_images(subject.test, normalize=False)
    )


def _from_scratch(subject: Subject, rows: Ints, draw: int) -> float:
    """Train the same network on the drawn labels alone; return its accuracy on the held-out items."""
    spec = subject.bundle.encoder.spec
    recipe = Recipe(
        method="supervised",
        encoder=spec.name,
        size=spec.size,
        width=spec.options.get("width"),
        stem=spec.options.get("stem"),
        steps=SCRATCH_STEPS,
        batch_size=min(64, len(rows)),
        optimizer="adamw",
        lr=2e-3,
        seed=derive(subject.seed, "from scratch", draw) % (1 << 31),
        views={"flip": 0.0},
    )
    method = fit(subject.fit.select(rows), recipe).eval()
    right = 0
    with torch.inference_mode():
        for start, batch in zip(range(0, len(subject.test), 500), subject.test.batches(500), strict=True):
            logits = method.classifier(method.encoder(method.encoder.preprocess(batch)))  # type: ignore[operator]
            right += int((logits.argmax(1).numpy() == subject.test_labels[start : start + 500]).sum())
    return right / len(subject.test)
