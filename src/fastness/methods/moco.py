"""MoCo v2: a query should find its key, made by a slowly moving encoder, among a queue of older keys.

He et al. 2020, arXiv 1911.05722; Chen et al. 2020, arXiv 2003.04297. Both views take both parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from fastness.core import distributed
from fastness.core.options import Option
from fastness.encoders import Encoder
from fastness.encoders.heads import mlp
from fastness.losses.nt_xent import info_nce
from fastness.losses.precision import normalised
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults, Found, Known, Method, Outcome, on_views, outcome, scarce
from fastness.methods.momentum import Queue, Teacher


@METHODS.register("moco")
class MoCo(Method):
    """Encoder and head, their momentum copies, a queue, InfoNCE."""

    about = About(
        "a query finds its key among a queue of older keys",
        "He et al. 2020, arXiv 1911.05722; v2: arXiv 2003.04297",
        "one forward and backward, one forward of the teacher",
        "no labels; small batches, many negatives wanted",
    )
    defaults = Defaults(batch_size=256, lr=0.06, temperature=0.1, scarce=scarce())
    options: ClassVar[Mapping[str, Option]] = {
        "projection": Option(128, 1, help="length of the keys"),
        "hidden": Option(512, 1, help="width of the projection head"),
        "queue": Option(4096, 1, help="how many older keys are negatives"),
        "momentum": Option(0.99, 0, 0.99999, help="share of itself that the teacher keeps at each step"),
    }
    learning = "query"
    views_taken = (2, 2)

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__(encoder, temperature, classes, **options)
        self.head = mlp(encoder.dim, self.settings["hidden"], self.settings["projection"])
        self.teacher = Teacher(self.encoder, self.head)
        self.queue = Queue(self.settings["queue"], self.settings["projection"])

    def represent(self, views: Sequence[torch.Tensor]) -> Found:
        """See `Method.represent`."""
        features = self.encode(views)
        keys = on_views(normalised, self.teacher.of_views(views))
        return {"query": on_views(self.head, features), "key": keys, "features": features.detach()}

    def compare(self, found: Found, known: Known) -> Outcome:
        """See `Method.compare`."""
        query, other = found["query"].flatten(0, 1), found["key"].flip(1).flatten(0, 1)
        loss = info_nce(query, other, self.queue.keys.clone(), self.temperature)
        if self.training:
            self.queue.push(distributed.gathered(found["key"][:, 0].contiguous()))
        return outcome(loss, found)

    def after_step(self, progress: float) -> None:
        """Let the teacher follow."""
        self.teacher.follow(self.settings["momentum"])
