"""BYOL: predict what a slowly moving copy of yourself says of another view; no negatives.

Grill et al. 2020, arXiv 2006.07733.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from fastness.encoders import Encoder
from fastness.encoders.heads import mlp
from fastness.losses.regression import cosine_regression
from fastness.methods import METHODS
from fastness.methods.base import Defaults, Method, Outcome, detached
from fastness.methods.momentum import follow, frozen_copy, rising
from fastness.views.image import ViewSpec


@METHODS.register("byol")
class BYOL(Method):
    """Encoder, projector and predictor; momentum copies of the first two are the teacher."""

    defaults = Defaults(views=(ViewSpec(scale=(0.2, 1.0)),), batch_size=256, lr=0.06)
    options: ClassVar[dict[str, Any]] = {"projection": 128, "hidden": 512, "momentum": 0.99}
    views_taken = (2, 2)

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__(encoder, temperature, classes, **options)
        hidden, out = self.settings["hidden"], self.settings["projection"]
        self.projector = mlp(encoder.dim, hidden, out)
        self.predictor = mlp(out, hidden, out)
        self.teacher = frozen_copy(nn.Sequential(self.encoder, self.projector))

    def forward(self, views: Sequence[torch.Tensor], labels: torch.Tensor | None = None) -> Outcome:
        """See `Method.forward`."""
        features = self.encode(views)
        prediction = self.predictor(self.projector(torch.cat(features)))
        with torch.no_grad():
            first, second = self.teacher(torch.cat(list(views))).chunk(2)
        return Outcome(cosine_regression(prediction, torch.cat([second, first])), detached(features))

    def after_step(self, progress: float) -> None:
        """Let the teacher follow, ever more slowly."""
        momentum = rising(self.settings["momentum"], progress)
        follow(self.teacher, nn.Sequential(self.encoder, self.projector), momentum)
