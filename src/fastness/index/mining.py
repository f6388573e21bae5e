"""Hard negatives: answers that look right and are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastness.index.vectors import VectorIndex

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_BLOCK = 256


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
    right: Callable[[Ints], npt.NDArray[np.bool_]],
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
        right: given the places of questions, int64 ``[B]``, says which answers are right, bool ``[B, N]``.
        number: K, how many are wanted.
        searched: how many of the nearest are looked through.
    """
    own = (questions * answers).sum(1)
    bar = own - margin * np.abs(own)
    scores, rows = VectorIndex(answers).search(questions, min(searched, len(answers)))
    allowed = (rows >= 0) & (scores <= bar[:, None])
    for places in np.split(np.arange(len(rows)), range(_BLOCK, len(rows), _BLOCK)):
        allowed[places] &= ~np.take_along_axis(right(places), np.maximum(rows[places], 0), 1)
    order = np.argsort(~allowed, axis=1, kind="stable")[:, :number]
    taken = np.take_along_axis(allowed, order, 1)
    found = np.where(taken, np.take_along_axis(rows, order, 1), -1).astype(np.int64)
    return Mined(found, np.where(taken, np.take_along_axis(scores, order, 1), np.nan).astype(np.float32))
