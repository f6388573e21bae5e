"""What both peers' scripts share: windows of trials from npz, scores of methods to npz."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

import numpy as np

Method = Callable[[np.ndarray, np.ndarray], tuple[float, bool]]
"""From a reference and a window to a score that grows with drift, and whether the method alarms as it comes."""


def run(methods: Mapping[str, Method]) -> None:
    """Read ``POOLS.npz TRIALS.npz`` and write ``OUT.npz``: by method scores, alarms and seconds, ``[R]`` each."""
    pools, trials, out = sys.argv[1:4]
    with np.load(pools) as found:
        items = np.concatenate([found["before"], found["after"]]).astype(np.float32)
    with np.load(trials) as found:
        pairs = list(zip(found["first"], found["second"], strict=True))
    kept: dict[str, np.ndarray] = {}
    for name, method in methods.items():
        rows = []
        for first, second in pairs:
            began = time.perf_counter()
            score, alarm = method(items[first], items[second])
            rows.append((score, alarm, time.perf_counter() - began))
        for part, values in zip(("score", "alarm", "seconds"), zip(*rows, strict=True), strict=True):
            kept[f"{name}|{part}"] = np.array(values, np.float64)
    np.savez(out, **kept)
