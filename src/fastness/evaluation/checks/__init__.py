"""The checks: one file each, one line here to register it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastness.core.registry import Registry
from fastness.data import Dataset
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import wilson


@dataclass
class Findings:
    """What a check found.

    Attributes:
        measurements: the numbers.
        items: outcome of each item by column, in order; kept so that two bundles can be paired.
        dataset: which items; the held-out ones if not said.
    """

    measurements: list[Measurement]
    items: dict[str, Any] = field(default_factory=dict)
    dataset: Dataset | None = None


class Check(ABC):
    """Measures one aspect of a bundle on a data set."""

    def missing(self, subject: Subject) -> str | None:
        """Return what the data lack for this check, or ``None``; most need labels."""
        return None if subject.has_labels else "needs a label on every item (--label)"

    @abstractmethod
    def run(self, subject: Subject) -> Findings:
        """Measure."""


CHECKS: Registry[type[Check]] = Registry(
    "check",
    "fastness.evaluation.checks",
    {
        "knn": "knn",
        "linear": "linear",
        "few_label": "few_label",
        "geometry": "geometry",
        "retrieval": "retrieval",
        "zero_shot": "zero_shot",
        "similarity": "similarity",
        "ranking": "ranking",
    },
)


def accuracy(subject: Subject, name: str, predicted: Any, protocol: str) -> Findings:
    """Return the share of held-out items whose class was predicted, with Wilson's interval, and each outcome.

    Args:
        predicted: class of each held-out item, int64 ``[M]``.
        protocol: how they were predicted; how the parts came about is added.
    """
    right = np.asarray(predicted) == subject.test_labels
    low, high = wilson(int(right.sum()), len(right))
    measured = Measurement(
        f"{name}.accuracy",
        float(right.mean()),
        low,
        high,
        "items",
        len(right),
        "share",
        f"{protocol}; {subject.how}; last epoch",
        subject.data,
        seed=subject.seed,
    )
    return Findings([measured], {"predicted": predicted, "label": subject.test_labels, "right": right})
