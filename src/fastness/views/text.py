"""Views of texts: tokens left out, swapped, masked, or a span alone; and dropout, which the network adds itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fastness.data.items import Items
from fastness.data.text import PADDING
from fastness.views.views import VIEWS, Probability, Share, Views, ViewSpec

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed number


class TextView(ViewSpec):
    """One kind of view: a span, tokens deleted, shuffled, masked, in this order; first and last marks stay.

    With all at their defaults a view is the text itself, and two views differ by the network's dropout alone: SimCSE
    (Gao et al. 2021, arXiv 2104.08821).

    Attributes:
        count: how many views of this kind an item gets.
        span: share of the text's tokens that a random contiguous span keeps.
        delete: probability that a token is left out; one always stays.
        shuffle: probability that a token takes part in a random exchange of places.
        mask: probability that a token becomes the mask token.
    """

    span: Share = 1.0
    delete: Probability = 0.0
    shuffle: Probability = 0.0
    mask: Probability = 0.0


@VIEWS.register("text")
class TextViews(Views):
    """Makes the views of a batch of tokens.

    Args:
        specs: the kinds of views.
        special: numbers of the tokens that stand for no word.
        mask: number of the mask token, if there is one.
    """

    usual = (TextView(count=2, delete=0.1),)
    plain = (TextView(count=1),)
    probe = (TextView(count=2, delete=0.2),)

    def __init__(self, specs: Sequence[TextView], special: Sequence[int] = (), mask: int | None = None) -> None:
        super().__init__(specs)
        self.special = torch.tensor(sorted(special), dtype=torch.int32)
        self.mask = mask

    @classmethod
    def make(cls, specs: Sequence[TextView], encoder: Any, items: Items | None) -> TextViews:
        """See `Views.make`."""
        special = encoder.special
        mask = next((special[name] for name in ("[MASK]", "<mask>") if name in special), special.get("[UNK]"))
        return cls(specs, list(special.values()), mask)

    def __call__(
        self, batch: torch.Tensor, generator: torch.Generator, first: int = 0, whole: int | None = None
    ) -> list[torch.Tensor]:
        """Return views of int32 ``[B, L]``: int32, all of one width, -1 behind the end."""
        whole = len(batch) if whole is None else whole
        views = []
        for spec in self.specs:
            for _ in range(spec.count):
                keys = torch.randint(1 << 62, (whole, 4), generator=generator, device=batch.device)
                views.append(self._view(batch, spec, keys[first : first + len(batch)]))
        widest = max(int((view >= 0).sum(1).max()) for view in views)
        return [view[:, : max(1, widest)] for view in views]

    def _view(self, tokens: torch.Tensor, spec: TextView, keys: torch.Tensor) -> torch.Tensor:
        width = tokens.shape[1]
        word = (tokens >= 0) & ~torch.isin(tokens, self.special.to(tokens.device))
        kept = tokens >= 0
        if spec.span < 1:
            kept &= ~word | _span(word, spec.span, uniform(keys[:, 0], 1)[:, 0])
        if spec.delete:
            lots = uniform(keys[:, 1], width).masked_fill(~(word & kept), -1.0)
            kept &= ~word | (lots > spec.delete) | (lots == lots.amax(1, keepdim=True))
        if spec.shuffle:
            tokens = _shuffled(tokens, word & kept & (uniform(keys[:, 2], width) < spec.shuffle), keys[:, 2])
        if spec.mask and self.mask is not None:
            hidden = word & (uniform(keys[:, 3], width) < spec.mask)
            tokens = tokens.masked_fill(hidden, self.mask)
        order = (~kept).to(torch.int8).argsort(dim=1, stable=True)
        return tokens.masked_fill(~kept, PADDING).gather(1, order)


def uniform(keys: torch.Tensor, width: int) -> torch.Tensor:
    """Return float64 ``[B, width]`` in [0, 1): place j of a row depends on the row's key and j alone.

    So a text gets the same views however long the others of its batch are. Steele et al. 2014, SplitMix64.

    Args:
        keys: int64 ``[B]``.
    """
    state = keys[:, None] + (torch.arange(width, device=keys.device) + 1) * _GOLDEN
    state = (state ^ _shifted(state, 30)) * -4658895280553007687
    state = (state ^ _shifted(state, 27)) * -7723592293110705685
    return _shifted(state ^ _shifted(state, 31), 11).double() / (1 << 53)


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """Shift int64 right as if it were unsigned."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _span(word: torch.Tensor, share: float, at: torch.Tensor) -> torch.Tensor:
    """Return which words bool ``[B, L]`` lie in a span of ``share`` of them that begins at the share ``at`` ``[B]``."""
    place = word.cumsum(1) - 1
    words = word.sum(1)
    length = (share * words).ceil().clamp_min(1)
    begin = (at * (words - length + 1)).floor()
    return word & (place >= begin[:, None]) & (place < (begin + length)[:, None])


def _shuffled(tokens: torch.Tensor, movable: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Return tokens int32 ``[B, L]`` with those at ``movable`` exchanged among themselves at random."""
    lots = uniform(keys ^ _GOLDEN, tokens.shape[1])
    place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    homes = torch.where(movable, place, tokens.shape[1]).argsort(dim=1, stable=True)  # movable places, in order
    guests = torch.where(movable, lots, 2.0).argsort(dim=1, stable=True)  # movable places, at random
    out = tokens.clone()
    number = movable.sum(1, keepdim=True)
    moving = place < number
    source = tokens.gather(1, guests)
    stay = tokens.gather(1, homes)
    return out.scatter(1, homes, torch.where(moving, source, stay))
