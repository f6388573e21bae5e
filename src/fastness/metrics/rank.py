"""Effective rank: in how many directions items really differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def effective(values: npt.NDArray[np.floating[Any]]) -> float:
    """Return the exponential of the entropy of the normalised singular values of centred items.

    Roy and Vetterli 2007. Misleads when there are not many more items than dimensions: compare only equally many.

    Args:
        values: singular values.
    """
    total = float(values.sum())
    if total <= 1e-12:
        return 1.0
    shares = values / total
    return float(np.exp(-(shares * np.log(np.maximum(shares, 1e-300))).sum()))
