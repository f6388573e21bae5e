"""SimCLR: two views of an item should be nearer to each other than to any other item of the batch.

Chen et al. 2020, arXiv 2002.05709.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from fastness.encoders import Encoder
from fastness.encoders.heads import mlp
from fastness.losses.nt_xent import nt_xent
from fastness.methods import METHODS
from fastness.methods.base import Defaults, Method, Outcome, detached
from fastness.views.image import ViewSpec


@METHODS.register("simclr")
class SimCLR(Method):
    """Encoder, projection head, NT-Xent."""

    defaults = Defaults(
        views=(ViewSpec(scale=(0.2, 1.0)),),
        batch_size=256,
        lr=0.06,
        temperature=0.2,
        scarce={"batch_size": 64, "lr": 0.06, "views": {"count": 4, "size": 0.5}},
    )
    options: ClassVar[dict[str, Any]] = {"projection": 128, "hidden": 512}

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__(encoder, temperature, classes, **options)
        self.head = mlp(encoder.dim, self.settings["hidden"], self.settings["projection"])

    def forward(self, views: Sequence[torch.Tensor], labels: torch.Tensor | None = None) -> Outcome:
        """See `Method.forward`."""
        features = self.encode(views)
        z = self.head(torch.cat(features))
        return Outcome(nt_xent(z, len(views), self.temperature), detached(features))
