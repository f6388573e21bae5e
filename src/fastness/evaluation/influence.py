"""Influence: which parts of an item make it resemble its nearest neighbour?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastness.corruptions import WORLDS
from fastness.evaluation.subject import Subject
from fastness.index import VectorIndex


@dataclass(frozen=True)
class Influence:
    """What the parts of a held-out item do to its likeness to the nearest fitting item.

    Attributes:
        item, neighbour: positions among the held-out and the fitting items.
        cosine: of their embeddings.
        parts: the parts' names; see `World.hidden`.
        values: cosine lost when the part is hidden, float64 ``[parts]``; negative where it becomes more alike.
    """

    item: int
    neighbour: int
    cosine: float
    parts: list[str]
    values: npt.NDArray[np.float64]


def influences(subject: Subject, positions: npt.NDArray[np.int64]) -> list[Influence]:
    """Return the influence of the parts of held-out items by occlusion (Zeiler and Fergus 2014, arXiv 1311.2901).

    Items that have no parts are left out, as is every item of a modality whose parts are not known.
    """
    if subject.bundle.modality not in WORLDS:
        return []
    world, bundle = WORLDS.get(subject.bundle.modality), subject.bundle
    found = []
    vectors = subject.test_vectors[positions]
    _, nearest = VectorIndex(subject.fit_vectors, exact=True).search(vectors, 1)
    for item, vector, neighbour in zip(positions.tolist(), vectors, nearest[:, 0].tolist(), strict=True):
        names, batches = world.hidden(subject.scene(subject.test), item)
        if not names:
            continue
        partner = _unit(subject.fit_vectors[neighbour])
        without = bundle.embed_batches(batches, len(names))
        cosine = float(_unit(vector) @ partner)
        found.append(Influence(item, neighbour, cosine, names, (cosine - without @ partner).astype(np.float64)))
    return found


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return found
