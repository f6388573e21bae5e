"""Hard negatives: answers that look right and are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastness.index.vectors import VectorIndex

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mined:
    """Hard negatives of pairs.

    Attributes:
        rows: int64 ``[N, K]``, which answers, hardest first; -1 where there are fewer.
        scores: float32 ``[N, K]``, their cosines to the question.
    """

    rows: Ints
    scores: Floats


def hard_negatives(
    questions: Floats,
    answers: Floats,
    keys: npt.NDArray[np.generic],
    *,
    number: int = 1,
    margin: float = 0.05,
    searched: int = 50,
) -> Mined:
    """Return the nearest wrong answers of each question that are not so near that they may be right.

    A wrong answer counts if its cosine is at most that of the right one less ``margin`` times its size: ``s - margin
    |s|``. (Multiplying by ``1 - margin`` would raise the bar of a right answer with a negative cosine.) Moreira et al.
    2024 (NV-Retriever, arXiv 2407.15831) call this a relative margin.

    Args:
        questions, answers: float32 ``[N, D]``, length 1; row i of one belongs to row i of the other.
        keys: ``[N]``, which answers are the same or right for each other.
        number: K, how many are wanted.
        searched: how many of the nearest are looked through.
    """
    right = (questions * answers).sum(1)
    bar = right - margin * np.abs(right)
    scores, rows = VectorIndex(answers).search(questions, min(searched, len(answers)))
    allowed = (rows >= 0) & (scores <= bar[:, None]) & (keys[rows] != keys[:, None])
    order = np.argsort(~allowed, axis=1, kind="stable")[:, :number]
    taken = np.take_along_axis(allowed, order, 1)
    found = np.where(taken, np.take_along_axis(rows, order, 1), -1).astype(np.int64)
    return Mined(found, np.where(taken, np.take_along_axis(scores, order, 1), np.nan).astype(np.float32))
