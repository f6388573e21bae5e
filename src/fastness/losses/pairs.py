"""Which pairs are positive, which negative, and which are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from fastness.core import distributed
from fastness.losses.precision import in_float32, normalised
from fastness.losses.stream import Rule, chunks, logits_of

NOBODY = -1
"""Key of a candidate that is nobody's positive, and of an unknown label."""


@dataclass(frozen=True)
class Pairs:
    """Anchors, the candidates that each is compared with, and what is known of them.

    Two vectors with the same key are a positive pair, all others are negative pairs.

    Attributes:
        anchors: float ``[N, D]``, unit length.
        candidates: float ``[M, D]``, unit length.
        anchor_keys, candidate_keys: int64 ``[N]`` and ``[M]``; `NOBODY` is nobody's positive.
        first: anchor ``i`` is candidate ``first + i`` itself, a pair that never counts; ``None`` if anchors are
            not among the candidates.
        ignored: rules that strike out negatives which may be false; they must leave positives alone.
    """

    anchors: torch.Tensor
    candidates: torch.Tensor
    anchor_keys: torch.Tensor
    candidate_keys: torch.Tensor
    first: int | None = None
    ignored: tuple[Rule, ...] = field(default=())

    @property
    def itself(self) -> tuple[Rule, ...]:
        """The rule against comparing an anchor with itself."""
        return () if self.first is None else (NotItself(self.first),)

    @property
    def others(self) -> tuple[Rule, ...]:
        """Rules that leave positives and negatives."""
        return (*self.itself, *self.ignored)

    @property
    def negatives(self) -> tuple[Rule, ...]:
        """Rules that leave the negatives only."""
        return (*self.itself, OnlyNegatives(self.anchor_keys, self.candidate_keys), *self.ignored)

    @property
    def positives(self) -> tuple[Rule, ...]:
        """Rules that leave the positives only."""
        return (*self.itself, OnlyPositives(self.anchor_keys, self.candidate_keys))

    def in_float64(self) -> Pairs:
        """Return the same pairs in float64, for losses on distances.

        The distance of unit vectors comes from one minus their cosine, which leaves float32 no digits for near ones.
        """
        return replace(self, anchors=normalised(self.anchors.double()), candidates=normalised(self.candidates.double()))

    def positive_counts(self) -> torch.Tensor:
        """Return how many positives each anchor has, int64 ``[N]``."""
        anchors, candidates, keys = self._places()
        counts = torch.bincount(candidates, minlength=keys)[anchors] - int(self.first is not None)
        return counts.masked_fill(self.anchor_keys == NOBODY, 0)

    def positive_means(self, scale: torch.Tensor | float) -> torch.Tensor:
        """Return the mean of ``scale * anchor . positive`` over each anchor's positives, float ``[N]``.

        A sum of products is the product with a sum, so no pair is ever listed. 0 where there is no positive.
        """
        anchors, candidates, keys = self._places()
        sums = self.candidates.new_zeros(keys, self.candidates.shape[1]).index_add(0, candidates, self.candidates)
        near = sums[anchors]
        if self.first is not None:
            near = near - self.candidates[self.first : self.first + len(self.anchors)]
        counts = self.positive_counts()[:, None]
        return scale * (self.anchors * torch.where(counts > 0, near / counts.clamp_min(1), 0.0)).sum(1)

    def _places(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return anchors' and candidates' places among the distinct keys, and the number of these."""
        keys, places = torch.unique(torch.cat([self.anchor_keys, self.candidate_keys]), return_inverse=True)
        anchors, candidates = places.split([len(self.anchors), len(self.candidates)])
        return anchors, candidates, len(keys)


@in_float32
def among(z: torch.Tensor, keys: torch.Tensor, memory: tuple[torch.Tensor, torch.Tensor] | None = None) -> Pairs:
    """Compare the vectors of a batch with each other, over all processes.

    Args:
        z: float ``[N, D]``, any length: this process's part.
        keys: int64 ``[N]``; equal keys are positives, on whichever process they are.
        memory: further candidates, unit float ``[K, D]``, and their keys.
    """
    z = normalised(z)
    candidates, candidate_keys = distributed.gathered(z), distributed.gathered(keys)
    if memory is not None:
        candidates = torch.cat([candidates, memory[0].to(z.dtype)])
        candidate_keys = torch.cat([candidate_keys, memory[1]])
    return Pairs(z, candidates, keys, candidate_keys, distributed.rank() * len(z))


@in_float32
def between(x: torch.Tensor, y: torch.Tensor, keys: torch.Tensor, queue: torch.Tensor | None = None) -> Pairs:
    """Compare the vectors of one side with those of the other, over all processes.

    Args:
        x: anchors, float ``[N, D]``; y: candidates, float ``[N, D]``; any length.
        keys: int64 ``[N]``, of both.
        queue: further candidates, unit float ``[K, D]``, nobody's positives.
    """
    candidates, candidate_keys = distributed.gathered(normalised(y)), distributed.gathered(keys)
    if queue is not None:
        candidates = torch.cat([candidates, queue.to(candidates.dtype)])
        candidate_keys = torch.cat([candidate_keys, candidate_keys.new_full((len(queue),), NOBODY)])
    return Pairs(normalised(x), candidates, keys, candidate_keys)


@dataclass(frozen=True)
class NotItself:
    """Strikes out an anchor's own place among the candidates."""

    first: int

    def __call__(self, logits: torch.Tensor, rows: slice) -> None:
        """See `Rule`."""
        logits.diagonal(self.first + rows.start).fill_(float("-inf"))


@dataclass(frozen=True)
class OnlyPositives:
    """Strikes out pairs of different keys."""

    anchor_keys: torch.Tensor
    candidate_keys: torch.Tensor

    def __call__(self, logits: torch.Tensor, rows: slice) -> None:
        """See `Rule`."""
        logits.masked_fill_(~_same(self.anchor_keys[rows], self.candidate_keys), float("-inf"))


@dataclass(frozen=True)
class OnlyNegatives:
    """Strikes out pairs of the same key."""

    anchor_keys: torch.Tensor
    candidate_keys: torch.Tensor

    def __call__(self, logits: torch.Tensor, rows: slice) -> None:
        """See `Rule`."""
        logits.masked_fill_(_same(self.anchor_keys[rows], self.candidate_keys), float("-inf"))


@dataclass(frozen=True)
class Above:
    """Strikes out pairs whose logit is not above the anchor's bound, float ``[N]``."""

    bounds: torch.Tensor

    def __call__(self, logits: torch.Tensor, rows: slice) -> None:
        """See `Rule`."""
        logits.masked_fill_(logits <= self.bounds[rows, None], float("-inf"))


def _same(anchor_keys: torch.Tensor, candidate_keys: torch.Tensor) -> torch.Tensor:
    same = anchor_keys[:, None] == candidate_keys
    return same & (anchor_keys != NOBODY)[:, None]


# --- negatives that may be false ------------------------------------------------------------------


@dataclass(frozen=True)
class SameSecond:
    """Strikes out negatives that share a second key: a label, or a key of duplicates.

    Attributes:
        pairs: their own keys say what is positive.
        anchor_seconds, candidate_seconds: int64 ``[N]``, ``[M]``; `NOBODY` is unknown.
    """

    pairs: Pairs
    anchor_seconds: torch.Tensor
    candidate_seconds: torch.Tensor

    def __call__(self, logits: torch.Tensor, rows: slice) -> None:
        """See `Rule`."""
        positive = _same(self.pairs.anchor_keys[rows], self.pairs.candidate_keys)
        logits.masked_fill_(_same(self.anchor_seconds[rows], self.candidate_seconds) & ~positive, float("-inf"))


@dataclass(frozen=True)
class Similar:
    """Strikes out negatives whose evidence is more similar than a threshold.

    An anchor to whom more than half of its negatives look alike has collapsed rather than found duplicates;
    it keeps them all, so that a collapsed batch is never excused.

    Attributes:
        anchor_evidence, candidate_evidence: unit float ``[N, E]``, ``[M, E]``, detached.
        threshold: cosine in [-1, 1].
    """

    pairs: Pairs
    anchor_evidence: torch.Tensor
    candidate_evidence: torch.Tensor
    threshold: float

    def __call__(self, logits: torch.Tensor, rows: slice) -> None:
        """See `Rule`."""
        negative = ~_same(self.pairs.anchor_keys[rows], self.pairs.candidate_keys)
        alike = (self.anchor_evidence[rows] @ self.candidate_evidence.T > self.threshold) & negative
        alike &= (2 * alike.sum(1) <= negative.sum(1))[:, None]
        logits.masked_fill_(alike, float("-inf"))


class Neighbours:
    """Strikes out negatives that are among the ``k`` nearest of each other, by their evidence.

    Agreement of both sides is rare by chance among items that differ, and an anchor loses at most ``k`` items.

    Args:
        pairs: their own keys say what is positive.
        evidence: unit float ``[I, E]``, detached; one vector an item.
        anchor_items, candidate_items: int64 ``[N]``, ``[M]``: the item that each is a view of.
        k: how many.
    """

    def __init__(
        self, pairs: Pairs, evidence: torch.Tensor, anchor_items: torch.Tensor, candidate_items: torch.Tensor, k: int
    ) -> None:
        nearest = nearest_others(evidence, k)
        mine = torch.arange(len(evidence), device=evidence.device)[:, None, None]
        agreed = (nearest[nearest] == mine).any(2)  # [I, k]: am I among the nearest of my nearest?
        self._friends = torch.where(agreed, nearest, -2)
        self._pairs, self._anchor_items, self._candidate_items = pairs, anchor_items, candidate_items

    def __call__(self, logits: torch.Tensor, rows: slice) -> None:
        """See `Rule`."""
        positive = _same(self._pairs.anchor_keys[rows], self._pairs.candidate_keys)
        friends = self._friends[self._anchor_items[rows]]
        for column in friends.T:
            friendly = column[:, None] == self._candidate_items
            logits.masked_fill_(friendly & ~positive, float("-inf"))


@torch.no_grad()
def nearest_others(vectors: torch.Tensor, k: int) -> torch.Tensor:
    """Return the ``k`` nearest others of each row by cosine, int64 ``[I, k]``; fewer where there are fewer."""
    k = min(k, len(vectors) - 1)
    found = torch.empty(len(vectors), k, dtype=torch.long, device=vectors.device)
    for rows in chunks(len(vectors), len(vectors)):
        near = vectors[rows] @ vectors.T
        near.diagonal(rows.start).fill_(float("-inf"))
        found[rows] = near.topk(k, 1).indices
    return found


def extremes(pairs: Pairs, rules: Sequence[Rule]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the most similar candidate that the rules leave: its cosine, float ``[N]``, and its place, int64 ``[N]``.

    Minus infinity where none is left. No gradient: it says which pair, not how near.
    """
    value = pairs.anchors.new_empty(len(pairs.anchors))
    place = torch.empty(len(pairs.anchors), dtype=torch.long, device=value.device)
    with torch.no_grad():
        for rows in chunks(len(pairs.anchors), len(pairs.candidates)):
            value[rows], place[rows] = logits_of(pairs.anchors, pairs.candidates, rows, rules).max(1)
    return value, place
