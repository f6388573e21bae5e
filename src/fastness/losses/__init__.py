"""What compares vectors: one contrastive core (`stream`, `pairs`), and one file a loss on it.

A loss takes `Pairs` and a scale (one over the temperature) and returns a scalar. One file and one line here add one.

`Pairs` are anchors, candidates, and rules that say which candidates are positive, negative or left out. Two sums over
all of them, `log_mass` and `row_sum`, do the work block by block with their own backward, so that no loss ever holds
a matrix of the batch. With several processes the candidates are those of all, and the gradients those of one process
with the whole batch. Losses compute in float32 or wider, whatever surrounds them.
"""

from __future__ import annotations

from fastness.core.registry import Registry
from fastness.losses.base import Loss

LOSSES: Registry[type[Loss]] = Registry(
    "loss",
    "fastness.losses",
    {
        "nt-xent": "nt_xent",
        "decoupled": "decoupled",
        "debiased": "debiased",
        "hard": "debiased",
        "sigmoid": "sigmoid",
        "margin": "margin",
        "triplet": "triplet",
        "multi-similarity": "multi_similarity",
    },
)

__all__ = ["LOSSES", "Loss"]
