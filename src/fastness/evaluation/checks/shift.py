"""Shift: is it still right on the same classes as somebody else collected them?"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastness.core.seeds import derive
from fastness.data import Dataset
from fastness.evaluation.checks import CHECKS, Check, Findings, measured
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Ints, Subject
from fastness.metrics.intervals import bootstrap_means, quantiles, wilson


@CHECKS.register("shift")
class Shift(Check):
    """Accuracy of the probe on a second set, and how far it lies below that on held-out items of the same classes.

    The probe is fitted on the first set alone. Classes are the same by name; items of others are left out.
    """

    headline = ("shift.*",)

    def missing(self, subject: Subject) -> str | None:
        """It wants a second set, with labels that name our classes."""
        for name, items in subject.shifted.items():
            labels = items.dataset.labels
            theirs = {items.dataset.class_names[i] for i in set(() if labels is None else labels) if i >= 0}
            if not theirs & {subject.fit.dataset.class_names[i] for i in set(subject.test_labels)}:
                return (
                    f"finds none of our classes in {name}: {', '.join(items.dataset.class_names)[:200] or 'no labels'}"
                )
        return super().missing(subject) if subject.shifted else "needs a second set of the same classes (--shift DATA)"

    def run(self, subject: Subject) -> Findings:
        """Measure each set."""
        right = subject.test_logits.argmax(1) == subject.test_labels
        found: list[Measurement] = []
        for name, items in subject.shifted.items():
            labels = _numbered(subject, items.dataset.class_names)[items.dataset.required_labels("a shifted set")]
            z = subject.bundle.embed_items(items, normalize=False)[labels >= 0]
            there = subject.probe.logits(z).argmax(1) == labels[labels >= 0]
            here = right[np.isin(subject.test_labels, labels)]
            found += _figures(subject, f"shift.{name}", here, there, len(np.unique(labels[labels >= 0])), items.dataset)
        return Findings(found)


def _numbered(subject: Subject, names: tuple[str, ...]) -> Ints:
    """Return our number of each of their classes, -1 for those we have not and, at the end, for no class."""
    ours = {name: number for number, name in enumerate(subject.fit.dataset.class_names)}
    return np.array([*(ours.get(name, -1) for name in names), -1], np.int64)


def _figures(subject: Subject, name: str, here: Any, there: Any, classes: int, beside: Dataset) -> list[Measurement]:
    """Return accuracy there and the drop from here; items of both are drawn anew for the interval of the drop."""
    how = f"{subject.probe.protocol}; {len(there):,} items of {classes} classes that both have; {subject.how}"
    one, other = (bootstrap_means(x, derive(subject.seed, name, i)) for i, x in enumerate((here, there)))
    accuracy, drop = float(there.mean()), float(here.mean() - there.mean())
    interval = wilson(int(there.sum()), len(there))
    against = f"{len(here):,} held-out items of these classes less {how}"
    return [
        measured(subject, f"{name}.accuracy", accuracy, interval, len(there), how, beside=beside),
        measured(
            subject, f"{name}.drop", drop, quantiles(one - other), len(there), against, better="lower", beside=beside
        ),
    ]
