"""The collapse watch: is the encoder still telling items apart?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fastness.losses.precision import normalised
from fastness.metrics.geometry import alignment, effective_rank, feature_std, uniformity

SAMPLE = 256


@dataclass(frozen=True)
class Signals:
    """Shape of the current batch's embeddings (at most 256 items); see `metrics.geometry` for each."""

    feature_std: float
    effective_rank: float
    alignment: float
    uniformity: float

    def warning(self, dim: int) -> str | None:
        """Return in words what is wrong, or ``None``.

        The embeddings are measured against chance: a healthy encoder spreads over several dimensions and
        keeps items apart.
        """
        if self.feature_std < 0.1:
            return (
                f"the embeddings are nearly one point (feature std {self.feature_std:.3f} of 1): collapsed; "
                "lower the learning rate, or use a method with negatives (simclr)"
            )
        if self.effective_rank < min(2.0, dim / 2):
            return (
                f"the embeddings lie on a line (effective rank {self.effective_rank:.1f} of {dim}): collapsing; "
                "lower the learning rate or make the views less strong"
            )
        return None


def measure(embeddings: Sequence[torch.Tensor]) -> Signals:
    """Return the signals of one or more views' embeddings ``[B, D]``."""
    with torch.no_grad():
        views = [normalised(e[:SAMPLE].detach().float()) for e in embeddings[:2]]
        return Signals(
            feature_std(views[0]),
            effective_rank(views[0].cpu()),
            alignment(views[0], views[1]) if len(views) > 1 and views[0].shape == views[1].shape else 0.0,
            uniformity(views[0]),
        )
