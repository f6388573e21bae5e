"""The supervised baseline, and fine-tuning of an encoder that is given with ``--init``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fastness.encoders import Encoder
from fastness.methods import METHODS
from fastness.methods.base import Defaults, Method, Outcome, detached
from fastness.views.image import ViewSpec


@METHODS.register("supervised")
class Supervised(Method):
    """Encoder, linear classifier, cross entropy; items without a label are passed over."""

    defaults = Defaults(
        views=(ViewSpec(count=1, scale=(0.4, 1.0), jitter=0.0, gray=0.0),), batch_size=128, lr=0.1, epochs=30
    )
    options: ClassVar[dict[str, Any]] = {"smoothing": 0.0}
    needs_labels = True
    views_taken = (1, 1 << 30)

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__(encoder, temperature, classes, **options)
        self.classifier = nn.Linear(encoder.dim, classes)

    def forward(self, views: Sequence[torch.Tensor], labels: torch.Tensor | None = None) -> Outcome:
        """See `Method.forward`."""
        assert labels is not None
        features = self.encode(views)
        logits = self.classifier(torch.cat(features)).float()
        target = labels.repeat(len(views))
        known = (target >= 0).sum().clamp_min(1)
        smoothing = self.settings["smoothing"]
        loss = F.cross_entropy(logits, target, ignore_index=-1, label_smoothing=smoothing, reduction="sum") / known
        accuracy = (logits.argmax(1) == target).sum() / known
        return Outcome(loss, detached(features), {"accuracy": accuracy.detach()})
