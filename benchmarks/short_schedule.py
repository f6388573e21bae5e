"""What makes a short run good? SimCLR variants in equal CPU time, judged on held-out *training* images.

45,000 training images are learnt from, 5,000 others of them (stratified, seed 0) are the queries of the kNN; the test
set is never opened. Each variant changes a thing or two, runs on one core with one thread, and may use the same
CPU seconds; its number of steps is fixed from six trial steps. The winner is what ``SimCLR.defaults.scarce`` holds.

Finished variants are kept in ``.bench/short_schedule`` and not run again.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import common
from fastness.core.files import write_json
from fastness.core.recipe import Recipe
from fastness.data import open_data
from fastness.data.cache import DecodedImages, decoded
from fastness.encoders import Encoder
from fastness.metrics.knn import knn_predict
from fastness.training import plan
from fastness.training.assembly import assemble, fitted, make_loop
from fastness.training.loop import Loop, Settings

FOLDER = common.WORK / "short_schedule"
CPU_SECONDS = 240.0
FULL = {"count": 2, "size": 1.0}
SMALL = {"count": 4, "size": 0.5}
NOW = {"views": SMALL, "batch_size": 64, "lr": 0.06, "weight_decay": 4e-3, "temperature": 0.15}
OLD = {"weight_decay": 5e-4, "temperature": 0.2}
VARIANTS: dict[str, dict[str, Any]] = {
    "two views of 32 px, batch 128": {"views": FULL, "batch_size": 128, "lr": 0.06, **OLD},
    "… rate 0.12": {"views": FULL, "batch_size": 128, "lr": 0.12, **OLD},
    "… rate 0.03": {"views": FULL, "batch_size": 128, "lr": 0.03, **OLD},
    "two views of 16 px, batch 128": {"views": {"count": 2, "size": 0.5}, "batch_size": 128, "lr": 0.06, **OLD},
    "four views of 16 px, batch 128": {"views": SMALL, "batch_size": 128, "lr": 0.06, **OLD},
    "four views of 16 px, batch 32": {"views": SMALL, "batch_size": 32, "lr": 0.06, **OLD},
    "four views of 16 px, batch 64": NOW | OLD,
    "… the defaults": NOW,
    "… weight decay 2e-3": NOW | {"weight_decay": 2e-3},
    "… weight decay 8e-3": NOW | {"weight_decay": 8e-3},
    "… temperature 0.1": NOW | {"temperature": 0.1},
    "… temperature 0.2": NOW | {"temperature": 0.2},
    "… weaker colours": NOW
    | {"views": {**SMALL, "gray": 0.1, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.08}},
}


def run(changes: dict[str, Any], train: DecodedImages, held_out: DecodedImages, cpu: float) -> dict[str, Any]:
    """Train one variant and return its figures."""
    device = torch.device("cpu")
    recipe = plan.complete(Recipe.parse({**changes, "steps": 1 << 20, "width": 16, "size": 32}), train.dataset, device)

    def fresh() -> Loop:
        _, encoder = fitted(recipe, train.dataset)
        method, views = assemble(train, recipe, encoder)
        loop = make_loop(method, views, train, recipe, device, Path(), Settings())
        loop.fix_length()
        return loop

    loop, trial = fresh(), []
    source = loop.source(0, 8)
    for step in range(8):
        began = time.process_time()
        loop.update(source, step, loop.total)
        trial.append(time.process_time() - began)
    loop = fresh()
    loop.total = int(cpu / np.mean(trial[2:]))
    began = time.process_time()
    loop.run_silently()
    used = time.process_time() - began
    bank, queries = (embed(loop.method.encoder, part) for part in (train, held_out))
    labels, wanted = train.dataset.labels, held_out.dataset.labels
    assert labels is not None
    knn = float((knn_predict(bank, labels, queries) == wanted).mean())
    views = loop.total * (recipe.batch_size or 0) * loop.batches.views.count
    return {"knn": knn, "steps": loop.total, "cpu_seconds": used, "views_per_cpu_second": views / used}


@torch.no_grad()
def embed(encoder: Encoder, images: DecodedImages) -> np.ndarray:
    """Return the features of all images."""
    encoder.eval()
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([encoder(encoder.preprocess(batch)) for _, batch in images.batches(500)]).numpy()


def main() -> None:
    """Run what is missing and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    os.environ.setdefault("FASTNESS_DATA", str(common.DATA))
    rest, held = open_data("cifar10").split("train").divide(0.1, 0)
    train, held_out = decoded(rest, 32), decoded(held, 32)
    rows: list[dict[str, Any]] = []
    for name, changes in VARIANTS.items():
        path = FOLDER / f"{'quick' if quick else 'full'}-{len(rows)}.json"
        if not path.exists():
            row = {"variant": name, **run(changes, train, held_out, 20.0 if quick else CPU_SECONDS)}
            write_json(path, row)
            print(json.dumps(row), flush=True)
        rows.append(json.loads(path.read_text()))
    protocol = f"{common.cifar10_kind()}, ResNet-18 width 16, one seed; kNN k=20 T=0.07, bank 45,000, 5,000 queries"
    common.save("short_schedule" + ("_quick" if quick else ""), rows, [], protocol=protocol)


if __name__ == "__main__":
    main()
