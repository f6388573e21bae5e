"""Semi-supervised mixture: every item finds its other views, and the labelled ones their class too.

SimCLR's loss on all items plus SupCon's on the labelled (Chen et al. 2020, arXiv 2002.05709; Khosla et al. 2020,
arXiv 2004.11362). An unlabelled item may be of any class, so it takes no part in the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch

from fastness.core import distributed
from fastness.core.options import Option
from fastness.losses.pairs import among
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults, Found, Known, Outcome, scarce
from fastness.methods.contrastive import Contrastive


@METHODS.register("semi")
class SemiSupervised(Contrastive):
    """Encoder, projection head, one loss used twice."""

    about = About(
        "every item finds its other views, the labelled ones their class too",
        "Khosla et al. 2020, arXiv 2004.11362; Chen et al. 2020, arXiv 2002.05709",
        "as simclr",
        "many items, few of them labelled",
    )
    defaults = Defaults(scarce=scarce(count=4, temperature=0.15))
    options: ClassVar[Mapping[str, Option]] = {
        **Contrastive.options,
        "weight": Option(0.3, 0, help="of the labelled items' loss"),
    }
    needs = ("labels",)

    def compare(self, found: Found, known: Known) -> Outcome:
        """See `Method.compare`."""
        assert known.labels is not None
        whole = super().compare(found, known)
        mine = known.labels.repeat_interleave(found["z"].shape[1])
        pairs = among(found["z"].flatten(0, 1), mine)
        pairs = replace(pairs, ignored=(OnlyKnown(mine >= 0, distributed.gathered(mine) >= 0),))
        labelled = self.loss(pairs, self.current_scale())
        return replace(
            whole,
            loss=whole.loss + self.settings["weight"] * labelled,
            watch={**whole.watch, "labelled_loss": labelled.detach()},
        )


class OnlyKnown:
    """Strikes out every pair of which one has no label; both bool, ``[N]`` and ``[M]``."""

    def __init__(self, anchors: torch.Tensor, candidates: torch.Tensor) -> None:
        self._anchors, self._candidates = anchors, candidates

    def __call__(self, logits: torch.Tensor, rows: slice) -> None:
        """See `Rule`."""
        logits.masked_fill_(~(self._anchors[rows, None] & self._candidates), float("-inf"))
