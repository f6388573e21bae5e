"""alibi-detect's offline detectors with their defaults, but for MMD one permutation; see `drift_trials`.

Scores are compared, and MMD's permutations change nothing of its score; LSDD chooses its regularisation by its own.
Whether the two alarm as they come is left out: at a score, that is what their permutations would say.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from alibi_detect.cd import ClassifierDrift, KSDrift, LSDDDrift, MMDDrift
from drift_trials import run
from sklearn.linear_model import LogisticRegression


def mmd(first: np.ndarray, second: np.ndarray) -> tuple[float, bool]:
    """Return MMD² with a kernel of the median distance."""
    found = MMDDrift(first, backend="pytorch", n_permutations=1, device="cpu").predict(second)["data"]
    return float(found["distance"]), False


def lsdd(first: np.ndarray, second: np.ndarray) -> tuple[float, bool]:
    """Return the least-squares density difference."""
    found = LSDDDrift(first, backend="pytorch", device="cpu").predict(second)["data"]
    return float(found["distance"]), False


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray) -> tuple[float, bool]:
    """Return the surprise of the most unlikely component; alarms by Bonferroni."""
    found = KSDrift(first, p_val=0.05).predict(second)["data"]
    return float(-np.min(found["p_val"])), bool(found["is_drift"])


def classifier(first: np.ndarray, second: np.ndarray) -> tuple[float, bool]:
    """Return the surprise of out-of-fold scores of a logistic regression."""
    detector = ClassifierDrift(
        first, LogisticRegression(max_iter=200), backend="sklearn", n_folds=5, preds_type="probs", seed=0
    )
    found = detector.predict(second)["data"]
    return float(-found["p_val"]), bool(found["is_drift"])


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    np.random.seed(0)  # what alibi-detect draws its folds and permutations from
    run(
        {
            "alibi mmd": mmd,
            "alibi lsdd": lsdd,
            "KS + Bonferroni": kolmogorov_smirnov,
            "alibi classifier": classifier,
        }
    )
