"""How right answers are, without labels: from how sure they are, and how right as sure ones were on the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastness.core.seeds import numpy_generator
from fastness.metrics.intervals import quantiles
from fastness.monitoring.window import Array, Window

Floats = npt.NDArray[np.float64]
CONFIDENCE, RIGHT = "confidence", "right"
_LEAST = 20  # items of either side
_DRAWS = 300


@dataclass(frozen=True)
class Estimate:
    """What the accuracy of a window's answers probably is.

    The intervals are of which items were drawn. That confidence means in the window what it meant in the reference is
    assumed: answers that are wrong and as sure as ever are not seen.

    Attributes:
        thresholded: share of answers that are surer than as many of the reference's as were wrong (average thresholded
            confidence, Garg et al. 2022, arXiv 2201.04234).
        low, high: its interval.
        difference: the reference's accuracy, less what confidence fell by in the mean (difference of confidences,
            Guillory et al. 2021, arXiv 2107.03315).
        difference_low, difference_high: its interval.
        usual: the reference's accuracy.
        drop, drop_low, drop_high: the usual accuracy less the thresholded one; the reference is drawn once for both.
        n, m: items of the reference and of the window.
        level: of the intervals.
    """

    thresholded: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    usual: float
    drop: float
    drop_low: float
    drop_high: float
    n: int
    m: int
    level: float

    @property
    def said(self) -> str:
        """The estimate in a sentence."""
        return (
            f"{self.thresholded:.1%} of {self.m:,} answers are probably right [{self.low:.1%}, {self.high:.1%}]; "
            f"of the reference {self.usual:.1%} were"
        )


def estimated(reference: Window, window: Window, *, level: float = 0.95, seed: int = 0) -> Estimate | None:
    """Estimate how right a window's answers are; ``None`` if one side knows it of fewer than 20 items.

    Args:
        reference: with the columns ``confidence``, in [0, 1], and ``right``, 0 or 1.
        window: with the column ``confidence``.
        level: of the intervals.
        seed: of the samples with replacement (Efron 1979), drawn from both sides.
    """
    sure, right = (reference.columns.get(name) for name in (CONFIDENCE, RIGHT))
    asked = window.columns.get(CONFIDENCE)
    if sure is None or right is None or asked is None:
        return None
    known = np.isfinite(sure) & np.isfinite(right)
    sure, right, asked = sure[known], right[known], asked[np.isfinite(asked)]
    if min(len(sure), len(asked)) < _LEAST:
        return None
    generator = numpy_generator(seed, "estimate")
    drawn = np.empty((_DRAWS, 3))
    for row in drawn:
        one, other = generator.integers(len(sure), size=len(sure)), generator.integers(len(asked), size=len(asked))
        row[:] = right[one].mean(), *_both(sure[one], right[one], asked[other])
    usual, (thresholded, difference) = float(right.mean()), _both(sure, right, asked)
    low, high = quantiles(drawn[:, 1], level)
    difference_low, difference_high = quantiles(drawn[:, 2], level)
    drop_low, drop_high = quantiles(drawn[:, 0] - drawn[:, 1], level)
    return Estimate(
        thresholded,
        low,
        high,
        difference,
        difference_low,
        difference_high,
        usual,
        usual - thresholded,
        drop_low,
        drop_high,
        len(sure),
        len(asked),
        level,
    )


def _both(sure: Array, right: Array, asked: Array) -> tuple[float, float]:
    """Return both estimates of confidences and outcomes ``[N]`` for confidences ``[M]``."""
    difference = float(np.clip(right.mean() - (sure.mean() - asked.mean()), 0, 1))
    return surer(sure, float(right.mean()), asked), difference


def surer(sure: Array, share: float, asked: Array) -> float:
    """Return which share of ``asked`` is above the threshold that a given share of ``sure`` is above.

    Of confidences that equal the threshold the same part counts on both sides, so that asked about itself it returns
    the share, however many are alike.
    """
    place = int((1 - share) * len(sure) + 1e-9)  # a share of counts that is not quite one, in floating point
    threshold = np.sort(sure)[min(place, len(sure) - 1)]
    equal = int((sure == threshold).sum())
    part = (share * len(sure) - int((sure > threshold).sum())) / equal
    return float((asked > threshold).mean() + part * (asked == threshold).mean())
