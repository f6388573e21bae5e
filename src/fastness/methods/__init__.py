"""How views, encoder, heads and loss meet: one readable file a method, one line here to register it."""

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
        "pairs": "pairs",
        "scored": "scored",
        "masked": "pretext",
        "denoise": "pretext",
    },
)

__all__ = ["METHODS", "About", "Defaults", "Known", "Method", "Outcome"]
