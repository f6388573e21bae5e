"""Out of distribution: does it notice items that are of none of its kinds?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fastness.core.seeds import derive
from fastness.data import Dataset
from fastness.evaluation.checks import CHECKS, Check, Findings, measured
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Floats, Subject
from fastness.metrics import outliers
from fastness.metrics.intervals import quantiles

Scores = npt.NDArray[np.float64]


@CHECKS.register("ood")
class OutOfDistribution(Check):
    """AUROC, AUPR and FPR95 of five scores, for every set from outside; outside is positive."""

    headline = ("ood.*.auroc",)

    def missing(self, subject: Subject) -> str | None:
        """It wants a set from outside."""
        return None if subject.outside else "needs items of another kind (--ood DATA)"

    def run(self, subject: Subject) -> Findings:
        """Score held-out items and those from outside, without ever fitting to the latter."""
        found, items = [], {}
        vectors = {
            name: subject.bundle.embed_items(outside, normalize=False) for name, outside in subject.outside.items()
        }
        for way, (how, score) in self._scores(subject).items():
            items[way] = score(subject.test_vectors)
            for name, z in vectors.items():
                outside = subject.outside[name].dataset
                found += _told_apart(subject, f"ood.{name}.{way}", items[way], score(z), how, outside)
        return Findings(found, items)

    def _scores(self, subject: Subject) -> dict[str, tuple[str, Callable[[Floats], Scores]]]:
        bank = subject.fit_vectors
        scores: dict[str, tuple[str, Callable[[Floats], Scores]]] = {
            "knn": (
                f"distance to the 50th nearest of {len(bank):,} fitting items, cosine",
                lambda z: outliers.knn_distance(bank, z),
            ),
            "ssd": ("Mahalanobis distance to the mean of the fitting items", lambda z: outliers.mahalanobis(bank, z)),
        }
        if subject.has_labels:
            labels, head = subject.fit_labels, subject.probe
            scores["mahalanobis"] = (
                "Mahalanobis distance to the nearest class mean of the fitting items",
                lambda z: outliers.mahalanobis(bank, z, labels),
            )
            scores["msp"] = (
                f"1 - largest probability; {subject.probe.protocol}",
                lambda z: outliers.max_probability(head.logits(z)),
            )
            scores["energy"] = (f"free energy; {subject.probe.protocol}", lambda z: outliers.energy(head.logits(z)))
        return scores


def _told_apart(
    subject: Subject, name: str, inside: Scores, outside: Scores, how: str, beside: Dataset
) -> list[Measurement]:
    """Return the three figures; items of both sides are drawn anew for the intervals."""
    samples = outliers.detection_drawn(inside, outside, derive(subject.seed, name))
    protocol = (
        f"{how}; outside is positive, {len(outside):,} items against {len(inside):,} held-out ones; {subject.how}"
    )
    return [
        measured(
            subject,
            f"{name}.{figure}",
            value,
            quantiles(samples[figure]),
            len(inside) + len(outside),
            protocol,
            better="lower" if figure == "fpr95" else "higher",
            beside=beside,
        )
        for figure, value in outliers.detection(inside, outside).items()
    ]
