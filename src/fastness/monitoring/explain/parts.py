"""Parts of the items that may be what changed: values and ranges of what is known of them, and clusters.

All of them are made without asking which item is of the reference and which is new, so that a permutation of that
leaves the same parts and a test of the largest of them is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.conditions import missing
from fastness.core.errors import BadInput
from fastness.data.values import number
from fastness.evaluation.slices import named, said, where
from fastness.monitoring.window import Floats, Window

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

ANSWERS = ("confidence", "novelty", "abstained", "right")
"""What a head said of an item, or how it fared: it follows what changed, and is seldom what changed."""
_STEPS = 39  # cuts of a number's range, at its quantiles
_BINS = 10
_VALUES = 100  # values of a text that are parts of their own; the others are one together
_SMALLEST = 5  # items of a part, and
_SMALLEST_SHARE = 0.01  # of all items
_DIRECTIONS = 32  # principal directions in which clusters are found
_OTHERS = "(others)"


@dataclass(frozen=True)
class Part:
    """Some of the items.

    Attributes:
        kind: ``fact``, ``answer`` (of a head), ``cluster`` (of the reference) or ``found`` (a cluster of all items).
        column: whose value or range it is; of clusters empty.
        what: an expression, or a cluster's name.
        mask: bool ``[N]``.
    """

    kind: str
    column: str
    what: str
    mask: Mask


def pooled(reference: Window, window: Window) -> dict[str, Array]:
    """Return the columns that both have, one behind the other: float64 or texts (``U``)."""
    return {
        name: _joined(reference.columns[name], window.columns[name])
        for name in reference.columns
        if name in window.columns
    }


def as_known(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Return columns of which texts are arrays of texts, as slices take them."""
    return {name: values if values.dtype.kind == "f" else values.astype(np.str_) for name, values in columns.items()}


def divided(values: Array) -> Ints:
    """Return the bin of each value ``[N]``, from 0: tenths of numbers, values of texts, rare ones in one together.

    What is missing is a bin of its own, unless it is rare among texts.
    """
    gone = missing(values)
    if values.dtype.kind == "f":
        there = values[~gone]
        cuts = np.unique(np.quantile(there, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(there) else np.zeros(0)
        return np.where(gone, 0, 1 + np.searchsorted(cuts, np.where(gone, 0, values), side="right")).astype(np.int64)
    own = np.isin(values, _often(values)) | (gone & (gone.sum() >= _smallest(len(values))))
    return np.unique(np.where(own, values, _OTHERS), return_inverse=True)[1].astype(np.int64)


def of_columns(columns: Mapping[str, Array], expressions: Sequence[str] = ()) -> list[Part]:
    """Return the parts that columns name: values of texts, ranges of numbers from one end, what is missing.

    Args:
        columns: float64 ``[N]`` or texts ``[N]``.
        expressions: slices that were asked for besides.
    """
    found: list[Part] = []
    for name, values in columns.items():
        kind = "answer" if name in ANSWERS else "fact"
        gone = missing(values)
        found.append(Part(kind, name, f"{named(name)} is missing", gone))
        if values.dtype.kind == "f":
            found += [Part(kind, name, what, mask) for what, mask in _ranges(name, values, gone)]
        else:
            found += [Part(kind, name, f"{named(name)} == {said(v)}", values == v) for v in _often(values)]
    for expression in expressions:
        try:
            found.append(Part("fact", "", expression, where(expression, columns).mask))
        except BadInput:
            continue  # of a column that only one of the two has: it cannot be what differs
    return _large(found)


def of_clusters(vectors: Floats, centroids: Floats, names: Sequence[str]) -> tuple[list[Part], Ints]:
    """Return the reference's clusters as parts, and the number of each item's ``[N]``."""
    nearest = (vectors @ centroids.T - 0.5 * (centroids**2).sum(1)).argmax(1).astype(np.int64)
    return _large([Part("cluster", "", f"'{name}'", nearest == i) for i, name in enumerate(names)]), nearest


def found_clusters(vectors: Floats) -> list[Part]:
    """Return clusters of every size among all items: all branches of the tree that Ward's method (1963) makes.

    Args:
        vectors: float32 ``[N, D]``; the tree takes 4 N² bytes.

    Returns:
        a part, without a name, for every branch that is neither tiny nor nearly all.
    """
    from scipy.cluster.hierarchy import linkage

    n = len(vectors)
    branches: list[Ints] = [np.array([i]) for i in range(n)]
    found = []
    for left, right, _, _ in linkage(directions(vectors).astype(np.float64), "ward"):
        branches.append(np.concatenate([branches[int(left)], branches[int(right)]]))
        branches[int(left)] = branches[int(right)] = np.zeros(0, np.int64)  # a deep tree would else be N² numbers
        if _smallest(n) <= len(branches[-1]) <= n - _smallest(n):
            mask = np.zeros(n, np.bool_)
            mask[branches[-1]] = True
            found.append(Part("found", "", "", mask))
    return found


def directions(vectors: Floats) -> Floats:
    """Return vectors along their strongest principal directions."""
    centred: Floats = vectors - vectors.mean(0)
    if vectors.shape[1] <= _DIRECTIONS:
        return centred
    _, axes = np.linalg.eigh(centred.T @ centred)
    found: Floats = centred @ axes[:, -_DIRECTIONS:]
    return found


def _ranges(name: str, values: Array, gone: Mask) -> list[tuple[str, Mask]]:
    """Return the ranges of a number from its nearer end to each cut."""
    there = values[~gone]
    if not len(there):
        return []
    different = np.unique(there)
    cuts = different[:-1] if len(different) <= _STEPS else np.quantile(there, np.arange(1, _STEPS + 1) / (_STEPS + 1))
    found = {}
    for cut in cuts:
        rounded = float(f"{cut:.4g}")  # and the part with it, so that its name selects what it holds
        below = ~gone & (values <= rounded)
        lower = below.sum() <= len(there) / 2
        relation, mask = ("<=", below) if lower else (">", ~gone & ~below)
        found[f"{named(name)} {relation} {said(rounded)}"] = mask
    return list(found.items())


def _often(values: Array) -> list[str]:
    """Return the values that enough items have, the most frequent first."""
    different, counts = np.unique(values[values != ""], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_VALUES]
    return [str(different[i]) for i in order if counts[i] >= _smallest(len(values))]


def _large(parts: list[Part]) -> list[Part]:
    """Return the parts that are neither tiny nor nearly all."""
    return [p for p in parts if _smallest(len(p.mask)) <= p.mask.sum() <= len(p.mask) - _smallest(len(p.mask))]


def _smallest(n: int) -> float:
    return max(_SMALLEST, _SMALLEST_SHARE * n)


def _joined(first: Array, second: Array) -> Array:
    kinds = first.dtype.kind, second.dtype.kind
    if "f" in kinds:  # a column of numbers in which one side has some «unknown» is still one of numbers
        numbers = [found for side in (first, second) if (found := _numbers(side)) is not None]
        if len(numbers) == 2:
            return np.concatenate(numbers)
    return np.concatenate([_texts(first), _texts(second)])


def _numbers(values: Array) -> Array | None:
    """Return texts as numbers, NaN where one is none; ``None`` if most of those that are there are none."""
    if values.dtype.kind == "f":
        return values
    there = values[values != ""]
    found = {text: number(str(text)) for text in np.unique(there.astype(np.str_))}
    known = sum(found[text] is not None for text in there)
    if known * 2 < len(there):
        return None
    return np.array([np.nan if (x := found.get(str(text))) is None else x for text in values], np.float64)


def _texts(values: Array) -> Array:
    if values.dtype.kind != "f":
        return values.astype(np.str_)
    return np.array(["" if np.isnan(value) else said(float(value)) for value in values], np.str_)
