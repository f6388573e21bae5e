"""The checks: one file each, one line here to register it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from fastness.core.registry import Registry
from fastness.core.seeds import derive
from fastness.data import Dataset
from fastness.evaluation.measurement import WHOLE, Measurement
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import bootstrap_means, quantiles, wilson


@dataclass
class Findings:
    """What a check found.

    Attributes:
        measurements: the numbers.
        items: outcome of each item by column, in order; kept so that two bundles can be paired. Of the measurement
            ``check.figure`` they are in the column ``figure``, where it is a mean of them.
        dataset: which items; the held-out ones if not said.
    """

    measurements: list[Measurement]
    items: dict[str, Any] = field(default_factory=dict)
    dataset: Dataset | None = None


class Check(ABC):
    """Measures one aspect of a bundle on a data set.

    Attributes:
        costly: embeds the items many times over, so it runs only when it is asked for.
        needs: what of `Subject.has`; most embed items of their own.
        headline: names of its measurements that the report's first screen shows, as patterns of `fnmatch`; those of
            one pattern in the order of their measurement.
    """

    costly: ClassVar[bool] = False
    headline: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[frozenset[str]] = frozenset({"encoder"})

    def missing(self, subject: Subject) -> str | None:
        """Return what the data lack for this check, or ``None``; most need labels."""
        return None if subject.has_labels else "needs a label on every item (--label)"

    @abstractmethod
    def run(self, subject: Subject) -> Findings:
        """Measure."""


# In the order in which they run, and stand in the report.
CHECKS: Registry[type[Check]] = Registry(
    "check",
    "fastness.evaluation.checks",
    {
        "answers": "answers",
        "knn": "knn",
        "linear": "linear",
        "fine_tuned": "fine_tuned",
        "few_label": "few_label",
        "zero_shot": "zero_shot",
        "similarity": "similarity",
        "ranking": "ranking",
        "retrieval": "retrieval",
        "neighbours": "neighbours",
        "clustering": "clustering",
        "calibration": "calibration",
        "selective": "selective",
        "votes": "votes",
        "ood": "ood",
        "shift": "shift",
        "domains": "domains",
        "slices": "slices",
        "groups": "groups",
        "corruption": "corruption",
        "geometry": "geometry",
        "stability": "stability",
    },
)


def measured(
    subject: Subject,
    name: str,
    value: float,
    interval: tuple[float, float],
    n: int,
    protocol: str,
    *,
    over: str = "items",
    unit: str = "share",
    better: str = "higher",
    part: str = WHOLE,
    beside: Dataset | None = None,
) -> Measurement:
    """Return a measurement of a subject's held-out items, or of them and a further set; see `Measurement`.

    An interval that leaves the value out is widened to it: the bootstrap of a figure that is no mean may lie to one
    side, since drawn samples hold some items twice.
    """
    low, high = min(interval[0], value), max(interval[1], value)
    data = subject.data if beside is None else f"{subject.data} {beside.fingerprint}"
    return Measurement(
        name, value, low, high, over, n, unit, protocol, data, slice=part, seed=subject.seed, better=better
    )


def bootstrapped(
    subject: Subject, name: str, values: Any, protocol: str, *, unit: str = "score", better: str = "higher"
) -> Measurement:
    """Return the mean of one value a held-out item, with the bootstrap's interval; NaN are left out.

    Args:
        values: float64 ``[M]``, at least one of them a number.
    """
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    interval = quantiles(bootstrap_means(x, derive(subject.seed, name)))
    how = f"{protocol}; {subject.how}"
    return measured(subject, name, float(x.mean()), interval, len(x), how, unit=unit, better=better)


def accuracy(subject: Subject, name: str, predicted: Any, protocol: str) -> Findings:
    """Return the share of held-out items whose class was predicted, with Wilson's interval, and each outcome.

    Args:
        predicted: class of each held-out item, int64 ``[M]``.
        protocol: how they were predicted; how the parts came about is added.
    """
    right = np.asarray(predicted) == subject.test_labels
    interval = wilson(int(right.sum()), len(right))
    how = f"{protocol}; {subject.how}; last epoch"
    found = measured(subject, f"{name}.accuracy", float(right.mean()), interval, len(right), how)
    return Findings([found], {"predicted": predicted, "label": subject.test_labels, "accuracy": right})
