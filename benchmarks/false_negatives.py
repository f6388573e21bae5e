"""What do duplicates in the training set cost a contrastive encoder, and what does masking them win back?

Half of CIFAR-10's training images are replaced by copies of a few originals, each copy cropped and encoded anew, so
that no two files are equal. The copies of one original push each other apart as negatives. Every variant makes the
same number of steps from the same start; kNN on the test set with the untouched training set as bank.

Copies of five originals instead of fifty are a harder case: ten times as many false negatives.

``clean`` learns from the untouched set: what ``duplicates`` lack against it is the cost, of which a part is that
there is less to see; ``unique`` learns from the other half alone, without any copy, and shows that part.

On the untouched set too one negative in ten is false: it is of the anchor's class. ``clean, mask label`` leaves these
out by the true labels, which no unlabelled run could: what it gains is what they cost.

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
from fastness.training.assembly import assemble, fitted, make_loop
from fastness.training.loop import Settings

FOLDER = common.WORK / "false_negatives"
STEPS = 900  # about three CPU minutes on one core
VERSION = 1  # raise when what a training step computes changes: kept results are then not used
ORIGINALS, FEW, BATCH = 50, 5, 64
SETTING = f"{ORIGINALS} originals, batch {BATCH}"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # what is learnt from, and the method's options
    "clean": ("clean", {}),
    "duplicates": ("copies", {}),
    "mask group": ("copies", {"mask": "group"}),
    "clean, mask label": ("clean", {"mask": "label"}),
    "mask similar": ("copies", {"mask": "similar"}),
    "mask neighbours": ("copies", {"mask": "neighbours"}),
    f"duplicates of {FEW}": ("copies of few", {}),
    f"mask group of {FEW}": ("copies of few", {"mask": "group"}),
    "unique": ("unique", {}),
    "clean, mask similar": ("clean", {"mask": "similar"}),
    "clean, mask neighbours": ("clean", {"mask": "neighbours"}),
}


def poisoned(seed: int, originals: int = ORIGINALS) -> Path:
    """Return the training set as Parquet, half of it copies of so many; written once."""
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


def train_and_measure(variant: str, seed: int) -> dict[str, Any]:
    """Train one variant and return its figures."""
    data, options = VARIANTS[variant]
    os.environ.setdefault("FASTNESS_DATA", str(common.DATA))
    clean, test = (decoded(open_data("cifar10").split(part), 32) for part in ("train", "test"))
    images = clean
    if data != "clean":
        path = poisoned(seed, FEW if data == "copies of few" else ORIGINALS)
        images = decoded(open_data(str(path), group="group"), 32)
        if data == "unique":
            images = images.select(np.arange(len(images) // 2))
    device = torch.device("cpu")
    asked = Recipe(
        steps=STEPS, width=16, size=32, batch_size=BATCH, seed=seed, options=options,
        views={"count": 4, "size": 0.5},
    )  # fmt: skip
    recipe = plan.complete(asked, images.dataset, device)
    _, encoder = fitted(recipe, images.dataset)
    method, views = assemble(images, recipe, encoder)
    loop = make_loop(method, views, images, recipe, device, Path(), Settings())
    loop.fix_length()
    began = time.process_time()
    loop.run_silently()
    used = time.process_time() - began
    method.eval()

    @torch.no_grad()
    def embed(part: DecodedImages) -> np.ndarray:
        with loop.autocast():
            found = [method.encoder(method.encoder.preprocess(batch)) for _, batch in part.batches(500)]
        return torch.cat(found).float().numpy()

    knn = float((knn_predict(embed(clean), clean.dataset.labels, embed(test)) == test.dataset.labels).mean())
    return {"setting": SETTING, "variant": variant, "seed": seed, "knn": knn, "cpu_seconds": round(used, 1)}


def kept(variant: str, seed: int) -> Path:
    """Return the file of a variant's result."""
    name = f"{SETTING}-{variant}-{seed}-{STEPS}-v{VERSION}.json"
    return FOLDER / name.replace(" ", "-").replace(",", "")


def run(variant: str, seed: int, core: int) -> dict[str, Any]:
    """Run one variant in a process of its own on one core, unless its result is there."""
    path = kept(variant, seed)
    if not path.exists():
        command = [sys.executable, __file__, "--one", variant, str(seed), str(path)]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(["taskset", "-c", str(core), *command], check=True, env=env)
        print(path.read_text().replace("\n", ""), flush=True)
    return dict(json.loads(path.read_text()))


def _asks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_variant: dict[str, dict[int, float]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], {})[row["seed"]] = 100 * row["knn"]

    def gain(one: str, other: str) -> tuple[float, float, str]:
        seeds = sorted(set(by_variant.get(one, {})) & set(by_variant.get(other, {})))
        if len(seeds) < 2:
            return np.nan, np.nan, "not finished"
        mean, low, high = student(np.array([by_variant[one][s] - by_variant[other][s] for s in seeds]))
        return mean, low, f"{mean:.1f} points [{low:.1f}, {high:.1f}] over {len(seeds)} seeds"

    asks = []
    for where, without, oracle, masks in (
        ("copies", "duplicates", "clean", ("mask group", "mask similar", "mask neighbours")),
        (f"copies of {FEW}", f"duplicates of {FEW}", "clean", (f"mask group of {FEW}", "unique")),
        ("classes", "clean", "clean, mask label", ("clean, mask similar", "clean, mask neighbours")),
    ):
        cost, surely, text = gain(oracle, without)
        asks.append(common.ask(f"{where}: what they cost", "to be stated", text, None))
        for mask in masks:
            back, _, text = gain(mask, without)
            # Of a cost that cannot be told from none nothing can be won back.
            holds = back >= cost / 2 if surely > 0 and np.isfinite(back) else None
            asks.append(common.ask(f"{where}: {mask} wins back", "half of the cost", text, holds))
    asks.append(common.ask("copies: of which missing variety", "to be stated", gain("clean", "unique")[2], None))
    return asks


def main() -> None:
    """Run what is missing and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--report", action="store_true", help="run nothing, write what is finished")
    parser.add_argument("--one", nargs=3, metavar=("VARIANT", "SEED", "FILE"))
    options = parser.parse_args()
    if options.one:
        variant, seed, file = options.one
        torch.set_num_threads(1)
        write_json(Path(file), train_and_measure(variant, int(seed)))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    common.cifar10_npz()
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0))[:2]:
        cores.put(core)
    seeds = range(1 if options.quick else options.seeds)
    for seed in seeds:
        for originals in (ORIGINALS, FEW):
            poisoned(seed, originals)  # before two runs could write the same file
    first, rest = list(VARIANTS)[:9], list(VARIANTS)[9:]  # the rest is further information: two seeds are enough
    todo = [(v, seed) for seed in seeds for v in first] + [(v, seed) for seed in seeds[:2] for v in rest]
    if len(seeds) > 1:  # what the classes cost is small beside what a seed changes
        todo += [(v, seed) for seed in range(len(seeds), 2 * len(seeds)) for v in ("clean", "clean, mask label")]

    def work(job: tuple[str, int]) -> dict[str, Any]:
        core = cores.get()
        try:
            return run(*job, core)
        finally:
            cores.put(core)

    if options.report:
        rows = [json.loads(kept(*job).read_text()) for job in todo if kept(*job).exists()]
    else:
        with ThreadPoolExecutor(cores.qsize()) as pool:
            rows = list(pool.map(work, todo))
    protocol = f"{common.cifar10_kind()}, ResNet-18 width 16, {STEPS} steps of {BATCH} items; kNN k=20"
    common.save("false_negatives" + ("_quick" if options.quick else ""), rows, _asks(rows), protocol=protocol)


if __name__ == "__main__":
    main()
