"""SimCLR: two views of an item should be nearer to each other than to any other item of the batch.

Chen et al. 2020, arXiv 2002.05709.
"""

from __future__ import annotations

from fastness.methods import METHODS
from fastness.methods.base import About, Defaults, scarce
from fastness.methods.contrastive import Contrastive


@METHODS.register("simclr")
class SimCLR(Contrastive):
    """Encoder, projection head, and a loss whose positives are an item's other views."""

    about = About(
        "views of an item find each other among all others",
        "Chen et al. 2020, arXiv 2002.05709",
        "one forward and backward of all views",
        "no labels; the robust first choice, also on a CPU",
    )
    defaults = Defaults(
        batch_size=256,
        lr=0.06,
        temperature=0.2,
        scarce=scarce(count=4, temperature=0.15),
    )
