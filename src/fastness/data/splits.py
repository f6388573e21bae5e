"""Splits: found by name, or cut at random with classes in proportion and groups kept whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.core.seeds import numpy_generator

_CANONICAL = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validation", "dev"), "validation")


def is_split(name: str) -> bool:
    """Whether a folder or file of this name is a split rather than a class."""
    return name.lower() in _CANONICAL


def canonical(name: str) -> str:
    """Return the one spelling of a split's name (``val`` is ``validation``)."""
    return _CANONICAL.get(name.lower(), name)


def cut(
    n: int,
    share: float,
    seed: int,
    *,
    labels: npt.NDArray[np.int64] | None = None,
    groups: npt.NDArray[np.str_] | None = None,
) -> npt.NDArray[np.bool_]:
    """Choose about ``share`` of ``n`` items at random.

    With ``groups`` whole groups are chosen that bring the number nearer to the share; else with ``labels`` each
    class gives its share (at least one item if it has two); else items are drawn freely.

    Returns:
        a boolean mask ``[n]`` of the chosen items.

    Raises:
        BadInput: the share is not between 0 and 1, or nothing can be divided.
    """
    if not 0 < share < 1:
        raise BadInput(f"a share of {share} cannot be cut off; choose one between 0 and 1")
    if n < 2:
        raise BadInput(f"{n} item(s) cannot be divided into two splits; add more data")
    generator = numpy_generator(seed, "split")
    chosen = np.zeros(n, dtype=bool)
    if groups is not None:
        names, member = np.unique(groups, return_inverse=True)
        if len(names) < 2:
            raise BadInput("all items belong to one group, which cannot be divided; choose another --group")
        sizes = np.bincount(member)
        taken, total = [], 0
        for group in generator.permutation(len(names)):
            nearer = abs(total + sizes[group] - share * n) < abs(total - share * n)
            if nearer and total + sizes[group] < n:
                taken.append(group)
                total += sizes[group]
        return np.isin(member, taken or [sizes.argmin()])
    if labels is None:
        chosen[generator.permutation(n)[: min(max(1, round(share * n)), n - 1)]] = True
        return chosen
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        wanted = round(share * len(rows))
        chosen[rows[: min(max(wanted, 1), len(rows) - 1)]] = True
    if not chosen.any():
        raise BadInput("every class has a single item, so nothing can be held out; add more data")
    return chosen
