"""What ``fastness-runtime`` weighs where there is nothing else, how long its import takes, and whether it is right.

A fresh virtual environment gets the distribution and what it depends on, as ``pip install ./runtime`` does; then the
extra for texts. Installed size counts every file of site-packages but pip's and setuptools'. Imports are timed within
fresh processes, in turns with numpy alone. Embeddings of 1,000 photographs of clothes cut to mixed sizes and of 1,000
questions of Banking77 are computed there and compared with torch's.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import common
import fastness as fs
from fastness.core.seeds import numpy_generator
from fastness.data.cache import decoded
from fastness.data.text import texts_of

FOLDER = common.WORK / "runtime"
RUNTIME = common.WORK.parent / "runtime"
CLOTHES, QUESTIONS = common.DATA / "clothing" / "clothing.zip", common.DATA / "text" / "banking77" / "test.csv"
HEAVY = ("torch", "onnx", "PIL", "fastness", "pandas", "scipy")
THERE = """
import json, sys
import numpy as np
from fastness_runtime import load
export, items, out = sys.argv[1:]
given = json.load(open(items)) if items.endswith(".json") else [*np.load(items).values()]
np.save(out, load(export).embed(given))
print(json.dumps([name for name in HEAVY if name in sys.modules]))
"""
TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def installed(what: str, folder: Path) -> float:
    """Install into an environment and return the size of its packages in MB."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", what], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    parts = [p for p in packages.iterdir() if p.name.split("-")[0] not in ("pip", "setuptools")]
    files = [file for part in parts for file in ([part] if part.is_file() else part.rglob("*")) if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, 1)


def imports(python: Path, turns: int) -> dict[str, float]:
    """Return the median seconds of an import in a fresh process, of the runtime and of numpy alone."""
    seconds: dict[str, list[float]] = {"fastness_runtime": [], "numpy": []}
    for _ in range(turns + 1):
        for name, found in seconds.items():
            said = subprocess.run([python, "-c", TIMED.format(name)], check=True, capture_output=True, text=True)
            found.append(float(said.stdout))
    return {name: round(statistics.median(found[1:]), 3) for name, found in seconds.items()}


def pictures(n: int) -> tuple[Path, Path, np.ndarray]:
    """Return an export, the file of the items, and torch's embeddings of them."""
    run = fs.train(
        CLOTHES, encoder="resnet18", width=16, size=32, steps=100, label="none", out=FOLDER / "run", quiet=True
    )
    made = fs.export(run.bundle, CLOTHES)
    whole, generator = decoded(fs.open_data(CLOTHES, label="none"), 96), numpy_generator(0, "sizes")
    items = []
    for picture in whole.batch(np.sort(generator.permutation(len(whole))[:n])).numpy():
        height, width = generator.integers(24, 97, 2)
        items.append(np.ascontiguousarray(picture[:, :height, :width].transpose(1, 2, 0)))
    np.savez(FOLDER / "pictures.npz", *items)
    return made.folder, FOLDER / "pictures.npz", fs.load(run.bundle).embed(items)


def texts(n: int) -> tuple[Path, Path, np.ndarray]:
    """The same of texts."""
    bundle = fs.load(common.minilm_bundle())
    folder = bundle.path / "exports" / "onnx"
    if not (folder / "export.json").exists():
        fs.export(bundle, QUESTIONS, text="text")
    items = texts_of(fs.open_data(QUESTIONS, text="text", label="none"))[:n]
    (FOLDER / "texts.json").write_text(json.dumps([*items]))
    return folder, FOLDER / "texts.json", bundle.embed([*items])


def compared(python: Path, export: Path, items: Path, expected: np.ndarray) -> dict[str, Any]:
    """Embed there and return how far that is from torch's, and what heavy thing was imported."""
    out = FOLDER / "there.npy"
    script = THERE.replace("HEAVY", repr(HEAVY))
    said = subprocess.run([python, "-c", script, export, items, out], check=True, capture_output=True, text=True)
    alike = (np.load(out) * expected).sum(1)
    return {"items": len(alike), "least_cosine": float(alike.min()), "imported": json.loads(said.stdout)}


def main() -> None:
    """Install, measure, and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    n, turns = (100, 5) if quick else (1000, 15)
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(FOLDER / "venv", ignore_errors=True)
    python = FOLDER / "venv" / "bin" / "python"
    rows: list[dict[str, Any]] = [{"installed": "fastness-runtime", "mb": installed(str(RUNTIME), FOLDER / "venv")}]
    rows[0] |= {"import_s": imports(python, turns), **compared(python, *pictures(n))}
    rows.append({"installed": "fastness-runtime[text]", "mb": installed(f"{RUNTIME}[text]", FOLDER / "venv")})
    rows[1] |= {"import_s": imports(python, turns), **compared(python, *texts(n))}
    size, least = rows[0]["mb"], min(row["least_cosine"] for row in rows)
    seconds = max(row["import_s"]["fastness_runtime"] for row in rows)
    nothing = not any(row["imported"] for row in rows)
    asks = [
        common.ask("installed, MB", "< 160", size, size < 160),
        common.ask("import, s", "< 0.3", seconds, seconds < 0.3),
        common.ask("least cosine to torch's embeddings", ">= 0.99999", f"{least:.7f}", least >= 0.99999 and nothing),
    ]
    common.save("runtime" + ("_quick" if quick else ""), rows, asks)


if __name__ == "__main__":
    main()
