"""How views, encoder, heads and loss meet: one readable file a method, one line here to register it.

A `Method` has two halves: `represent` computes what each item's views give, `compare` makes a loss of it. Only the
second sees items together, which is what lets a batch be larger than memory. A method declares what it needs (labels,
groups, scores), how many views it takes, its options and the defaults it trains best with; it knows nothing of
devices, precision or optimisers.
"""

from __future__ import annotations

from fastness.core.registry import Registry
from fastness.methods.base import About, Defaults, Known, Method, Outcome

METHODS: Registry[type[Method]] = Registry(
    "method",
    "fastness.methods",
    {
        "simclr": "simclr",
        "moco": "moco",
        "byol": "byol",
        "supcon": "supcon",
        "siamese": "siamese",
        "triplet": "triplet",
        "semi": "semi",
        "supervised": "supervised",
        "distil": "distil",
        "pairs": "pairs",
        "scored": "scored",
        "masked": "pretext",
        "denoise": "pretext",
    },
)

__all__ = ["METHODS", "About", "Defaults", "Known", "Method", "Outcome"]
