"""Counted quality: outliers, missing cells, errors, collapse, and late labels, each against what was usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fastness.core.seeds import derive, numpy_generator
from fastness.metrics import rank
from fastness.metrics.calibration import reliability
from fastness.metrics.intervals import bootstrap, holm, quantiles, wilson
from fastness.monitoring.window import Array, Window

NOVELTY, ABSTAINED = "novelty", "abstained"
Floats = npt.NDArray[np.float64]
_SAMPLE, _FEWEST = 1_000, 10  # items whose spread is compared: at most, and at least
_DRAWS = 300  # samples of the items for an interval


@dataclass(frozen=True)
class Rate:
    """How often something was so, and whether that is more often than usual.

    Attributes:
        what: is counted.
        hits, n: so often, of so many.
        low, high: Wilson's interval of the share.
        usual: the share in the reference, or the one that is allowed.
        p: the chance of so many or more if it were no more often than usual; exact.
        level: of the interval.
    """

    what: str
    hits: int
    n: int
    low: float
    high: float
    usual: float
    p: float
    level: float

    @property
    def share(self) -> float:
        """The share; 0 of none."""
        return self.hits / self.n if self.n else 0.0

    @property
    def said(self) -> str:
        """The rate in a few words."""
        return f"{self.what}: {self.hits:,} of {self.n:,} ({self.share:.2%}; usual {self.usual:.2%}, p = {self.p:.2g})"


def against_share(what: str, hits: int, n: int, allowed: float, *, level: float = 0.95) -> Rate:
    """Return a rate held against a share that is known or allowed: the exact binomial test.

    Args:
        what, hits, n: see `Rate`.
        allowed: in [0, 1].
        level: of the interval.
    """
    from scipy.special import bdtrc

    p = 1.0 if hits <= 0 or allowed >= 1 else float(bdtrc(hits - 1, n, allowed))
    return Rate(what, hits, n, *wilson(hits, n, level), allowed, p, level)


def against_counts(what: str, hits: int, n: int, before: tuple[int, int], *, level: float = 0.95) -> Rate:
    """Return a rate held against one that was counted before: Fisher's exact test, which knows that it was counted.

    Args:
        what, hits, n: see `Rate`.
        before: hits of so many, of the reference.
        level: of the interval.
    """
    from scipy.stats import hypergeom

    there, of = before
    p = float(hypergeom.sf(hits - 1, of + n, there + hits, n)) if hits else 1.0
    return Rate(what, hits, n, *wilson(hits, n, level), there / of if of else 0.0, min(1.0, p), level)


def outliers(reference: Window, window: Window, threshold: float, *, level: float = 0.95) -> Rate | None:
    """Return how many items are newer to the head than its threshold; ``None`` if one side does not know.

    Args:
        reference, window: with the column ``novelty``.
        threshold: of the head.
        level: of the interval.
    """
    sides = [_known(side, NOVELTY) for side in (window, reference)]
    if not all(len(values) for values in sides):
        return None
    now, before = ((int((values > threshold).sum()), len(values)) for values in sides)
    return against_counts("outliers", *now, before, level=level)


def abstained(reference: Window, window: Window, *, level: float = 0.95) -> Rate | None:
    """Return how many items got no answer; ``None`` if one side does not know (column ``abstained``)."""
    sides = [_known(side, ABSTAINED) for side in (window, reference)]
    if not all(len(values) for values in sides):
        return None
    now, before = ((int((values > 0).sum()), len(values)) for values in sides)
    return against_counts("items without an answer", *now, before, level=level)


def missing(reference: Window, window: Window, *, level: float = 0.95, columns: Sequence[str] = ()) -> list[Rate]:
    """Return how many cells of each column that both have are missing, the least likely first.

    Args:
        columns: that count as missing of every item where one side has none of it.

    Cells of one item go missing together, so each column is tested alone and the p values are corrected for their
    number (Holm 1979).
    """
    names = dict.fromkeys([*(name for name in window.columns if name in reference.columns), *columns])
    found = []
    for name in names:
        now, before = (
            _missing(side.columns[name]) if name in side.columns else len(side) for side in (window, reference)
        )
        rate = against_counts(f"missing {name}", now, len(window), (before, len(reference)), level=level)
        found.append(rate)
    corrected = holm([rate.p for rate in found]) if found else ()
    return sorted((replace(rate, p=float(p)) for rate, p in zip(found, corrected, strict=True)), key=lambda r: r.p)


@dataclass(frozen=True)
class Spread:
    """Whether embeddings still tell items apart.

    Attributes:
        rank, usual_rank: effective rank of equally many items of the window and of the reference.
        cosine, usual_cosine: mean cosine of two items of each.
        n: how many items.
    """

    rank: float
    usual_rank: float
    cosine: float
    usual_cosine: float
    n: int

    @property
    def left(self) -> float:
        """Which share of the usual rank is left."""
        return self.rank / self.usual_rank

    @property
    def said(self) -> str:
        """The spread in a few words."""
        return (
            f"effective rank {self.rank:.1f} of {self.n:,} items (usual {self.usual_rank:.1f}), "
            f"mean cosine of two {self.cosine:.2f} (usual {self.usual_cosine:.2f})"
        )


def spread(reference: Window, window: Window, *, seed: int = 0) -> Spread | None:
    """Compare the shapes of two clouds of embeddings; ``None`` where one has fewer than ten items.

    The rank depends on how many items there are, so it is taken of equally many, 1,000 at most.
    """
    n = min(_SAMPLE, len(window), len(reference))
    if n < _FEWEST:
        return None
    (rank, cosine), (usual_rank, usual_cosine) = (
        _shape(side, numpy_generator(seed, "spread", name), n)
        for name, side in (("window", window), ("reference", reference))
    )
    return Spread(rank, usual_rank, cosine, usual_cosine, n)


@dataclass(frozen=True)
class Answered:
    """How right answers were, by labels that came later.

    Attributes:
        accuracy: share of right answers.
        low, high: its Wilson interval.
        calibration: expected calibration error in bins of equal mass; NaN where nobody said how sure they were.
        calibration_low, calibration_high: its interval, of which items were drawn.
        usual: accuracy on the reference, ``None`` if unknown.
        drop_low: low end of the interval of how much lower the accuracy is than on the reference, which was counted,
            too (Newcombe 1998, method 10); ``None`` if unknown.
        p: the chance of so many wrong answers or more if they were no more often wrong than on the reference; exact.
        n: answers with a label.
        level: of the intervals.
    """

    accuracy: float
    low: float
    high: float
    calibration: float
    calibration_low: float
    calibration_high: float
    usual: float | None
    drop_low: float | None
    p: float | None
    n: int
    level: float

    @property
    def said(self) -> str:
        """The figures in a sentence."""
        usual = "" if self.usual is None else f"; of the reference {self.usual:.1%} were"
        right = (
            f"{self.accuracy:.1%} of {self.n:,} labelled answers were right [{self.low:.1%}, {self.high:.1%}]{usual}"
        )
        if np.isnan(self.calibration):
            return right
        error = f"{self.calibration:.3f} [{self.calibration_low:.3f}, {self.calibration_high:.3f}]"
        return f"{right}; calibration error {error}"


def answered(
    predicted: Array,
    confidence: Floats,
    truth: Array,
    *,
    right: Array | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Answered | None:
    """Return how right answers were; ``None`` without any.

    Args:
        predicted, truth: classes, texts ``[N]``.
        confidence: how likely the predicted class was said to be, ``[N]`` in [0, 1], NaN where unknown.
        right: whether answers to items of the reference were right, 0 or 1, NaN where unknown; default: unknown.
        level: of the intervals.
        seed: of the samples of items.
    """
    correct = np.asarray(predicted) == np.asarray(truth)
    n, hits = len(correct), int(correct.sum())
    if not n:
        return None
    sure = np.isfinite(confidence)
    error, drawn = _calibration(confidence[sure], correct[sure], seed)
    known = np.zeros(0) if right is None else right[np.isfinite(right)]
    low, high = wilson(hits, n, level)
    p, usual, drop_low = None, None, None
    if len(known):
        p = against_counts("wrong answers", n - hits, n, (int((known == 0).sum()), len(known))).p
        usual = float(known.mean())
        below = usual - wilson(int((known != 0).sum()), len(known), level)[0]
        drop_low = usual - hits / n - float(np.hypot(below, high - hits / n))
    return Answered(hits / n, low, high, error, *quantiles(drawn, level), usual, drop_low, p, n, level)


def _calibration(confidence: Floats, correct: Array, seed: int) -> tuple[float, Floats]:
    """Return the calibration error, and those of samples of the items."""
    if not len(confidence):
        return float("nan"), np.zeros(0)

    def error(rows: Array) -> float:
        return reliability(confidence[rows], correct[rows], mass=True).error

    drawn = bootstrap(error, len(confidence), derive(seed, "calibration"), _DRAWS)
    return error(np.arange(len(confidence))), drawn


def _shape(side: Window, generator: np.random.Generator, n: int) -> tuple[float, float]:
    """Return effective rank and mean cosine of some items."""
    some = side.vectors[generator.permutation(len(side))[:n]].astype(np.float64)
    unit = some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-12)
    cosine = (float(np.square(unit.sum(0)).sum()) - n) / (n * (n - 1))
    return rank.effective(np.linalg.svd(unit - unit.mean(0), compute_uv=False)), cosine


def _known(side: Window, name: str) -> Floats:
    """Return the numbers of a column that are there."""
    values = side.columns.get(name)
    return np.zeros(0) if values is None else values[np.isfinite(values)]


def _missing(values: Array) -> int:
    return int(np.isnan(values).sum() if values.dtype.kind == "f" else (values == "").sum())
