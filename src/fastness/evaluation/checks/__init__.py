"""The checks: one file each, one line here to register it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fastness.core.registry import Registry
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject


@dataclass
class Findings:
    """What a check found.

    Attributes:
        measurements: the numbers.
        items: outcome of each held-out item by column, in order; kept so that two bundles can be paired.
    """

    measurements: list[Measurement]
    items: dict[str, Any] = field(default_factory=dict)


class Check(ABC):
    """Measures one aspect of a bundle on a data set."""

    needs_labels: ClassVar[bool] = True

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
    },
)
