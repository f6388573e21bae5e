"""Votes: is it as unsure as people are?"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from fastness.core.seeds import derive
from fastness.evaluation.checks import CHECKS, Check, Findings, bootstrapped, measured
from fastness.evaluation.subject import Ints, Subject
from fastness.metrics.calibration import softmax
from fastness.metrics.intervals import bootstrap, quantiles

_DRAWS = 200
_TINY = 1e-12
Floats = npt.NDArray[np.float64]


@CHECKS.register("votes")
class Votes(Check):
    """Distance of the probe's probabilities from the shares of people's votes (Peterson et al. 2019, 1908.07086)."""

    needs = frozenset({"probabilities"})

    def missing(self, subject: Subject) -> str | None:
        """It wants votes."""
        given = subject.votes is not None
        return super().missing(subject) if given else "needs what people said of each held-out item (--votes FILE)"

    def run(self, subject: Subject) -> Findings:
        """Compare on the held-out items; the temperature was chosen by labels, not by votes."""
        assert subject.votes is not None
        people = subject.votes / subject.votes.sum(1, keepdims=True)
        p = softmax(subject.test_logits, subject.probe.temperature)
        people_right = people.argmax(1) == subject.test_labels
        surprise = -(people * np.log(np.maximum(p, _TINY))).sum(1)
        apart = np.abs(people - p).sum(1) / 2
        how = f"{subject.probe.protocol}, temperature {subject.probe.temperature:.2f}, against the shares of votes"
        doubts = _entropy(people), _entropy(p)
        score = partial(_agreement, *doubts)
        name = "votes.doubt_correlation"
        drawn = bootstrap(score, len(p), derive(subject.seed, name), _DRAWS)
        value = score(np.arange(len(p)))
        same = f"Spearman's correlation of the entropy of votes and of probabilities; {how}; {subject.how}"
        found = [
            bootstrapped(subject, "votes.cross_entropy", surprise, how, unit="nats", better="lower"),
            bootstrapped(subject, "votes.distance", apart, f"total variation; {how}", unit="share", better="lower"),
            bootstrapped(
                subject, "votes.people.accuracy", people_right, "the class that most people said", unit="share"
            ),
        ]
        if np.isfinite(value):
            found.append(measured(subject, name, value, quantiles(drawn), len(p), same, unit="rank correlation"))
        return Findings(found, {"cross_entropy": surprise, "distance": apart})


def _entropy(p: Floats) -> Floats:
    found: Floats = -(p * np.log(np.maximum(p, _TINY))).sum(1)
    return found


def _agreement(one: Floats, other: Floats, rows: Ints) -> float:
    from scipy.stats import spearmanr

    if np.ptp(one[rows]) == 0 or np.ptp(other[rows]) == 0:
        return float("nan")
    return float(spearmanr(one[rows], other[rows]).statistic)
