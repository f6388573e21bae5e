"""Stability: does an item that is seen a little differently keep its neighbours, and is it told from the others?"""

from __future__ import annotations

import numpy as np
import torch

from fastness.core.seeds import numpy_generator
from fastness.evaluation.checks import CHECKS, Check, Findings, bootstrapped
from fastness.evaluation.subject import Subject
from fastness.evaluation.two_views import two_views

_MOST = 1000  # held-out items, and
_BANK = 5000  # fitting items among which they have neighbours
_NEAREST = 10


@CHECKS.register("stability")
class Stability(Check):
    """Two figures that need no label, by which checkpoints and settings can be chosen."""

    def missing(self, subject: Subject) -> str | None:
        """It needs nothing but items."""
        return None if len(subject.test) > 1 and len(subject.fit) > 1 else "needs more items"

    def run(self, subject: Subject) -> Findings:
        """Compare two views of up to a thousand held-out items."""
        rows = np.sort(numpy_generator(subject.seed, "stability").permutation(len(subject.test))[:_MOST])
        known = numpy_generator(subject.seed, "stability bank").permutation(len(subject.fit))[:_BANK]
        bank = torch.nn.functional.normalize(torch.from_numpy(subject.fit_vectors[known]), dim=1)
        one, other = two_views(subject, rows, "stability views")
        k = min(_NEAREST, len(known))
        first, second = ((view @ bank.T).topk(k).indices for view in (one, other))
        kept = (first[:, :, None] == second[:, None, :]).any(2).float().mean(1).numpy()
        alike = one @ other.T
        own = alike.diagonal()
        # The number of other items that are as near counts, so that an encoder that gives one point finds nothing.
        found = ((alike >= own[:, None]).sum(1) == 1).numpy()
        views = f"two standard views of {len(rows):,} held-out items"
        return Findings(
            [
                bootstrapped(
                    subject,
                    "stability.neighbours",
                    kept,
                    f"share of the {k} nearest of {len(known):,} fitting items, cosine, that {views} have in common",
                    unit="share",
                ),
                bootstrapped(
                    subject,
                    "stability.partner",
                    found,
                    f"share of {views} of which one is nearer to the other than to that of any other item",
                    unit="share",
                ),
            ],
            {"neighbours": kept, "partner": found},
            subject.held_out.select(rows),
        )
