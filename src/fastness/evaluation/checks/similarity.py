"""Similarity: do the cosines of pairs follow the scores that people gave them?"""

from __future__ import annotations

import numpy as np

from fastness.core.seeds import numpy_generator
from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject

_RESAMPLES = 1000


@CHECKS.register("similarity")
class Similarity(Check):
    """Spearman's rank correlation of cosine and score, with a bootstrap interval over the pairs."""

    headline = ("similarity.*",)

    def missing(self, subject: Subject) -> str | None:
        """It wants pairs with scores."""
        scores = subject.unfitted.manifest.scores
        varied = scores is not None and len(np.unique(scores[~np.isnan(scores)])) > 1
        return None if varied and len(subject.sides) == 2 else "needs pairs with scores (--text A,B --score C)"

    def run(self, subject: Subject) -> Findings:
        """Measure the pairs that have a score."""
        from scipy.stats import spearmanr

        scores = subject.unfitted.manifest.scores
        assert scores is not None
        known = ~np.isnan(scores)
        x, y = (subject.side_vectors(name) for name in subject.sides)
        every = (x * y).sum(1)
        cosines, scores = every[known], scores[known]
        generator = numpy_generator(subject.seed, "similarity")
        drawn = (generator.integers(0, len(scores), len(scores)) for _ in range(_RESAMPLES))
        values = [float(spearmanr(cosines[rows], scores[rows]).statistic) for rows in drawn]
        low, high = np.nanquantile(values, [0.025, 0.975])
        measured = Measurement(
            "similarity.spearman",
            float(spearmanr(cosines, scores).statistic),
            float(low),
            float(high),
            "items",
            len(scores),
            "rank correlation",
            f"Spearman, cosine against score, bootstrap of {_RESAMPLES}; last epoch",
            subject.unfitted.fingerprint,
            seed=subject.seed,
        )
        return Findings([measured], {"cosine": every}, subject.unfitted)
