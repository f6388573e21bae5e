"""Linear probes: how much of the classes a straight cut through the features finds."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt


def fit_linear(features: npt.NDArray[Any], labels: npt.NDArray[np.int64], *, strength: float = 1.0) -> Any:
    """Return a fitted scikit-learn pipeline: standardise, then multinomial logistic regression.

    Args:
        features: ``[N, D]``.
        labels: ``[N]``.
        strength: inverse of the L2 penalty (scikit-learn's C); fixed, never chosen on test labels.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200, tol=1e-3))
    with warnings.catch_warnings():
        # On tens of thousands of items 200 iterations may stop short of the optimum by a hair.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(features, labels)
