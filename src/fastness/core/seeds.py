"""One seed reaches every random choice, by name: nothing depends on the order in which things run.

A random stream is named by a path such as ``("views", step)``. Its seed is a hash of the run's seed and
that path, so a resumed run, a background thread or another process draws the same numbers without
anybody having to save a generator's state.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *path: str | int) -> int:
    """Return the seed in [0, 2**63) of the stream that ``path`` names under ``seed``."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return NumPy's generator for the named stream."""
    return np.random.default_rng(derive(seed, *path))


def torch_generator(seed: int, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return torch's generator for the named stream on ``device``."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *path))
