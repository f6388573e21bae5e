"""Corruption: what is left when the world does something to the items?"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastness.core.seeds import derive, numpy_generator
from fastness.corruptions import SEVERITIES, WORLDS, World
from fastness.evaluation.checks import CHECKS, Check, Findings, measured
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Floats, Subject
from fastness.metrics.intervals import bootstrap_means, quantiles


@CHECKS.register("corruption")
class Corruption(Check):
    """Accuracy of the probe, or without labels the cosine to the clean embedding, for every corruption and severity.

    The probe was fitted on clean items. Means and the worst are over the common corruptions of the modality; the mean
    corruption error is 1 - mean accuracy, not divided by another model's.

    Attributes:
        most: items that are corrupted; the held-out ones, or so many of them by chance.
    """

    costly = True
    most = 1000
    headline = ("corruption.clean.*", "corruption.mean.*", "corruption.worst.*")

    def missing(self, subject: Subject) -> str | None:
        """It needs to know what may happen to such items."""
        modality = subject.bundle.modality
        return None if modality in WORLDS else f"knows of no corruptions of {modality}"

    def run(self, subject: Subject) -> Findings:
        """Corrupt held-out items in every way."""
        world, bundle = WORLDS.get(subject.bundle.modality), subject.bundle
        rows = np.sort(numpy_generator(subject.seed, "corruption").permutation(len(subject.test))[: self.most])
        scene, seed = subject.scene(subject.test.select(rows)), derive(subject.seed, "corruption")
        figure = "accuracy" if subject.has_labels else "cosine"
        outcomes: dict[str, Any] = {f"clean.{figure}": _outcome(subject, rows, subject.test_vectors[rows])}
        for name in world.names:
            for severity in SEVERITIES:
                z = bundle.embed_batches(world.corrupted(scene, name, severity, seed), len(rows), normalize=False)
                outcomes[f"{name}.{severity}.{figure}"] = _outcome(subject, rows, z)
        values, worst = _summaries(outcomes, figure, world)
        measurements = self._measured(subject, figure, world, values, worst)
        return Findings(
            measurements,
            {f"{name}.{figure}": column.astype(np.float32) for name, column in values.items()},
            subject.held_out.select(rows),
        )

    def _measured(
        self, subject: Subject, figure: str, world: World, values: dict[str, Floats], worst: str
    ) -> list[Measurement]:
        table = np.stack(list(values.values()), 1)
        means = bootstrap_means(table, derive(subject.seed, "corruption interval"))
        what = f"{subject.probe.protocol}, clean" if subject.has_labels else "cosine to the embedding of the clean item"
        protocol = f"{world.source}; {what}; {len(table):,} held-out items; {subject.how}"
        unit = "share" if subject.has_labels else "cosine"
        return [
            measured(
                subject,
                f"corruption.{name}.{figure}",
                float(column.mean()),
                quantiles(drawn),
                len(table),
                f"{worst}; {protocol}" if name == "worst" else protocol,
                unit=unit,
            )
            for (name, column), drawn in zip(values.items(), means.T, strict=True)
        ]


def _summaries(outcomes: dict[str, Floats], figure: str, world: World) -> tuple[dict[str, Floats], str]:
    """Return each item's outcomes, single, over severities and over the common corruptions, and which is the worst."""
    names, common = world.names, world.common
    parts = {key.removesuffix(f".{figure}"): [key] for key in outcomes}
    parts |= {f"{name}.mean": [f"{name}.{s}.{figure}" for s in SEVERITIES] for name in names}
    parts |= {f"severity_{s}": [f"{name}.{s}.{figure}" for name in common] for s in SEVERITIES}
    parts["mean"] = [f"{name}.{s}.{figure}" for name in common for s in SEVERITIES]
    values = {name: np.mean([outcomes[key] for key in keys], 0) for name, keys in parts.items()}
    worst = min(common, key=lambda name: float(values[f"{name}.mean"].mean()))
    values["worst"] = values[f"{worst}.mean"]
    return values, worst


def _outcome(subject: Subject, rows: Any, z: Floats) -> Floats:
    """Return for each item whether the probe is right, or without labels the cosine to its clean embedding."""
    if subject.has_labels:
        right: Floats = (subject.probe.logits(z).argmax(1) == subject.test_labels[rows]).astype(np.float32)
        return right
    clean = subject.test_vectors[rows]
    lengths = np.linalg.norm(z, axis=1) * np.linalg.norm(clean, axis=1)
    cosine: Floats = (z * clean).sum(1) / np.maximum(lengths, 1e-12)
    return cosine
