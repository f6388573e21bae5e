"""Pairs: the sides of one thing should find each other among the sides of all others.

The loss of CLIP (Radford et al. 2021, arXiv 2103.00020) for sides with an encoder each, and of Sentence-BERT's
successors (multiple negatives ranking, Henderson et al. 2017, arXiv 1705.00652) where they share one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch

from fastness.core import distributed
from fastness.core.options import Option
from fastness.losses.pairs import between
from fastness.losses.precision import normalised
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults, Found, Known, Outcome, outcome
from fastness.methods.contrastive import Contrastive


@METHODS.register("pairs")
class PairedSides(Contrastive):
    """Encoder of each side, any loss on pairs, both ways."""

    about = About(
        "the sides of one thing find each other among those of all others",
        "Radford et al. 2021, arXiv 2103.00020; Henderson et al. 2017, arXiv 1705.00652",
        "one forward and backward of every side",
        "pairs: question and answer, picture and caption, text and translation; negatives as a third side",
    )
    defaults = Defaults(temperature=0.05)
    options: ClassVar[Mapping[str, Option]] = {
        **{k: v for k, v in Contrastive.options.items() if k not in ("mask", "threshold", "neighbours", "memory")},
        "projection": replace(Contrastive.options["projection"], default=0),
        "mask": Option("none", choices=("none",), help="negatives are those of other things; give --group for keys"),
        "memory": Option(0, 0, 0, help="not with sides"),
        "negatives": Option(0, 0, 8, help="so many of the last sides are of other things, as hard negatives"),
    }
    sides = 2
    by_key = True  # of groups, if they are given

    def compare(self, found: Found, known: Known) -> Outcome:
        """See `Method.compare`."""
        sides = list(found["z"].unbind(1))
        wrong = self.settings["negatives"]
        right, others = sides[: len(sides) - wrong], sides[len(sides) - wrong :]
        further = torch.cat([distributed.gathered(normalised(z)) for z in others]) if others else None
        keys = self.keys(len(found["z"]), Known(groups=known.groups), found["z"].device)
        scale = self.current_scale()
        losses = [
            self.loss(between(x, y, keys, further), scale)
            for i, x in enumerate(right)
            for j, y in enumerate(right)
            if i != j
        ]
        with torch.no_grad():
            watch = {"matched": _matched(right[0], right[1])}
        return outcome(torch.stack(losses).mean(), found, **watch, **self._watched(scale))


def _matched(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the share of items whose first side is nearest to its own second side, of this process's items."""
    nearest = (normalised(x) @ normalised(y).T).argmax(1)
    return (nearest == torch.arange(len(x), device=x.device)).float().mean()
