"""A family of statistics under the same permutations: one level for all of them, exact at any size.

Permutations of the labels are as likely as the labels themselves if nothing has changed. Whatever is made of the
statistics in the same way for every column, the real one among them, keeps that: here each is put on the scale of a
standard normal by the moments of the other columns, so that statistics of different kinds can be compared, and the
largest of all is what counts (Westfall and Young 1993, *Resampling-based multiple testing*, step-down max T).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fastness.core.seeds import numpy_generator

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]

_CELLS = 4_000_000  # labels that are held at once
_SKEW = 0.01, 2.83  # chi-squared with one degree of freedom has the largest that occurs
_SHARPNESS = 1.5


def permuted(n: int, m: int, permutations: int, seed: int) -> Iterator[Floats]:
    """Return which items are of the reference, in blocks ``[B, n + m]``; the first row of all is the real one."""
    generator = numpy_generator(seed, "permutations")
    real = np.zeros(n + m, np.uint8)
    real[:n] = 1
    at_once = max(1, _CELLS // (n + m))
    for start in range(0, permutations + 1, at_once):
        rows = np.tile(real, (min(at_once, permutations + 1 - start), 1))
        generator.permuted(rows[1:] if start == 0 else rows, axis=1, out=rows[1:] if start == 0 else rows)
        yield rows.astype(np.float32)


def normal_scores(statistics: Numbers) -> Numbers:
    """Return statistics ``[..., P]`` on the scale of a standard normal, each by mean, spread and skew of all others.

    A gamma distribution's cube root is nearly normal (Wilson and Hilferty 1931); with P permutations the tails of
    statistics as unlike as a quadratic form and a difference of shares become comparable.
    """
    others = statistics.shape[-1] - 1
    centred = statistics - statistics.mean(-1, keepdims=True)  # sums of powers below lose fewer digits
    sums = [np.sum(centred**k, -1, keepdims=True) - centred**k for k in (1, 2, 3)]
    mean, second, third = (total / others for total in sums)
    variance = second - mean**2
    spread = np.sqrt(np.maximum(variance, 1e-24 + 1e-12 * second))
    z = (centred - mean) / spread
    skew = np.clip((third - 3 * mean * second + 2 * mean**3) / spread**3, *_SKEW)
    found: Numbers = 6 / skew * (np.cbrt(np.maximum(1 + skew * z / 2, 0)) - 1) + skew / 6
    return found


def fused(scores: Numbers, weights: Sequence[float]) -> Numbers:
    """Return one score ``[P]`` of those by several settings ``[S, P]``: mostly the largest, and more if others agree.

    The logarithm of a mean of exponentials, as Biggs, Schrab and Gretton 2023 (arXiv 2306.08777) fuse kernels.
    """
    from scipy.special import logsumexp

    if len(scores) > 1:
        parts = np.asarray(weights)[:, None]
        scores = normal_scores(logsumexp(_SHARPNESS * scores, axis=0, b=parts))[None]  # exp alone has no room at 500
    found: Numbers = scores[0]
    return found


def adjusted(scores: Numbers, weights: Numbers) -> Numbers:
    """Return p ``[K]`` of the first column, adjusted for all rows, of normal scores ``[K, P + 1]``.

    Args:
        weights: ``[K]``, what part of the level each has.
    """
    from scipy.special import log_ndtr

    surprise = np.log(weights)[:, None] - log_ndtr(-scores)
    order = np.argsort(-surprise[:, 0], kind="stable")
    largest = np.maximum.accumulate(surprise[order[::-1]], axis=0)[::-1]  # of each and all that surprise less
    p = (largest >= surprise[order, :1]).mean(1)
    found = np.empty(len(scores))
    found[order] = np.maximum.accumulate(p)
    return found
