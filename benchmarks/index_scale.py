"""Open a folder of 200,000 small files: time cold and with a warm manifest, and peak memory.

Each opening is a process of its own, so that its memory is its own; the page cache is dropped before the cold
one where the system allows it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import common

CODE = """
import json, resource, sys, time
start = time.perf_counter()
from fastness.data import open_data
data = open_data(sys.argv[1])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"items": len(data), "fingerprint": data.fingerprint, "seconds": seconds, "peak_mb": peak}))
"""


def make(folder: Path, n: int) -> None:
    """Write ``n`` small PNG pictures in 100 class folders."""
    if folder.exists() and (folder / "made").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    generator = np.random.default_rng(0)
    import io

    for start in range(0, n, n // 100):
        part = folder / f"class-{start // (n // 100):03d}"
        part.mkdir(parents=True)
        for i in range(start, min(start + n // 100, n)):
            buffer = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
            (part / f"{i:06d}.png").write_bytes(buffer.getvalue())
    (folder / "made").touch()


def opened(folder: Path, cache: Path) -> dict[str, Any]:
    """Open the folder in a fresh process."""
    env = {**os.environ, "FASTNESS_CACHE": str(cache)}
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(folder)], env=env, capture_output=True, text=True, check=True
    )
    return dict(json.loads(result.stdout))


def main() -> None:
    """Measure and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    n = 20_000 if quick else 200_000
    folder, cache = common.WORK / f"files-{n}", common.WORK / "index_cache"
    make(folder, n)
    rows = []
    for repeat in range(3):
        shutil.rmtree(cache, ignore_errors=True)
        dropped = (
            subprocess.run("sync; echo 3 > /proc/sys/vm/drop_caches", shell=True, capture_output=True).returncode == 0
        )
        rows.append({"open": "cold", "repeat": repeat, "page_cache_dropped": dropped, **opened(folder, cache)})
        rows.append({"open": "warm manifest", "repeat": repeat, **opened(folder, cache)})
        assert rows[-1]["fingerprint"] == rows[-2]["fingerprint"]
    middle = {
        kind: float(np.median([r["seconds"] for r in rows if r["open"] == kind])) for kind in ("cold", "warm manifest")
    }
    peak = max(row["peak_mb"] for row in rows)
    asks = [
        common.ask(f"open {n:,} files cold, seconds", "< 60", round(middle["cold"], 2), middle["cold"] < 60),
        common.ask(
            "the same with a warm manifest, seconds",
            "< 3",
            round(middle["warm manifest"], 2),
            middle["warm manifest"] < 3,
        ),
        common.ask("peak memory, MB", "< 500", round(peak), peak < 500),
    ]
    common.save("index_scale" + ("_quick" if quick else ""), rows, asks)


if __name__ == "__main__":
    main()
