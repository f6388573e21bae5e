"""The learning rate as a function of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, peak: float, warmup: float) -> float:
    """Return the rate of step ``step`` of ``total``: a linear rise to ``peak``, then a cosine to 0.

    Args:
        step: 0 to total - 1.
        warmup: share of the steps that rise, in [0, 1].
    """
    rising = max(1, round(warmup * total)) if warmup else 0
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
