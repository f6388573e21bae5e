"""Which parts of a network are left as they are, because their bits are worth more than their bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Lost = Callable[[set[str]], float]


def left_alone(places: Mapping[str, int], lost: Lost, bearable: float, roughly: Lost | None = None) -> list[str]:
    """Return as few places as bring the loss below what is bearable, those first that cost most for their size.

    Args:
        places: how many numbers each holds.
        lost: what is lost when all places but these are narrow; less is better.
        bearable: the loss that is aimed at.
        roughly: the same by fewer items, which is enough to put places in order; ``None``: ``lost``.

    Each place is measured once, narrow alone. The places that lose most a number are then left alone, as many as are
    needed; how many is found by bisection, which takes losses to fall with every place that is left.
    """
    if lost(set()) <= bearable:
        return []
    rough = lost if roughly is None else roughly
    alone = {place: rough(set(places) - {place}) for place in places}
    order = sorted(places, key=lambda place: -alone[place] / places[place])
    low, high = 0, len(order)  # order[:low] is not enough, order[:high] is, or is all there is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if lost(set(order[:middle])) <= bearable else (middle, high)
    return order[:high]
