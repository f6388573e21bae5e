"""Siamese network: two copies of one encoder; pairs that belong together near, others a margin apart.

Bromley et al. 1993; Hadsell, Chopra, LeCun 2006 for the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from fastness.core.options import Option
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults
from fastness.methods.contrastive import Contrastive


@METHODS.register("siamese")
class Siamese(Contrastive):
    """Encoder, projection head, margin loss on all pairs of the batch."""

    about = About(
        "pairs that belong together near, others a margin apart",
        "Hadsell, Chopra, LeCun 2006",
        "as simclr",
        "pairs or labels, and a distance with a meaning: verification, near-duplicate search",
    )
    defaults = Defaults(together=2)
    options: ClassVar[Mapping[str, Option]] = {
        **Contrastive.options,
        "loss": replace(Contrastive.options["loss"], default="margin"),
    }
    needs = ("labels", "groups")
    by_key = True
