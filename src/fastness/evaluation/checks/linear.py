"""Linear probe on all labels."""

from __future__ import annotations

import numpy as np

from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import wilson
from fastness.metrics.probe import fit_linear


@CHECKS.register("linear")
class Linear(Check):
    """Logistic regression on the frozen features."""

    def run(self, subject: Subject) -> Findings:
        """Fit on the fitting items, measure on the held-out ones."""
        probe = fit_linear(subject.fit_vectors, subject.fit_labels)
        predicted = np.asarray(probe.predict(subject.test_vectors))
        right = predicted == subject.test_labels
        low, high = wilson(int(right.sum()), len(right))
        measured = Measurement(
            "linear.accuracy",
            float(right.mean()),
            low,
            high,
            "items",
            len(right),
            "share",
            f"logistic regression (C=1) on standardised features, all {len(subject.fit):,} labels; {subject.how}",
            subject.data,
            seed=subject.seed,
        )
        return Findings([measured], {"predicted": predicted, "label": subject.test_labels, "right": right})
