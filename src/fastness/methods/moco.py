"""MoCo v2: a query should find its key, made by a slowly moving encoder, among a queue of older keys.

He et al. 2020, arXiv 1911.05722; Chen et al. 2020, arXiv 2003.04297. Both views take both parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from fastness.encoders import Encoder
from fastness.encoders.heads import mlp
from fastness.losses.info_nce import info_nce
from fastness.losses.precision import normalised
from fastness.methods import METHODS
from fastness.methods.base import Defaults, Method, Outcome, detached
from fastness.methods.momentum import Queue, follow, frozen_copy
from fastness.views.image import ViewSpec


@METHODS.register("moco")
class MoCo(Method):
    """Encoder and head, their momentum copies, a queue, InfoNCE."""

    defaults = Defaults(views=(ViewSpec(scale=(0.2, 1.0)),), batch_size=256, lr=0.06, temperature=0.1)
    options: ClassVar[dict[str, Any]] = {"projection": 128, "hidden": 512, "queue": 4096, "momentum": 0.99}
    views_taken = (2, 2)

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__(encoder, temperature, classes, **options)
        self.head = mlp(encoder.dim, self.settings["hidden"], self.settings["projection"])
        self.teacher = frozen_copy(nn.Sequential(self.encoder, self.head))
        self.queue = Queue(self.settings["queue"], self.settings["projection"])

    def forward(self, views: Sequence[torch.Tensor], labels: torch.Tensor | None = None) -> Outcome:
        """See `Method.forward`."""
        features = self.encode(views)
        query = self.head(torch.cat(features))
        with torch.no_grad():
            key = normalised(self.teacher(torch.cat(list(views))).float())
        first, second = key.chunk(2)
        loss = info_nce(query, torch.cat([second, first]), self.queue.keys.clone(), self.temperature)
        if self.training:
            self.queue.push(first)
        return Outcome(loss, detached(features))

    def after_step(self, progress: float) -> None:
        """Let the teacher follow."""
        follow(self.teacher, nn.Sequential(self.encoder, self.head), self.settings["momentum"])
