"""Calibration: of the answers that are called 80% sure, are 80% right?"""

from __future__ import annotations

from typing import Any

from fastness.core.seeds import derive
from fastness.evaluation.checks import CHECKS, Check, Findings, bootstrapped, measured
from fastness.evaluation.subject import Subject
from fastness.metrics.calibration import brier, error_interval, nll, reliability, softmax

_BINS = 15


@CHECKS.register("calibration")
class Calibration(Check):
    """Expected calibration error, Brier score and likelihood of the probe, as it is and after temperature scaling."""

    needs = frozenset({"probabilities"})
    headline = ("calibration.scaled.ece",)

    def run(self, subject: Subject) -> Findings:
        """Measure on the held-out items."""
        y, found = subject.test_labels, []
        items: dict[str, Any] = {}
        for way, temperature in (("raw", 1.0), ("scaled", subject.probe.temperature)):
            p = softmax(subject.test_logits, temperature)
            confidence, right = p.max(1), p.argmax(1) == y
            how = f"{subject.probe.protocol}; " + (
                f"temperature {temperature:.2f}{_chosen(subject)}" if way == "scaled" else "no scaling"
            )
            for kind, mass in (("ece", False), ("ece_mass", True)):
                name = f"calibration.{way}.{kind}"
                binned = reliability(confidence, right, _BINS, mass=mass)
                interval = error_interval(binned, derive(subject.seed, name))
                bins = f"{_BINS} bins of equal {'mass' if mass else 'width'}"
                protocol = f"{bins}; {how}; {subject.how}"
                found.append(measured(subject, name, binned.error, interval, len(y), protocol, better="lower"))
            items |= {f"{way}.brier": brier(p, y), f"{way}.nll": nll(p, y), f"{way}_confidence": confidence}
            for kind, unit in (("brier", "score"), ("nll", "nats")):
                name = f"{way}.{kind}"
                found.append(bootstrapped(subject, f"calibration.{name}", items[name], how, unit=unit, better="lower"))
        return Findings(found, {**items, "right": subject.test_logits.argmax(1) == y})


def _chosen(subject: Subject) -> str:
    return (
        ", chosen on the other fifth"
        if subject.answers is None
        else ", as nothing is fitted to another model's answers"
    )
