"""Retrieval between sides: does one side of a thing find the other among those of all things?"""

from __future__ import annotations

from itertools import permutations
from typing import Any

from fastness.data.sides import right_answers
from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import wilson
from fastness.metrics.retrieval import best_ranks

_DEPTHS = (1, 5, 10)


@CHECKS.register("retrieval")
class Retrieval(Check):
    """Recall at 1, 5 and 10, each way between every two sides."""

    headline = ("retrieval.*",)

    def missing(self, subject: Subject) -> str | None:
        """It compares sides."""
        return None if len(subject.sides) > 1 else "needs things with several sides (--image A --text B, --text A,B)"

    def run(self, subject: Subject) -> Findings:
        """What is right, `right_answers` says."""
        measurements: list[Measurement] = []
        items: dict[str, Any] = {}
        for asking, answering in permutations(subject.sides, 2):
            right = right_answers(subject.unfitted, asking, answering)
            ranks = best_ranks(subject.side_vectors(asking), subject.side_vectors(answering), right)
            items[f"{asking}_to_{answering}_rank"] = ranks
            for depth in _DEPTHS:
                items[f"{asking}_to_{answering}.recall@{depth}"] = ranks <= depth
                low, high = wilson(int((ranks <= depth).sum()), len(ranks))
                measurements.append(
                    Measurement(
                        f"retrieval.{asking}_to_{answering}.recall@{depth}",
                        float((ranks <= depth).mean()),
                        low,
                        high,
                        "items",
                        len(ranks),
                        "share",
                        f"cosine, among {len(ranks):,} items, ties count against; last epoch",
                        subject.unfitted.fingerprint,
                        seed=subject.seed,
                    )
                )
        return Findings(measurements, items, subject.unfitted)
