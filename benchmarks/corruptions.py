"""Corrupt 10,000 images of 32 pixels in the fifteen common ways at five severities; imagecorruptions beside it.

The peer corrupts a hundred images in the same ways, one at a time on one core, as it is made to; its time is scaled to
10,000. Both take turns, three times; medians count.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import common
from fastness.core.files import write_json
from fastness.core.seeds import torch_generator
from fastness.corruptions import SEVERITIES
from fastness.corruptions.image import COMMON, CORRUPTIONS

FOLDER = common.WORK / "corruptions"
IMAGES, PEER_IMAGES, TURNS, AT_ONCE = 10_000, 100, 3, 250


def ours(images: torch.Tensor) -> dict[str, float]:
    """Return seconds by corruption, for all severities."""
    seconds = {}
    for name in COMMON:
        corrupt, start = CORRUPTIONS.get(name), time.perf_counter()
        for severity in SEVERITIES:
            for at, batch in enumerate(images.split(AT_ONCE)):
                corrupt(batch, severity, torch_generator(0, name, severity, at))
        seconds[name] = time.perf_counter() - start
    return seconds


def theirs(images: torch.Tensor) -> dict[str, float]:
    """Return seconds by corruption that the peer would take for as many images as we do."""
    data, out = FOLDER / "images.npy", FOLDER / "peer.json"
    np.save(data, images[:PEER_IMAGES].permute(0, 2, 3, 1).numpy())
    python = common.peer_python("imagecorruptions")
    command = [python, common.PEERS / "imagecorruptions_run.py", data, out]
    subprocess.run(list(map(str, command)), check=True)
    found = json.loads(Path(out).read_text())
    return {name: value * len(images) / found["images"] for name, value in found["seconds"].items()}


def main() -> None:
    """Measure in turns and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = np.load(common.cifar10_npz())["test_images"]
    images = torch.from_numpy(whole[: 1000 if quick else IMAGES].copy())
    ours(images[:AT_ONCE])  # textures and kernels are made once
    turns = [(ours(images), theirs(images)) for _ in range(1 if quick else TURNS)]
    rows: list[dict[str, Any]] = []
    for name in COMMON:
        mine, other = (statistics.median(turn[side][name] for turn in turns) for side in (0, 1))
        rows.append({"corruption": name, "seconds": round(mine, 2), "imagecorruptions": round(other, 1)})
    totals = [tuple(sum(part.values()) for part in turn) for turn in turns]
    seconds = statistics.median(mine for mine, _ in totals)
    ratio = statistics.median(other / mine for mine, other in totals)
    each = ", ".join(f"{mine:.1f}" for mine, _ in totals)
    asks = [
        common.ask(f"{len(images):,} images x 15 x 5", "<= 60 s", f"{seconds:.1f} s ({each})", seconds <= 60),
        common.ask("against imagecorruptions", ">= 15x", f"{ratio:.1f}x", ratio >= 15),
    ]
    write_json(FOLDER / "turns.json", {"turns": turns})
    common.save(
        "corruptions" + ("_quick" if quick else ""),
        rows,
        asks,
        protocol=f"{common.cifar10_kind()} test; {torch.get_num_threads()} threads; peer: one, image by image",
    )


if __name__ == "__main__":
    main()
