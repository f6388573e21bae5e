"""What do duplicates in the training set cost a contrastive encoder, and what does masking them win back?

Half of CIFAR-10's training images are replaced by copies of a few originals, each copy cropped and encoded anew, so
that no two files are equal. The copies of one original push each other apart as negatives. Every variant makes the
same number of steps from the same start; kNN on the test set with the untouched training set as bank.

``clean`` learns from the untouched set: what ``duplicates`` lack against it is the cost, of which a part is that
there is less to see; ``unique`` learns from the other half alone, without any copy, and shows that part.

Finished runs are kept in ``.bench/false_negatives`` and not run again; two run at a time, one a core.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
from PIL import Image

import common
from fastness.core.files import atomic_path, write_json
from fastness.core.recipe import Recipe
from fastness.core.seeds import numpy_generator
from fastness.data import open_data
from fastness.data.cache import DecodedImages, decoded
from fastness.metrics.intervals import student
from fastness.metrics.knn import knn_predict
from fastness.training import plan
from fastness.training.loop import Settings
from fastness.training.run import assemble, make_loop

FOLDER = common.WORK / "false_negatives"
STEPS = 900  # about three CPU minutes on one core
SETTINGS = {"50 originals, batch 64": (50, 64, 1), "10 originals, batch 256": (10, 256, 4)}
VARIANTS: dict[str, dict[str, Any]] = {
    "clean": {},
    "unique": {},
    "duplicates": {},
    "mask group": {"mask": "group"},
    "mask similar": {"mask": "similar"},
    "mask neighbours": {"mask": "neighbours"},
}


def poisoned(originals: int, seed: int) -> Path:
    """Return the training set as Parquet, half of it copies; written once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = FOLDER / f"{originals}-{seed}.parquet"
    if path.exists():
        return path
    with np.load(common.cifar10_npz()) as data:
        images, labels = data["images"].transpose(0, 2, 3, 1), data["labels"]
    generator = numpy_generator(seed, "copies")
    order = generator.permutation(len(images))
    kept, half = order[: len(order) // 2], len(order) - len(order) // 2
    sources = np.concatenate([kept, np.resize(kept[:originals], half)])
    encoded, groups = [], []
    for place, source in enumerate(sources):
        picture = Image.fromarray(images[source])
        quality = 95
        if place >= len(kept):
            side = int(generator.integers(27, 32))
            left, top = generator.integers(0, 33 - side, 2)
            picture = picture.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BICUBIC)
            quality = int(generator.integers(60, 96))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        encoded.append({"bytes": file.getvalue(), "path": None})
        groups.append(str(source))
    copy = [place >= len(kept) for place in range(len(sources))]
    table = pa.table({"image": encoded, "group": groups, "label": labels[sources], "copy": copy})
    FOLDER.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return path


def train_and_measure(setting: str, variant: str, seed: int) -> dict[str, Any]:
    """Train one variant and return its figures."""
    originals, batch, shorter = SETTINGS[setting]
    os.environ.setdefault("FASTNESS_DATA", str(common.DATA))
    clean, test = (decoded(open_data("cifar10").split(part), 32) for part in ("train", "test"))
    images = clean
    if variant != "clean":
        images = decoded(open_data(str(poisoned(originals, seed)), group="group"), 32)
        if variant == "unique":
            images = images.select(np.arange(len(images) // 2))
    device = torch.device("cpu")
    asked = Recipe(
        steps=STEPS // shorter, width=16, size=32, batch_size=batch, seed=seed, options=VARIANTS[variant],
        views={"count": 4, "size": 0.5},
    )  # fmt: skip
    recipe = plan.complete(asked, images.dataset, device)
    method, views = assemble(images, recipe)
    loop = make_loop(method, views, images, recipe, device, Path(), Settings())
    loop.fix_length()
    began = time.process_time()
    loop.run_silently()
    used = time.process_time() - began
    method.eval()

    @torch.no_grad()
    def embed(part: DecodedImages) -> np.ndarray:
        with loop.autocast():
            found = [method.encoder(method.encoder.preprocess(batch)) for batch in part.batches(500)]
        return torch.cat(found).float().numpy()

    knn = float((knn_predict(embed(clean), clean.dataset.labels, embed(test)) == test.dataset.labels).mean())
    return {"setting": setting, "variant": variant, "seed": seed, "knn": knn, "cpu_seconds": round(used, 1)}


def run(setting: str, variant: str, seed: int, core: int) -> dict[str, Any]:
    """Run one variant in a process of its own on one core, unless its result is there."""
    name = f"{setting}-{variant}-{seed}-{STEPS}-{common.source_hash('losses', 'methods')}.json"
    path = FOLDER / name.replace(" ", "-").replace(",", "")
    if not path.exists():
        command = [sys.executable, __file__, "--one", setting, variant, str(seed), str(path)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(["taskset", "-c", str(core), *command], check=True, env=env)
        print(path.read_text().replace("\n", ""), flush=True)
    return dict(json.loads(path.read_text()))


def _asks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    asks = []
    for setting in SETTINGS:
        by_seed: dict[str, dict[int, float]] = {}
        for row in rows:
            if row["setting"] == setting:
                by_seed.setdefault(row["variant"], {})[row["seed"]] = 100 * row["knn"]
        if "clean" not in by_seed:
            continue

        def gain(one: str, other: str, found: dict[str, dict[int, float]] = by_seed) -> tuple[float, str]:
            seeds = sorted(set(found[one]) & set(found[other]))
            values = np.array([found[one][s] - found[other][s] for s in seeds])
            mean, low, high = student(values)
            return mean, f"{mean:.1f} points [{low:.1f}, {high:.1f}] over {len(seeds)} seeds"

        cost, text = gain("clean", "duplicates")
        asks.append(common.ask(f"{setting}: what the duplicates cost", "to be stated", text, None))
        asks.append(
            common.ask(f"{setting}: of which missing variety", "to be stated", gain("clean", "unique")[1], None)
        )
        for variant in ("mask group", "mask similar", "mask neighbours"):
            back, text = gain(variant, "duplicates")
            asks.append(
                common.ask(f"{setting}: {variant} wins back", f">= {cost / 2:.1f} points", text, back >= cost / 2)
            )
    return asks


def main() -> None:
    """Run what is missing and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--one", nargs=4, metavar=("SETTING", "VARIANT", "SEED", "FILE"))
    options = parser.parse_args()
    if options.one:
        setting, variant, seed, file = options.one
        torch.set_num_threads(1)
        write_json(Path(file), train_and_measure(setting, variant, int(seed)))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    common.cifar10_npz()
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0))[:2]:
        cores.put(core)
    seeds = range(1 if options.quick else options.seeds)
    for setting in SETTINGS:
        for seed in seeds:
            poisoned(SETTINGS[setting][0], seed)
    todo = [(setting, variant, seed) for seed in seeds for setting in SETTINGS for variant in VARIANTS]

    def work(job: tuple[str, str, int]) -> dict[str, Any]:
        core = cores.get()
        try:
            return run(*job, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(cores.qsize()) as pool:
        rows = list(pool.map(work, todo))
    protocol = f"{common.cifar10_kind()}, ResNet-18 width 16, {STEPS} steps of 64 items (or a quarter of 256); kNN k=20"
    common.save("false_negatives" + ("_quick" if options.quick else ""), rows, _asks(rows), protocol=protocol)


if __name__ == "__main__":
    main()
