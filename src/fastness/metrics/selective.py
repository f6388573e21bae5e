"""Selective prediction: what is wrong among the answers given, when the least sure ones are withheld?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastness.metrics.finite import finite

Floats = npt.NDArray[np.float64]


def risk_coverage(confidence: npt.ArrayLike, wrong: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return coverage and risk when the 1, 2, … N surest items are answered (El-Yaniv and Wiener 2010).

    Among equally sure items each has the mean risk of them all, so the order of the items does not matter.

    Args:
        confidence: ``[N]``; higher is surer.
        wrong: whether each answer is wrong, or its loss, ``[N]``.

    Returns:
        coverage ``[N]`` rising to 1, and mean loss of the covered ``[N]``.
    """
    c, loss = finite(confidence, "confidences"), finite(wrong, "outcomes")
    _, place, count = np.unique(-c, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=loss) / count
    covered = np.arange(1, len(c) + 1)
    risk: Floats = np.cumsum(np.repeat(mean, count)) / covered
    return covered / len(c), risk


def aurc(confidence: npt.ArrayLike, wrong: npt.ArrayLike) -> float:
    """Return the mean risk over all coverages; 0 is perfect (Geifman and El-Yaniv 2017, arXiv 1705.08500)."""
    return float(risk_coverage(confidence, wrong)[1].mean())


def coverage_at(confidence: npt.ArrayLike, wrong: npt.ArrayLike, risk: float) -> float:
    """Return the largest share of items that can be answered with at most so much risk, whole ties at a time."""
    c = np.asarray(confidence, np.float64)
    covered, risks = risk_coverage(c, wrong)
    ordered = np.sort(c)[::-1]
    ends = np.append(ordered[1:] != ordered[:-1], True)
    fine = covered[ends & (risks <= risk + 1e-12)]
    return float(fine.max()) if len(fine) else 0.0
