"""What compares vectors: one contrastive core (`stream`, `pairs`), and one file a loss on it.

A loss takes `Pairs` and a scale (one over the temperature) and returns a scalar. One file and one line here add one.
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
