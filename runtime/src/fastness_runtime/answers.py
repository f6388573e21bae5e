"""What a head says of items: the likeliest class of each, how likely, how unlike what is known, and where nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """Answers to N items; row i is item i.

    Attributes:
        labels: the likeliest class of each, texts ``[N]``; of an abstained item a guess that is not to be trusted.
        probabilities: float32 ``[N, C]``, in the order of ``classes``.
        novelty: float32 ``[N]``, 0 or more, higher for what is less like the items that the head was fitted on.
        abstained: bool ``[N]``, whether the novelty is beyond the head's threshold.
        classes: their names.
    """

    labels: npt.NDArray[Any]
    probabilities: Floats
    novelty: Floats
    abstained: npt.NDArray[np.bool_]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, probabilities: Floats, novelty: Floats, classes: Sequence[str], threshold: float | None) -> Answers:
        """Return the answers that these numbers are.

        Args:
            probabilities, novelty, classes: see `Answers`.
            threshold: novelty beyond which there is no answer; ``None``: there always is.
        """
        names = np.array([*classes], dtype=object)
        beyond = np.zeros(len(novelty), np.bool_) if threshold is None else ~(novelty <= threshold)
        return cls(names[probabilities.argmax(1)], probabilities, novelty, beyond, tuple(classes))
