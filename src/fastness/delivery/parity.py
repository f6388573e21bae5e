"""Is what was exported what was trained? Measured on real items, through the code that runs it elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastness.delivery.intake import Sample
from fastness_runtime import Encoder

_ALONE = 16  # items that are also given one by one


@dataclass(frozen=True)
class Parity:
    """How an export's embeddings compare with the encoder's.

    Attributes:
        items: how many were compared.
        least, mean: of the cosines between the two embeddings of each item.
        worst: position of the item with the least.
        alone: largest difference of a number of an embedding between an item alone and among 63 others.
        floor: below which the least is refused.
    """

    items: int
    least: float
    mean: float
    worst: int
    alone: float
    floor: float

    @property
    def holds(self) -> bool:
        """Whether no item lies below the floor."""
        return self.least >= self.floor

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {**asdict(self), "holds": self.holds}


def compared(exported: Encoder, sample: Sample, floor: float) -> Parity:
    """Embed a sample by an export and compare; see `Parity`."""
    found = exported.embed(sample.items, batch_size=64).astype(np.float64)
    theirs = sample.vectors.astype(np.float64)
    cosines = (found * theirs).sum(1) / np.maximum(
        np.linalg.norm(found, axis=1) * np.linalg.norm(theirs, axis=1), 1e-12
    )
    few = sample.select(range(min(_ALONE, len(sample))))
    alone = float(np.abs(exported.embed(few.items, batch_size=1) - found[: len(few)]).max())
    return Parity(len(sample), float(cosines.min()), float(cosines.mean()), int(cosines.argmin()), alone, floor)
