"""Answers: how often another model's predictions are right."""

from __future__ import annotations

import numpy as np

from fastness.core.seeds import derive
from fastness.evaluation.checks import CHECKS, Check, Findings, accuracy, measured
from fastness.evaluation.subject import Ints, Subject
from fastness.metrics.intervals import bootstrap, quantiles


@CHECKS.register("answers")
class AnswersGiven(Check):
    """Accuracy, and F1 as the plain mean over the classes."""

    needs = frozenset()
    headline = ("answers.*",)

    def missing(self, subject: Subject) -> str | None:
        """It wants answers, since a bundle gives none."""
        return super().missing(subject) if subject.answers else "needs a model's answers (--predictions FILE)"

    def run(self, subject: Subject) -> Findings:
        """Measure them as they are."""
        from sklearn.metrics import f1_score

        predicted, labels = subject.test_logits.argmax(1), subject.test_labels

        def f1(rows: Ints) -> float:
            return float(f1_score(labels[rows], predicted[rows], average="macro", zero_division=0))

        found = accuracy(subject, "answers", predicted, subject.probe.protocol)
        interval = quantiles(bootstrap(f1, len(labels), derive(subject.seed, "f1"), 200))
        every = f1(np.arange(len(labels)))
        how = f"{subject.probe.protocol}; F1, mean over classes; {subject.how}"
        found.measurements.append(measured(subject, "answers.f1", every, interval, len(labels), how, unit="score"))
        return found
