"""Views a second of the full training step, fastness against lightly, side by side in turns.

Both train the same ResNet-18 at 32 px with batch 256 on two threads. lightly: its documented SimCLR recipe
(``peers/lightly_simclr.py``: SimCLRTransform, NTXentLoss, DataLoader with 2 workers, plain float32). fastness:
the step of ``fastness train`` with its defaults for this processor. They take turns, so that both meet the same
noise; figures are medians over turns and ratios of neighbouring turns.

The ceiling is forward and backward of the same network and precision alone, on one resident batch: no
views, no head, no loss, no optimiser. It takes turns with the full step too.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

import common
from fastness.core import hardware
from fastness.core.recipe import Recipe
from fastness.data import open_data
from fastness.training import plan
from fastness.training.assembly import assemble, fitted, make_loop
from fastness.training.loop import Loop, Settings

BATCH = 256
ASKS = {16: (3.0, 0.88), 64: (3.5, 0.95)}


class Ours:
    """The full step of fastness, and its ceiling."""

    def __init__(self, width: int) -> None:
        dataset = open_data(common.cifar10_npz())
        device = torch.device("cpu")
        asked = Recipe(steps=1 << 20, width=width, size=32, batch_size=BATCH, views={"count": 2, "size": 1.0})
        recipe = plan.complete(asked, dataset, device)
        images, encoder = fitted(recipe, dataset)
        method, views = assemble(images, recipe, encoder)
        self.loop: Loop = make_loop(method, views, images, recipe, device, Path(), Settings())
        self.loop.fix_length()
        self.recipe, self.method = recipe, method
        self.resident = torch.cat(self.loop.batches.make(0).views)
        self.step = 0
        self.source = self.loop.source(0, 1 << 20)

    def full(self, steps: int) -> float:
        """Return views a second of ``steps`` full steps."""
        began = time.perf_counter()
        for _ in range(steps):
            self.loop.update(self.source, self.step, 1 << 20)
            self.step += 1
        return steps * 2 * BATCH / (time.perf_counter() - began)

    def ceiling(self, steps: int) -> float:
        """Return views a second of forward and backward alone."""
        encoder = self.method.encoder
        began = time.perf_counter()
        for _ in range(steps):
            with self.loop.autocast():
                features = encoder(self.resident)
            features.square().mean().backward()
            encoder.zero_grad(set_to_none=True)
        return steps * 2 * BATCH / (time.perf_counter() - began)


class Lightly:
    """lightly's recipe in its own process and environment."""

    def __init__(self, width: int) -> None:
        command = [
            str(common.peer_python("lightly")),
            str(common.PEERS / "lightly_simclr.py"),
            *("--data", str(common.cifar10_npz()), "--net", str(common.NET), "--serve"),
            *("--width", str(width), "--batch-size", str(BATCH), "--workers", "2", "--threads", "2"),
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def full(self, steps: int) -> float:
        """Return views a second of ``steps`` steps."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        report = json.loads(self._process.stdout.readline())
        return float(report["views"] / report["seconds"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def measure(width: int, turns: int, seconds: float) -> dict[str, Any]:
    """Return the row of one width."""
    torch.set_num_threads(min(2, hardware.cores()))
    theirs = Lightly(width)
    theirs.full(2)  # the first turn starts the workers
    ours = Ours(width)
    ours.full(2), ours.ceiling(1)
    pace = {"ours": ours.full(2), "ceiling": ours.ceiling(2), "lightly": theirs.full(1)}
    steps = {name: max(1, round(seconds * rate / (2 * BATCH))) for name, rate in pace.items()}
    found: dict[str, list[float]] = {"ours": [], "ceiling": [], "lightly": []}
    for _ in range(turns):
        # The ceiling is measured while no view is being made: the background thread has filled its queue.
        found["ours"].append(ours.full(steps["ours"]))
        time.sleep(0.5)
        found["ceiling"].append(ours.ceiling(steps["ceiling"]))
        found["lightly"].append(theirs.full(steps["lightly"]))
        print(f"width {width}: " + ", ".join(f"{k} {v[-1]:.0f}" for k, v in found.items()), flush=True)
    theirs.close()
    ours.source.close()  # type: ignore[attr-defined]
    ratios = [a / b for a, b in zip(found["ours"], found["lightly"], strict=True)]
    shares = [a / b for a, b in zip(found["ours"], found["ceiling"], strict=True)]
    return {
        "width": width,
        "batch_size": BATCH,
        "threads": 2,
        "precision": ours.recipe.precision,
        **{f"{name}_views_per_second": _summary(values) for name, values in found.items()},
        "ratio_to_lightly": _summary(ratios),
        "share_of_ceiling": _summary(shares),
        "turns": turns,
        "seconds_a_turn": seconds,
    }


def _summary(values: list[float]) -> dict[str, float]:
    return {k: round(f(values), 3) for k, f in (("median", statistics.median), ("low", min), ("high", max))}


def main() -> None:
    """Measure both widths and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    turns, seconds = (3, 4.0) if quick else (5, 8.0)
    rows = [measure(width, turns, seconds) for width in ASKS]
    asks = []
    for row in rows:
        ratio, share = ASKS[row["width"]]
        got, part = row["ratio_to_lightly"]["median"], row["share_of_ceiling"]["median"]
        asks += [
            common.ask(f"times lightly's views/s, width {row['width']}", f">= {ratio}", got, got >= ratio),
            common.ask(f"share of forward + backward, width {row['width']}", f">= {share}", part, part >= share),
        ]
    asks += [common.ask("views/s and share of the ceiling on a GPU, compiled or not", "to be stated", "-", None)]
    common.save("pretrain_throughput" + ("_quick" if quick else ""), rows, asks, peers={"lightly": "peers/lightly.txt"})


if __name__ == "__main__":
    main()
