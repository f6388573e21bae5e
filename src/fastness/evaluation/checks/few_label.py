"""The few-label curve: does the encoder help somebody who can label little?

Three baselines answer «does it help me?»: the raw items (pixels, words, columns), the same network untrained, and the
same network trained from scratch on the same labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fastness.bundle import Bundle
from fastness.core.recipe import Recipe
from fastness.core.seeds import derive, numpy_generator
from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Floats, Ints, Subject
from fastness.metrics.intervals import student
from fastness.metrics.probe import fit_linear
from fastness.training.fit import fit
from fastness.views import VIEWS

LABELS_A_CLASS = (1, 5, 10, 50)
DRAWS = 5
SCRATCH_STEPS = 120


@CHECKS.register("few_label")
class FewLabel(Check):
    """Linear probes on 1, 5, 10 and 50 labels a class, five draws each."""

    def run(self, subject: Subject) -> Findings:
        """Measure the encoder and the three baselines on the same draws."""
        probes = {"encoder": _standardised(subject.fit_vectors, subject.test_vectors)}
        probes["raw"] = _standardised(subject.fit.plain(subject.fit), subject.test.plain(subject.fit))
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
            "raw": "the same on the raw items, without any encoder",
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


def _untrained(subject: Subject, draw: int) -> tuple[Floats, Floats]:
    torch.manual_seed(derive(subject.seed, "untrained", draw))
    bundle = subject.bundle
    fresh = Bundle(bundle.path, "", bundle.encoder.untrained(), {}, {})
    return _standardised(
        fresh.embed_items(subject.fit, normalize=False), fresh.embed_items(subject.test, normalize=False)
    )


def _from_scratch(subject: Subject, rows: Ints, draw: int) -> float:
    """Train the same network on the drawn labels alone; return its accuracy on the held-out items."""
    encoder = subject.bundle.encoder
    seed = derive(subject.seed, "from scratch", draw) % (1 << 31)
    recipe = Recipe(
        method="supervised",
        steps=SCRATCH_STEPS,
        batch_size=min(64, len(rows)),
        optimizer="adamw",
        lr=2e-3,
        seed=seed,
        views=VIEWS.get(encoder.spec.modality).cautious,
    )
    torch.manual_seed(derive(seed, "weights"))
    method = fit(subject.fit.select(rows), recipe, encoder.untrained()).eval()
    right = 0
    with torch.inference_mode():
        for positions, batch in subject.test.batches(500):
            logits = method.classifier(method.encoder(method.encoder.preprocess(batch)))  # type: ignore[operator]
            right += int((logits.argmax(1).numpy() == subject.test_labels[positions]).sum())
    return right / len(subject.test)
