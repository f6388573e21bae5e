"""kNN accuracy of the frozen embeddings."""

from __future__ import annotations

from fastness.evaluation.checks import CHECKS, Check, Findings, accuracy
from fastness.evaluation.subject import Subject
from fastness.metrics.knn import knn_predict


@CHECKS.register("knn")
class KNN(Check):
    """Weighted vote of the 20 nearest."""

    needs = frozenset({"embeddings"})
    headline = ("knn.*",)

    def run(self, subject: Subject) -> Findings:
        """Classify the held-out items by the fitting items."""
        bank, labels = subject.fit_vectors, subject.fit_labels
        predicted = knn_predict(bank, labels, subject.test_vectors, classes=subject.classes)
        return accuracy(subject, "knn", predicted, f"kNN, cosine, k=20, weights exp(s/0.07), bank of {len(bank):,}")
