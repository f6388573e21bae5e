"""Neighbours: are the nearest items of the same class? Retrieval by class, from first hits to whole rankings."""

from __future__ import annotations

import numpy as np

from fastness.evaluation.checks import CHECKS, Check, Findings, bootstrapped
from fastness.evaluation.subject import Floats, Subject
from fastness.metrics.retrieval import by_label


@CHECKS.register("neighbours")
class Neighbours(Check):
    """Precision, recall and F1 at 1, 5 and 10, mean average precision, reciprocal rank and nDCG."""

    needs = frozenset({"embeddings"})
    headline = ("neighbours.map",)

    def run(self, subject: Subject) -> Findings:
        """Rank the fitting items for each held-out one."""
        bank, asked = _unit(subject.fit_vectors), _unit(subject.test_vectors)
        figures = by_label(bank, subject.fit_labels, asked, subject.test_labels)
        protocol = f"cosine, right is the same class, among {len(bank):,} fitting items, ties count against; last epoch"
        found = [
            bootstrapped(subject, f"neighbours.{name}", values, protocol)
            for name, values in figures.items()
            if not np.isnan(values).all()
        ]
        return Findings(found, figures)


def _unit(x: Floats) -> Floats:
    found: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return found
