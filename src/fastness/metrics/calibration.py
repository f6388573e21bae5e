"""Calibration: are probabilities what they say they are?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.metrics.finite import finite

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_LEAST = 1e-12  # a probability below counts as this, so that one sure mistake does not make all infinite


@dataclass(frozen=True)
class Reliability:
    """Items in bins of like confidence; empty bins are left out.

    Attributes:
        count: items of each bin, int64 ``[B]``.
        confidence, accuracy: their mean confidence and share of right answers, ``[B]``.
    """

    count: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, weighted by items; NaN of none."""
        if not len(self.count):
            return float("nan")
        return float((self.count * np.abs(self.confidence - self.accuracy)).sum() / self.count.sum())


def softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """Return probabilities float64 ``[N, K]`` of logits ``[N, K]``."""
    x = finite(logits, "logits") / temperature
    x = np.exp(x - x.max(1, keepdims=True))
    found: Floats = x / x.sum(1, keepdims=True)
    return found


def reliability(confidence: npt.ArrayLike, right: npt.ArrayLike, bins: int = 15, *, mass: bool = False) -> Reliability:
    """Put items into bins by confidence. Guo et al. 2017 (arXiv 1706.04599); equal mass: Nixon et al. 2019.

    Args:
        confidence: ``[N]`` in [0, 1].
        right: whether each was right, or a share of votes for it, ``[N]``.
        mass: bins of equally many items (equal confidences stay together) instead of equal width ``(low, high]``.
    """
    c, r = finite(confidence, "confidences"), finite(right, "outcomes")
    if mass:
        last = (np.arange(1, bins) * len(c) + bins - 1) // bins - 1  # of each bin but the highest, by rank
        place = np.searchsorted(np.unique(np.sort(c)[last]) if len(c) else c, c, side="left")
    else:
        place = np.clip(np.ceil(c * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=1)
    there = count > 0
    sums = [np.bincount(place, weights=x, minlength=1)[there] for x in (c, r)]
    return Reliability(count[there], sums[0] / count[there], sums[1] / count[there])


def error_interval(found: Reliability, seed: int, level: float = 0.95, draws: int = 2000) -> tuple[float, float]:
    """Return an interval that holds the expected calibration error of which the outcomes were drawn.

    Chance moves each bin away from its confidence, so what is seen is too large, and a bootstrap around it adds chance
    once more: of 250 calibrated answers it says that they are surely not. So the lower end is where as much as was
    seen would be as rare as the level allows, if the bins were wrong by a part of what they seem to be; it is 0 where
    that is no rarity of bins that are not wrong at all (the consistency resampling of Bröcker and Smith 2007). The
    upper end is that of the bootstrap: too high rather than too low.

    Args:
        found: the bins; with none of them the interval is unbounded.
        seed: of the draws.
        level: in (0, 1).
        draws: of every bin's outcomes, as normal ones of their variance.
    """
    if not len(found.count):
        return float("-inf"), float("inf")
    rare, seen = (1 - level) / 2, found.error
    share = found.count / found.count.sum()
    rate = (found.count * found.accuracy + 1) / (found.count + 2)  # one that was always right has a variance, too
    spread = np.sqrt(rate * (1 - rate) / found.count)
    noise = np.random.default_rng(seed).normal(size=(draws, len(share))) * spread
    apart = found.accuracy - found.confidence

    def drawn(part: float) -> Floats:
        """Return what is seen in the draws if the bins are wrong by that part of what they seem to be."""
        errors: Floats = np.abs(part * apart + noise) @ share
        return errors

    low, high = 0.0, 1.0
    if (drawn(low) >= seen).mean() < rare:
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if (drawn(middle) >= seen).mean() >= rare else (middle, high)
    return low * seen, float(np.quantile(drawn(1.0), 1 - rare))


def brier(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Return each item's Brier score, in [0, 2]: squared distance to what is true (Brier 1950).

    Args:
        probabilities: ``[N, K]``.
        labels: classes int ``[N]`` in [0, K), or shares of votes ``[N, K]``.

    Raises:
        BadInput: a probability is not finite, or a label is no class.
    """
    p = finite(probabilities, "probabilities")
    found: Floats = np.square(p - _target(labels, p.shape[1])).sum(1)
    return found


def nll(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Return each item's negative log likelihood in nats; of votes their mean. Arguments as of `brier`."""
    p = np.maximum(finite(probabilities, "probabilities"), _LEAST)
    found: Floats = -(_target(labels, p.shape[1]) * np.log(p)).sum(1)
    return found


def best_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the temperature in [.01, 100] that makes the mean NLL least (Guo et al. 2017, section 4.2).

    Fit it on items that are neither fitted nor measured.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    x = finite(logits, "logits")
    target = _target(labels, x.shape[1])
    # Of logarithms, as probabilities that are cut off make plains on which the search would stop.
    found = minimize_scalar(
        lambda log: float(-(target * log_softmax(x / np.exp(log), axis=1)).sum(1).mean()),
        bounds=(np.log(0.01), np.log(100.0)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def _target(labels: npt.ArrayLike, classes: int) -> Floats:
    y = np.asarray(labels)
    if y.ndim == 2:
        return y.astype(np.float64)
    strange = np.flatnonzero((y < 0) | (y >= classes))
    if len(strange):
        raise BadInput(f"labels, row {strange[0]}: {y[strange[0]]} is none of the {classes} classes; leave the row out")
    target: Floats = (y[:, None] == np.arange(classes)).astype(np.float64)
    return target
