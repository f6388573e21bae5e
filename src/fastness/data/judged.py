"""Judged collections: documents, queries, and how well which document answers which query."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fastness.data.dataset import Dataset
from fastness.data.text import TextPayloads

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Judgements:
    """Who judged what.

    Attributes:
        queries: their texts.
        query: int64 ``[J]``, the row of each judgement's query in their manifest.
        document: int64 ``[J]``, the row of its document in the documents' manifest.
        gain: float64 ``[J]``, how well the document answers; 0 or less: not at all.
        splits: ``[J]``, the part that the judgement is for; ``""`` where there are no parts.
    """

    queries: Dataset
    query: Ints
    document: Ints
    gain: npt.NDArray[np.float64]
    splits: npt.NDArray[np.str_]

    def held_out(self) -> tuple[Judgements, str]:
        """Return those to measure by, and their name: the part ``test``, else ``validation``, else all."""
        for part in ("test", "validation"):
            chosen = self.splits == part
            if chosen.any():
                return self.select(chosen), part
        return self, "all"

    def select(self, chosen: npt.NDArray[np.bool_]) -> Judgements:
        """Return some of the judgements, of the same queries."""
        return replace(
            self,
            query=self.query[chosen],
            document=self.document[chosen],
            gain=self.gain[chosen],
            splits=self.splits[chosen],
        )


@dataclass(frozen=True)
class JudgedPayloads(TextPayloads):
    """The documents' texts, with the judgements beside them."""

    judgements: Judgements
