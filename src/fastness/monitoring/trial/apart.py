"""How far two versions are apart on the same items: numbers an item, the larger the further."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastness.monitoring.window import Array, Floats


def disagreement(before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> Array:
    """Return of each item the share of its nearest that are not among those of the other version, float64 ``[N]``.

    Sets of ids can be compared where vectors cannot: each version has an index of its own, of the same items.

    Args:
        before, after: by item the ids of its nearest items, as many by both.
    """
    kept = [
        len(set(ours) & set(theirs)) / max(len(ours), len(theirs), 1)
        for ours, theirs in zip(before, after, strict=True)
    ]
    return 1.0 - np.array(kept, np.float64)


def distance(before: Floats, after: Floats) -> Array:
    """Return 1 less the cosine of two embeddings an item, float64 ``[N]``, 0.5 at most; both ``[N, D]``, length 1."""
    found: Array = np.clip(1.0 - (before.astype(np.float64) * after).sum(1), 0.0, 0.5)
    return found


def stranger(before: Array, after: Array) -> Array:
    """Return how much stranger items are to the candidate, from their ranks, see `Strangeness`; 0.5 at most.

    What is far off is as bad at 0.5 as at 1, and bets on what varies less may be bolder.
    """
    found: Array = np.clip(after - before, -0.5, 0.5)
    return found


class Strangeness:
    """How far items lie from what a version was made for, as a rank that can be compared with another version's.

    The similarity of an item to its nearest reference is ranked among those that references have to one another: half
    of what is like them ranks above 0.5, whatever the space.

    Args:
        reference: float32 ``[M, D]``, length 1; two at least.
    """

    def __init__(self, reference: Floats) -> None:
        self._reference = reference
        similar = reference @ reference.T
        np.fill_diagonal(similar, -1.0)
        self._sorted = np.sort(similar.max(1))

    def ranks(self, vectors: Floats) -> Array:
        """Return of each of ``[N, D]`` the share of references that lie closer to the others, float64 ``[N]``."""
        nearest = (vectors @ self._reference.T).max(1)
        found: Array = 1.0 - np.searchsorted(self._sorted, nearest, side="right") / len(self._sorted)
        return found
