"""Memory of a large batch: 4,096 items in one loss, computed 256 at a time, against 256 and against all at once.

Each run is a process of its own that shows 4,096 items to SimCLR on a ResNet-18 of width 16 (the memory-mapped pixels
that are looked at count as resident); memory is the process's highest resident size, of which ``idle`` (everything
loaded, batches of 16) is not the batch's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

RUNS = {
    "idle": ("--batch-size", "16", "--steps", "256"),
    "256": ("--batch-size", "256", "--steps", "16"),
    "4,096 as 16 times 256": ("--batch-size", "256", "--effective-batch", "4096", "--steps", "1"),
    "4,096 at once": ("--batch-size", "4096", "--steps", "1"),
}


def run(name: str) -> dict[str, Any]:
    """Train and return the row."""
    fastness = Path(sys.executable).with_name("fastness")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(fastness),
            "train",
            str(common.cifar10_npz()),
            "--label",
            "none",
            "--width",
            "16",
            "--size",
            "32",
        ]
        command += ["--view", "count=2", "--view", "size=1", "--out", f"{folder}/run", *RUNS[name]]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return {"batch": name, "peak_mb": usage.ru_maxrss / 1e3, "seconds_in_all": round(time.perf_counter() - began, 1)}


def main() -> None:
    """Measure and write the result file; there is no smaller size."""
    common.arguments(__doc__ or "")
    rows = [run(name) for name in RUNS]
    idle, small, cached, whole = (row["peak_mb"] for row in rows)
    ratio = (cached - idle) / (small - idle)
    asks = [
        common.ask("memory of 4,096 as 16 times 256, over that of 256", "about 1", round(ratio, 2), ratio < 1.1),
        common.ask("the same of 4,096 at once", "to be stated", round((whole - idle) / (small - idle), 1), None),
    ]
    common.save("effective_batch", rows, asks)


if __name__ == "__main__":
    main()
