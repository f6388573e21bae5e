"""Triplet network: an anchor nearer to its positive than to any negative, by a margin.

Schroff, Kalenichenko, Philbin 2015 (FaceNet), arXiv 1503.03832; Hermans et al. 2017, arXiv 1703.07737.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from fastness.core.options import Option
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults
from fastness.methods.contrastive import Contrastive


@METHODS.register("triplet")
class TripletNetwork(Contrastive):
    """Encoder, projection head, triplet loss with mining in the batch."""

    about = About(
        "an anchor nearer to its positive than to any negative, by a margin",
        "Schroff et al. 2015, arXiv 1503.03832",
        "as simclr, and sorting in the batch",
        "labels of many classes with few items each: faces, products, places",
    )
    defaults = Defaults(together=4)
    options: ClassVar[Mapping[str, Option]] = {
        **Contrastive.options,
        "loss": replace(Contrastive.options["loss"], default="triplet"),
    }
    needs = ("labels", "groups")
    by_key = True
