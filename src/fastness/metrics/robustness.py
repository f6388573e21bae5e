"""Robustness: how much better under a shift than what is usual at that accuracy?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_NEAR = 1e-4  # shares are kept so far from 0 and 1, where a logit would have no end

Floats = npt.NDArray[np.float64]


def effective_robustness(
    clean: npt.ArrayLike, shifted: npt.ArrayLike, usual_clean: npt.ArrayLike, usual_shifted: npt.ArrayLike
) -> Floats:
    """Return shifted accuracy less that which a line through usual models foretells (Taori et al. 2020, 2007.00644).

    The line is fitted by least squares to the logits of both accuracies, where such models lie on one.

    Args:
        clean, shifted: accuracies in [0, 1] of the models in question, ``[N]``.
        usual_clean, usual_shifted: those of at least two baseline models of different accuracy, ``[M]``.

    Returns:
        differences of accuracy, ``[N]``: 0 on the line, positive above it.

    Raises:
        ValueError: the baseline is no line.
    """
    x, y = _logit(usual_clean), _logit(usual_shifted)
    if len(x) < 2 or np.ptp(x) == 0:
        raise ValueError("a line needs two baseline models of different accuracy")
    slope, height = np.polyfit(x, y, 1)
    foretold = 1 / (1 + np.exp(-(slope * _logit(clean) + height)))
    found: Floats = np.asarray(shifted, np.float64) - foretold
    return found


def _logit(shares: npt.ArrayLike) -> Floats:
    x = np.clip(np.asarray(shares, np.float64), _NEAR, 1 - _NEAR)
    found: Floats = np.log(x / (1 - x))
    return found
