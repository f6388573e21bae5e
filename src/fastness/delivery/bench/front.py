"""The Pareto front: what nothing else beats in one respect without losing in another."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[Sequence[float]], directions: Sequence[int]) -> list[int]:
    """Return the positions of the points that no other point dominates, in their order.

    A point dominates another if it is nowhere worse and somewhere better. Equal points do not dominate each other.

    Args:
        points: a number in each respect.
        directions: of each respect 1 if more is better, -1 if less is.
    """
    turned = [[value * direction for value, direction in zip(p, directions, strict=True)] for p in points]
    return [place for place, mine in enumerate(turned) if not any(_dominates(other, mine) for other in turned)]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
