"""Linear probe on all labels."""

from __future__ import annotations

from fastness.core.seeds import derive
from fastness.evaluation.checks import CHECKS, Check, Findings, accuracy, measured
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import bootstrap_means, quantiles
from fastness.metrics.probe import fit_linear


@CHECKS.register("linear")
class Linear(Check):
    """Logistic regression on the frozen features."""

    needs = frozenset({"embeddings"})
    headline = ("linear.*",)

    def run(self, subject: Subject) -> Findings:
        """Fit on the fitting items, measure on the held-out ones, and how much more often it is right on the former."""
        model = fit_linear(subject.fit_vectors, subject.fit_labels)
        n, seen = len(subject.fit), model.predict(subject.fit_vectors) == subject.fit_labels
        how = f"logistic regression (C=1) on standardised features, all {n:,} labels"
        found = accuracy(subject, "linear", model.predict(subject.test_vectors), how)
        right = found.items["accuracy"]
        drawn = [bootstrap_means(x, derive(subject.seed, "gap", i)) for i, x in enumerate((seen, right))]
        gap, protocol = (
            float(seen.mean() - right.mean()),
            f"accuracy on the fitting items less that; {how}; {subject.how}",
        )
        interval = quantiles(drawn[0] - drawn[1])
        found.measurements.append(measured(subject, "linear.gap", gap, interval, len(right), protocol, better="lower"))
        return found
