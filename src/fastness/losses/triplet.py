"""Triplets: an anchor should be nearer to a positive than to a negative, by a margin; mined in the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch.utils.checkpoint import checkpoint

from fastness.core import distributed
from fastness.core.errors import BadInput
from fastness.core.options import Option
from fastness.losses import LOSSES
from fastness.losses.base import Loss
from fastness.losses.pairs import Pairs, extremes
from fastness.losses.precision import in_float32
from fastness.losses.stream import chunks, logits_of

Sum = tuple[torch.Tensor, torch.Tensor]  # of the active triplets' losses, and their number
_NEAREST = 1e-12  # squared distance below which two vectors have no direction apart


@in_float32
def triplet(pairs: Pairs, margin: float = 0.2, mining: str = "semi-hard") -> torch.Tensor:
    """Return the mean of ``max(0, d_ap - d_an + margin)`` over the triplets that are mined and above 0.

    ``d`` is the distance of unit vectors. Equal vectors everywhere give the margin. Mining:

    * ``all``: every triplet of the batch; Hermans et al. 2017 (arXiv 1703.07737), section 2, batch all;
    * ``hard``: each anchor with its furthest positive and nearest negative; same, equation 5;
    * ``semi-hard``: each positive pair with the nearest negative that is further than the positive, or the furthest
      negative if none is; Schroff et al. 2015 (FaceNet, arXiv 1503.03832), section 3.2.

    No triplet is ever listed: rows are sorted, and ``all`` is counted with prefix sums.

    Raises:
        BadInput: unknown mining.
    """
    dtype, pairs = pairs.anchors.dtype, pairs.in_float64()
    if mining == "hard":
        total, number = _hard(pairs, margin)
    elif mining in _MINED:
        parts = [
            checkpoint(_MINED[mining], pairs.anchors, pairs.candidates, pairs, margin, rows, use_reentrant=False)
            for rows in chunks(len(pairs.anchors), 8 * len(pairs.candidates))  # sorting holds several copies
        ]
        total, number = (torch.stack(values).sum() for values in zip(*parts, strict=True))
    else:
        raise BadInput(f"loss option mining = {mining!r}; known: hard, {', '.join(_MINED)}")
    return (total * distributed.size() / distributed.total(number).clamp_min(1)).to(dtype)


def _hard(pairs: Pairs, margin: float) -> Sum:
    near, negative = extremes(pairs, pairs.negatives)
    far, positive = extremes(replace(pairs, anchors=-pairs.anchors), pairs.positives)
    there = near.isfinite() & far.isfinite()
    anchors = pairs.anchors[there]
    to_positive = _distance((anchors * pairs.candidates[positive[there]]).sum(1))
    to_negative = _distance((anchors * pairs.candidates[negative[there]]).sum(1))
    return _active(to_positive - to_negative + margin)


def _all(a: torch.Tensor, b: torch.Tensor, pairs: Pairs, margin: float, rows: slice) -> Sum:
    """Sum over the chunk: a positive at distance d has as many active negatives as are nearer than d + margin."""
    positive_row, limit = _positives(a, b, pairs, rows)
    limit = limit + margin
    ordered = _negatives(a, b, pairs, rows)
    numbers = _left_of(ordered, positive_row, limit)
    sums = ordered.masked_fill(ordered.isinf(), 0).cumsum(1)
    sums = torch.cat([sums.new_zeros(len(sums), 1), sums], 1)[positive_row, numbers]
    return (numbers * limit - sums).sum(), numbers.sum().to(a.dtype)


def _semi_hard(a: torch.Tensor, b: torch.Tensor, pairs: Pairs, margin: float, rows: slice) -> Sum:
    positive_row, to_positive = _positives(a, b, pairs, rows)
    ordered = _negatives(a, b, pairs, rows)
    there = ordered.isfinite().sum(1)[positive_row]
    place = _left_of(ordered, positive_row, to_positive, strictly=False)
    place = torch.minimum(place, there - 1).clamp_min(0)
    to_negative = ordered[positive_row, place]
    return _active((to_positive - to_negative + margin)[there > 0])


_MINED: dict[str, Callable[..., Sum]] = {"semi-hard": _semi_hard, "all": _all}


def _positives(a: torch.Tensor, b: torch.Tensor, pairs: Pairs, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the chunk's positive pairs: row of the chunk, and distance."""
    cosines = logits_of(a, b, rows, pairs.positives)
    row, column = cosines.isfinite().nonzero(as_tuple=True)
    return row, _distance(cosines[row, column])


def _negatives(a: torch.Tensor, b: torch.Tensor, pairs: Pairs, rows: slice) -> torch.Tensor:
    """Return the chunk's distances to negatives, in ascending order in each row, then infinities."""
    cosines = logits_of(a, b, rows, pairs.negatives)
    struck = cosines.isinf()
    return torch.where(struck, float("inf"), _distance(cosines.masked_fill(struck, 0))).sort(1).values


def _left_of(ordered: torch.Tensor, row: torch.Tensor, limit: torch.Tensor, strictly: bool = True) -> torch.Tensor:
    """Return how many of ``ordered[row]`` are below ``limit`` (or not above it), for each positive pair."""
    width = int(torch.bincount(row, minlength=len(ordered)).max()) if len(row) else 0
    first = torch.searchsorted(row, torch.arange(len(ordered), device=row.device))
    column = torch.arange(len(row), device=row.device) - first[row]
    table = limit.new_zeros(len(ordered), width)
    table[row, column] = limit.detach()
    return torch.searchsorted(ordered.detach().contiguous(), table, right=not strictly)[row, column]


def _distance(cosine: torch.Tensor) -> torch.Tensor:
    return (2 - 2 * cosine).clamp_min(_NEAREST).sqrt()


def _active(values: torch.Tensor) -> Sum:
    return values.clamp_min(0).sum(), (values > 0).sum().to(values.dtype)


@LOSSES.register("triplet")
class Triplet(Loss):
    """an anchor nearer to positives than to negatives by a margin; mined in the batch"""

    options: ClassVar[Mapping[str, Option]] = {
        "margin": Option(0.2, 0, 2, help="by which a negative should be further than a positive"),
        "mining": Option("semi-hard", choices=("semi-hard", "hard", "all"), help="which triplets of the batch"),
    }
    uses_scale = False

    def forward(self, pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
        """See `triplet`."""
        return triplet(pairs, self.settings["margin"], self.settings["mining"])
