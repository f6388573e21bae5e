"""Scored pairs: pairs with a higher score should be more alike than pairs with a lower one.

CoSENT, Su 2022 (kexue.fm/archives/8847).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from fastness.core.options import Option
from fastness.losses.cosent import cosent
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults, Found, Known, Method, Outcome, outcome


@METHODS.register("scored")
class Scored(Method):
    """Encoder and the CoSENT loss on the cosine of each item's two sides; items without a score are passed over."""

    about = About(
        "pairs with a higher score become more alike than pairs with a lower one",
        "Su 2022, kexue.fm/archives/8847",
        "one forward and backward of both sides",
        "pairs that people scored for similarity (--score)",
    )
    defaults = Defaults(temperature=0.05)
    options: ClassVar[Mapping[str, Option]] = {}
    needs = ("scores",)
    sides = 2
    learning = "z"
    views_taken = (2, 2)

    def represent(self, views: Sequence[torch.Tensor]) -> Found:
        """See `Method.represent`."""
        features = self.encode(views)
        return {"z": features, "features": features.detach()}

    def compare(self, found: Found, known: Known) -> Outcome:
        """See `Method.compare`."""
        assert known.scores is not None
        x, y = found["z"].unbind(1)
        return outcome(cosent(x, y, known.scores, 1 / self.temperature), found)
