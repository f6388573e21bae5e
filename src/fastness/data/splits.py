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
    same: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.bool_]:
    """Choose about ``share`` of ``n`` items at random.

    With ``groups`` whole groups are chosen that bring the number nearer to the share; else with ``labels`` each
    class gives its share (at least one item if it has two); else items are drawn freely. Items with the same number in
    ``same`` (see `numbered`) are chosen together; without a group, "", an item is of its own.

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
    same = np.arange(n) if same is None else same
    if groups is not None:
        return _by_group(_connected(groups, same), share, generator)
    first = np.unique(same, return_index=True)[1]
    return _of_each_class(len(first), share, generator, None if labels is None else labels[first])[same]


def numbered(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Return a number for each of ``rows``, int64 ``[N]``: equal rows have one; in the order of their first places."""
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    found: npt.NDArray[np.int64] = number[which.reshape(-1)]
    return found


def _connected(groups: npt.NDArray[np.str_], same: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return groups as numbers; those that share an item are one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names, member = np.unique(groups, return_inverse=True)
    member = np.where(names[member] == "", len(names) + np.arange(len(groups)), member)
    start = int(member.max()) + 1
    number = start + int(same.max()) + 1
    graph = coo_matrix((np.ones(len(same), np.int8), (member, start + same)), shape=(number, number))
    return numbered(connected_components(graph, directed=False)[1][member])


def _by_group(member: npt.NDArray[np.int64], share: float, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    sizes, n = np.bincount(member), len(member)
    if len(sizes) < 2:
        raise BadInput("all items belong to one group, which cannot be divided; choose another --group")
    taken, total = [], 0
    for group in generator.permutation(len(sizes)):
        nearer = abs(total + sizes[group] - share * n) < abs(total - share * n)
        if nearer and total + sizes[group] < n:
            taken.append(group)
            total += sizes[group]
    return np.isin(member, taken or [sizes.argmin()])


def _of_each_class(
    n: int, share: float, generator: np.random.Generator, labels: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.bool_]:
    if n < 2:
        raise BadInput("all items are the same, which cannot be divided into two splits; add more data")
    chosen = np.zeros(n, dtype=bool)
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
