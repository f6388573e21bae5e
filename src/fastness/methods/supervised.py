"""The supervised baseline, and fine-tuning of an encoder that is given with ``--init``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fastness.core import distributed
from fastness.core.options import Option
from fastness.encoders import Encoder
from fastness.losses.precision import widened
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults, Found, Known, Method, Outcome, on_views, outcome


@METHODS.register("supervised")
class Supervised(Method):
    """Encoder, linear classifier, cross entropy; items without a label are passed over."""

    about = About(
        "a linear classifier on the encoder, cross entropy",
        "the baseline",
        "one forward and backward of one view",
        "labels for all; with --init BUNDLE it is fine-tuning",
    )
    defaults = Defaults(batch_size=128, lr=0.1, temperature=None, epochs=30)
    options: ClassVar[Mapping[str, Option]] = {"smoothing": Option(0.0, 0, 0.99, help="of the labels")}
    needs = ("labels",)
    learning = "logits"
    views_taken = (1, 1 << 30)

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__(encoder, temperature, classes, **options)
        self.classifier = nn.Linear(encoder.dim, classes)

    def represent(self, views: Sequence[torch.Tensor]) -> Found:
        """See `Method.represent`."""
        features = self.encode(views)
        return {"logits": on_views(self.classifier, features), "features": features.detach()}

    def compare(self, found: Found, known: Known) -> Outcome:
        """See `Method.compare`."""
        assert known.labels is not None
        logits = widened(found["logits"]).flatten(0, 1)
        target = known.labels.repeat_interleave(found["logits"].shape[1])
        smoothing = self.settings["smoothing"]
        losses = F.cross_entropy(logits, target, ignore_index=-1, label_smoothing=smoothing, reduction="none")
        right = (logits.argmax(1) == target).float()
        return outcome(
            distributed.mean(losses, target >= 0), found, accuracy=distributed.mean(right, target >= 0).detach()
        )
