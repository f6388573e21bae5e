"""Discovery: regions of the items where a model errs more than elsewhere, found without any name for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_DIRECTIONS = 16
_LEAVES = 8
_SMALLEST = 20  # items of a region, and
_SMALLEST_SHARE = 60  # one of so many of all
_LARGEST = 1e37
_SURE = 3.0  # standard errors that a region's error lies above that of all

Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Regions:
    """Regions that do not overlap.

    Attributes:
        directions, tree: the fitted principal directions and the tree whose leaves the regions are.
        leaves: those that are regions, the worst first.
        classes: how many classes labels may name.
    """

    directions: Any
    tree: Any
    leaves: tuple[int, ...]
    classes: int

    def of(self, vectors: Vectors, labels: Ints, numbers: Numbers) -> Ints:
        """Return the region of each item, from 1; 0 where it is in none."""
        found = self.tree.apply(_features(self.directions, vectors, labels, numbers, self.classes))
        out = np.zeros(len(found), np.int64)
        for number, leaf in enumerate(self.leaves, 1):
            out[found == leaf] = number
        return out


def regions_of_error(
    vectors: Vectors, labels: Ints, numbers: Numbers, wrong: npt.ArrayLike, classes: int, seed: int
) -> Regions:
    """Find regions of the embeddings, of classes and of what else is known, where errors are frequent.

    A tree that divides the items by their principal directions, their class and further numbers so that errors fall
    together (as error analysis by trees does: Singla et al. 2021, arXiv 2012.01750). Those of its leaves count whose
    share of errors lies three standard errors above that of all.

    Args:
        vectors: features float32 ``[N, D]``.
        labels: class of each item, int64 ``[N]``.
        numbers: what else is known of each item, float64 ``[N, K]``, NaN where it is not.
        wrong: bool ``[N]``, on which of them the model errs.
        classes: number of classes.
        seed: of ties.
    """
    from sklearn.decomposition import PCA
    from sklearn.tree import DecisionTreeClassifier

    errs = np.asarray(wrong, np.bool_)
    directions = PCA(min(_DIRECTIONS, *vectors.shape), random_state=seed % (1 << 31)).fit(vectors)
    tree = DecisionTreeClassifier(
        max_leaf_nodes=_LEAVES,
        min_samples_leaf=max(_SMALLEST, len(vectors) // _SMALLEST_SHARE),
        random_state=seed % (1 << 31),
    )
    leaf = tree.fit(features := _features(directions, vectors, labels, numbers, classes), errs).apply(features)
    share, above = errs.mean(), {}
    for number in np.unique(leaf):
        mine = errs[leaf == number]
        error = np.sqrt(max(share * (1 - share), 1e-12) / len(mine))
        if (distance := (mine.mean() - share) / error) > _SURE:
            above[int(number)] = distance
    return Regions(directions, tree, tuple(sorted(above, key=lambda number: -above[number])), classes)


def _features(
    directions: Any, vectors: Vectors, labels: Ints, numbers: Numbers, classes: int
) -> npt.NDArray[np.float64]:
    # The tree holds float32; a number beyond that is as large as any.
    known = np.clip(numbers, -_LARGEST, _LARGEST)
    return np.concatenate([directions.transform(vectors), np.eye(classes, dtype=np.float32)[labels], known], 1)
