"""Linear probe on all labels."""

from __future__ import annotations

from fastness.evaluation.checks import CHECKS, Check, Findings, accuracy
from fastness.evaluation.subject import Subject
from fastness.metrics.probe import fit_linear


@CHECKS.register("linear")
class Linear(Check):
    """Logistic regression on the frozen features."""

    def run(self, subject: Subject) -> Findings:
        """Fit on the fitting items, measure on the held-out ones."""
        predicted = fit_linear(subject.fit_vectors, subject.fit_labels).predict(subject.test_vectors)
        n = len(subject.fit)
        return accuracy(
            subject, "linear", predicted, f"logistic regression (C=1) on standardised features, all {n:,} labels"
        )
