"""kNN accuracy of the frozen embeddings."""

from __future__ import annotations

from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import wilson
from fastness.metrics.knn import knn_predict


@CHECKS.register("knn")
class KNN(Check):
    """Weighted vote of the 20 nearest."""

    def run(self, subject: Subject) -> Findings:
        """Classify the held-out items by the fitting items."""
        predicted = knn_predict(subject.fit_vectors, subject.fit_labels, subject.test_vectors, classes=subject.classes)
        right = predicted == subject.test_labels
        low, high = wilson(int(right.sum()), len(right))
        measured = Measurement(
            "knn.accuracy",
            float(right.mean()),
            low,
            high,
            "items",
            len(right),
            "share",
            f"kNN, cosine, k=20, weights exp(s/0.07), bank of {len(subject.fit):,}; {subject.how}; last epoch",
            subject.data,
            seed=subject.seed,
        )
        return Findings([measured], {"predicted": predicted, "label": subject.test_labels, "right": right})
