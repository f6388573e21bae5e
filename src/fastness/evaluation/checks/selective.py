"""Selective prediction: may it say «I do not know»? What is wrong among the answers it is surest of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from fastness.core.seeds import derive
from fastness.evaluation.checks import CHECKS, Check, Findings, measured
from fastness.evaluation.subject import Subject
from fastness.metrics.calibration import softmax
from fastness.metrics.intervals import bootstrap, quantiles
from fastness.metrics.selective import aurc, coverage_at

_RISKS = (0.01, 0.05, 0.1)


@CHECKS.register("selective")
class Selective(Check):
    """Area under risk and coverage, and how much can be answered with 1, 5 and 10% of errors."""

    needs = frozenset({"probabilities"})
    headline = ("selective.coverage@5%",)

    def run(self, subject: Subject) -> Findings:
        """Measure the probe on the held-out items."""
        p = softmax(subject.test_logits, subject.probe.temperature)
        confidence, wrong = p.max(1), p.argmax(1) != subject.test_labels
        kinds: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"aurc": aurc}
        kinds |= {f"coverage@{risk:.0%}": partial(coverage_at, risk=risk) for risk in _RISKS}
        found = []
        for kind, score in kinds.items():
            name = f"selective.{kind}"

            def drawn(rows: np.ndarray, score: Callable[[np.ndarray, np.ndarray], float] = score) -> float:
                return score(confidence[rows], wrong[rows])

            value = drawn(np.arange(len(wrong)))
            interval = quantiles(bootstrap(drawn, len(wrong), derive(subject.seed, name), 300))
            what = "mean error over all coverages" if kind == "aurc" else "share answered at that share of errors"
            how = f"{what}, the surest first; {subject.probe.protocol}; {subject.how}"
            better = "lower" if kind == "aurc" else "higher"
            found.append(measured(subject, name, value, interval, len(wrong), how, better=better))
        return Findings(found, {"confidence": confidence, "wrong": wrong})
