"""Prediction tasks: guess what was hidden of an item, or say the item again from its vector.

Devlin et al. 2019 (arXiv 1810.04805) for masked tokens; Wang et al. 2021 (TSDAE, arXiv 2104.06979) for denoising.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from fastness.core import distributed
from fastness.core.errors import BadInput
from fastness.encoders import Encoder
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults, Found, Known, Method, Outcome, outcome


class Pretext(Method):
    """Encoder and the part that its modality has for the task; the mean error of the items is the loss."""

    task: ClassVar[str]
    learning = "error"
    views_taken = (1, 1)

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__(encoder, temperature, classes, **options)
        if encoder.spec.projection:
            raise BadInput(f"--method {self.task}: learns behind the network itself; start from a bundle not narrowed")
        self.predictor = encoder.pretext(self.task)

    def represent(self, views: Sequence[torch.Tensor]) -> Found:
        """See `Method.represent`."""
        self.check_views(len(views))
        features, error = self.predictor(self.encoder, views[0])
        return {"error": error, "features": features.detach()[:, None]}

    def compare(self, found: Found, known: Known) -> Outcome:
        """See `Method.compare`."""
        there = torch.ones_like(found["error"], dtype=torch.bool)
        return outcome(distributed.mean(found["error"], there), found)


@METHODS.register("masked")
class Masked(Pretext):
    """Hide some words; predict them from the others."""

    about = About(
        "predict hidden words from the others",
        "Devlin et al. 2019, arXiv 1810.04805",
        "one forward and backward of one view, and a layer over the vocabulary",
        "a first stage before contrast, on much text of a domain; its vectors alone compare badly",
    )
    defaults = Defaults(temperature=None)
    task = "masked"


@METHODS.register("denoise")
class Denoise(Pretext):
    """Leave out most tokens; a small decoder says the whole text again from the text's one vector."""

    about = About(
        "say a damaged text again from its vector alone",
        "Wang et al. 2021 (TSDAE), arXiv 2104.06979",
        "one forward and backward, and those of a decoder of one layer",
        "no labels, texts of a domain, a transformer that has not learnt to compare sentences; slower than simclr",
    )
    defaults = Defaults(temperature=None)
    task = "denoise"
