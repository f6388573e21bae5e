"""SupCon: items of one class (or group) should be near, all others far; items without a label have only themselves.

Khosla et al. 2020, arXiv 2004.11362.
"""

from __future__ import annotations

from fastness.methods import METHODS
from fastness.methods.base import About, Defaults
from fastness.methods.contrastive import Contrastive


@METHODS.register("supcon")
class SupCon(Contrastive):
    """Encoder, projection head, and a loss whose positives are all views of the class."""

    about = About(
        "items of a class find each other among all others",
        "Khosla et al. 2020, arXiv 2004.11362",
        "as simclr",
        "many labels, or pairs that belong together (--group); some items may be unlabelled",
    )
    defaults = Defaults(temperature=0.1, together=4)
    needs = ("labels", "groups")
    by_key = True
