"""Domains: learnt from one part of the world, is it right in another? A table from each domain to each."""

from __future__ import annotations

import numpy as np

from fastness.evaluation import slices
from fastness.evaluation.checks import CHECKS, Check, Findings, measured
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import wilson
from fastness.metrics.probe import fit_linear

_SMALLEST = 50  # items of a domain, on either side
_MOST = 8  # domains


@CHECKS.register("domains")
class Domains(Check):
    """Accuracy of a linear probe that is fitted on the items of one domain and measured on those of each."""

    needs = frozenset({"embeddings"})

    def missing(self, subject: Subject) -> str | None:
        """It wants a column that names the domains."""
        return super().missing(subject) if subject.domain else "needs a column that names domains (--domain NAME)"

    def run(self, subject: Subject) -> Findings:
        """Fit one probe a domain, the most frequent ones if they are many."""
        assert subject.domain is not None
        fit = {part.name: part.mask for part in slices.by_value(subject.domain, subject.fit_known)}
        test = {part.name: part.mask for part in slices.by_value(subject.domain, subject.held_out_known)}
        there = [name for name in fit if name in test and min(fit[name].sum(), test[name].sum()) >= _SMALLEST]
        found: list[Measurement] = []
        chosen = sorted(sorted(there, key=lambda name: -int(fit[name].sum()))[:_MOST])
        for one in chosen:
            labels = subject.fit_labels[fit[one]]
            if len(np.unique(labels)) < 2:
                continue
            right = (
                fit_linear(subject.fit_vectors[fit[one]], labels).predict(subject.test_vectors) == subject.test_labels
            )
            for other in chosen:
                mine = right[test[other]]
                how = (
                    f"logistic regression (C=1) on standardised features of the {len(labels):,} fitting items with "
                    f"{one}, measured on held-out ones with {other}; {subject.how}"
                )
                interval = wilson(int(mine.sum()), len(mine))
                value = float(mine.mean())
                found.append(
                    measured(subject, f"domains.from {one}.accuracy", value, interval, len(mine), how, part=other)
                )
        return Findings(found)
