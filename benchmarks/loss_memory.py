"""Memory and time of NT-Xent, forward and backward: the streamed core, a dense matrix, and two libraries.

For each number of pairs every side starts anew, in a process and an environment of its own, and they take turns.
Memory is the highest resident size above what was there with the inputs; the gradients count as memory.
Finished sizes are kept in ``.bench/loss_memory`` and not run again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

import numpy as np

import common
from fastness.core.files import write_json

PAIRS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
SIDES = ("fastness", "dense", "lightly", "pml")
LIMIT_GIB = 18.0


class Side:
    """One side at one size."""

    def __init__(self, name: str, pairs: int) -> None:
        python = common.peer_python(name) if name in ("lightly", "pml") else sys.executable
        self.gradient = common.WORK / f"gradient-{name}.npy"
        self.gradient.unlink(missing_ok=True)
        command = [str(python), str(common.PEERS / "loss.py"), name, str(pairs)]
        command += ["--gradient", str(self.gradient), "--limit", str(LIMIT_GIB)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.turns: list[dict[str, Any]] = []
        self.error: str | None = None

    def turn(self) -> None:
        """Make one forward and backward, unless it failed before."""
        if self.error:
            return
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"killed: over {LIMIT_GIB:g} GiB"}
        self.error = answer.get("error")
        if not self.error:
            self.turns.append(answer)

    def close(self) -> dict[str, Any]:
        """End the process and return the row."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        if self.error or not self.turns:
            return {"error": self.error}
        times = [turn["seconds"] for turn in self.turns[1:] or self.turns]  # the first meets cold memory
        return {
            "peak_mb": round(self.turns[0]["peak_bytes"] / 1e6, 1),
            "seconds": {"median": statistics.median(times), "low": min(times), "high": max(times)},
            "loss": self.turns[0]["loss"],
        }


def measure(pairs: int, turns: int) -> dict[str, Any]:
    """Return the row of one size."""
    sides = {name: Side(name, pairs) for name in SIDES}
    for _ in range(turns + 1):
        for side in sides.values():
            side.turn()
    row: dict[str, Any] = {"pairs": pairs}
    row |= {name: side.close() for name, side in sides.items()}
    if not row["dense"].get("error"):
        ours, theirs = (np.load(sides[name].gradient) for name in ("fastness", "dense"))
        row["gradient_difference"] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
        pairwise = zip(sides["fastness"].turns[1:], sides["dense"].turns[1:], strict=True)
        row["time_over_dense"] = statistics.median(a["seconds"] / b["seconds"] for a, b in pairwise)
    return row


def main() -> None:
    """Measure all sizes and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    rows = []
    for pairs in PAIRS[:5] if quick else PAIRS:
        path = (
            common.WORK / "loss_memory" / f"{'quick' if quick else 'full'}-{pairs}-{common.source_hash('losses')}.json"
        )
        if not path.exists():
            write_json(
                path,
                measure(
                    pairs, 3 if quick else 9 if pairs < 8192 else 3 if pairs < 16384 else 1 if pairs < 32768 else 0
                ),
            )
            print(path.read_text(), flush=True)
        rows.append(json.loads(path.read_text()))
    by_pairs = {row["pairs"]: row for row in rows}
    asks = []
    if 16384 in by_pairs:
        peak = by_pairs[16384]["fastness"]["peak_mb"]
        asks.append(common.ask("memory above the inputs at 16,384 pairs", "< 350 MB", f"{peak} MB", peak < 350))
    ratio = by_pairs[2048]["time_over_dense"]
    asks.append(common.ask("time over dense at 2,048 pairs", "<= 1.2", round(ratio, 3), ratio <= 1.2))
    larger = {
        n: round(row["time_over_dense"], 3) for n, row in by_pairs.items() if n >= 4096 and "time_over_dense" in row
    }
    asks.append(
        common.ask("time over dense from 4,096 pairs", "< 1", str(larger), bool(larger) and max(larger.values()) < 1)
    )
    worst = max(row.get("gradient_difference", 0) for row in rows)
    asks.append(common.ask("relative difference of gradients", "<= 1e-4", f"{worst:.1e}", worst <= 1e-4))
    asks.append(common.ask("65,536 pairs on a GPU", "to be stated", "-", None))
    common.save("loss_memory" + ("_quick" if quick else ""), rows, asks, dim=128, temperature=0.2, threads=2)


if __name__ == "__main__":
    main()
