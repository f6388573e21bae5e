"""BYOL: predict what a slowly moving copy of yourself says of another view; no negatives.

Grill et al. 2020, arXiv 2006.07733.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from fastness.core.options import Option
from fastness.encoders import Encoder
from fastness.encoders.heads import mlp
from fastness.losses.regression import cosine_regression
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults, Found, Known, Method, Outcome, on_views, outcome, scarce
from fastness.methods.momentum import Teacher, rising


@METHODS.register("byol")
class BYOL(Method):
    """Encoder, projector and predictor; momentum copies of the first two are the teacher."""

    about = About(
        "predict what a slowly moving copy of yourself says of another view",
        "Grill et al. 2020, arXiv 2006.07733",
        "one forward and backward, one forward of the teacher",
        "no labels; no negatives, so duplicates in the data do no harm",
    )
    defaults = Defaults(batch_size=256, lr=0.06, temperature=None, scarce=scarce())
    options: ClassVar[Mapping[str, Option]] = {
        "projection": Option(128, 1, help="length of the projections"),
        "hidden": Option(512, 1, help="width of projector and predictor"),
        "momentum": Option(0.99, 0, 0.99999, help="share of itself that the teacher keeps at the first step"),
    }
    learning = "prediction"
    views_taken = (2, 2)

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__(encoder, temperature, classes, **options)
        hidden, out = self.settings["hidden"], self.settings["projection"]
        self.projector = mlp(encoder.dim, hidden, out)
        self.predictor = mlp(out, hidden, out)
        self.teacher = Teacher(self.encoder, self.projector)

    def represent(self, views: Sequence[torch.Tensor]) -> Found:
        """See `Method.represent`."""
        features = self.encode(views)
        prediction = on_views(self.predictor, on_views(self.projector, features))
        return {"prediction": prediction, "target": self.teacher.of_views(views), "features": features.detach()}

    def compare(self, found: Found, known: Known) -> Outcome:
        """See `Method.compare`."""
        other = found["target"].flip(1).flatten(0, 1)
        return outcome(cosine_regression(found["prediction"].flatten(0, 1), other), found)

    def after_step(self, progress: float) -> None:
        """Let the teacher follow, ever more slowly."""
        self.teacher.follow(rising(self.settings["momentum"], progress))
