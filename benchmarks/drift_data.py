"""Embeddings for the benchmark of drift tests: what is served in peace, and what comes when it drifts; kept as npz.

Each encoder is trained on the peaceful data (MiniLM is taken as it is), and each file in ``.bench/drift`` holds one
pool of items that belong to the reference, ``before`` ``[N, D]``, and one that does not, ``after`` ``[M, D]``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

import common
import fastness as fs
from fastness.bundle.bundle import Bundle
from fastness.core.files import atomic_path
from fastness.core.seeds import numpy_generator, torch_generator
from fastness.corruptions.image import COMMON, CORRUPTIONS

Array = npt.NDArray[np.float32]
FOLDER = common.WORK / "drift"
NEW_CLASS, GROWN_CLASS = 9, 3  # CIFAR-10's trucks are never trained on; cats become more
NEW_VENDOR = "fluent3d"
BUDGET = "3m"
RETAIL_ROWS = 20_000


def trained(name: str, data: object, **recipe: object) -> Bundle:
    """Return an encoder that is trained on the peaceful data, once."""
    folder = FOLDER / name
    if not (folder / "bundle" / "bundle.json").exists():
        fs.train(data, out=folder, budget=BUDGET, quiet=True, **recipe)
    return fs.load(folder)


def cifar() -> tuple[Bundle, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return an encoder that has seen nine classes, without labels, and the test pictures of all ten."""
    arrays = np.load(common.cifar10_npz())
    bundle = trained("cifar", arrays["images"][arrays["labels"] != NEW_CLASS], method="simclr", width=16)
    return bundle, arrays["test_images"], arrays["test_labels"]


def new_class() -> tuple[Array, Array]:
    """Return nine classes, and the tenth."""
    bundle, images, labels = cifar()
    return bundle.embed(images[labels != NEW_CLASS]), bundle.embed(images[labels == NEW_CLASS])


def class_mix() -> tuple[Array, Array]:
    """Return nine classes, and the one of them that becomes more."""
    bundle, images, labels = cifar()
    return bundle.embed(images[labels != NEW_CLASS]), bundle.embed(images[labels == GROWN_CLASS])


def corrupted(severity: int) -> tuple[Array, Array]:
    """Return nine classes as they are, and the same with one of the fifteen common corruptions each."""
    bundle, images, labels = cifar()
    clean = images[labels != NEW_CLASS]
    pixels = torch.from_numpy(clean)
    kinds = numpy_generator(0, "kinds").integers(0, len(COMMON), len(clean))
    changed = pixels.clone()
    for number, name in enumerate(COMMON):
        rows = torch.from_numpy(np.flatnonzero(kinds == number))
        changed[rows] = CORRUPTIONS.get(name)(pixels[rows], severity, torch_generator(0, name, severity))
    return bundle.embed(clean), bundle.embed(changed.numpy())


def vendor() -> tuple[Array, Array]:
    """Return the emoji of two vendors, on which the encoder is trained, and those of the third."""
    import pyarrow.parquet as pq

    path = common.DATA / "emoji" / "emoji.parquet"
    table = pq.read_table(path, columns=["image", "vendor"])
    parts = {}
    for name, wanted in (("before", False), ("after", True)):
        parts[name] = FOLDER / f"emoji-{name}.parquet"
        mask = [(v == NEW_VENDOR) == wanted for v in table["vendor"].to_pylist()]
        with atomic_path(parts[name]) as temporary:
            pq.write_table(table.filter(mask).select(["image"]), temporary)
    bundle = trained("emoji", parts["before"], method="simclr", width=16, size=32)
    return bundle.embed(parts["before"]), bundle.embed(parts["after"])


def language() -> tuple[Array, Array]:
    """Return English captions, and the German ones of other pictures, by MiniLM."""
    folder = common.DATA / "text" / "multi30k"
    english, german = (
        (folder / f"task1_raw_train.{name}.txt").read_text(encoding="utf-8").splitlines() for name in ("en", "de")
    )
    bundle = fs.load(common.minilm_bundle())
    return bundle.embed(english[:6000]), bundle.embed(german[6000:8000])


def month() -> tuple[Array, Array]:
    """Return what a shop sold from January to June, and in October, by an encoder of the first months' rows."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from pyarrow import csv

    table = csv.read_csv(common.DATA / "table" / "online_retail.csv.gz")
    when = table["InvoiceDate"]
    words = pc.list_element(pc.utf8_split_whitespace(pc.fill_null(table["Description"], "-"), max_splits=1), 0)
    rows = table.select(["Quantity", "UnitPrice", "Country"])
    rows = rows.append_column("word", words).append_column("hour", pc.hour(when))
    parts = {}
    for name, months in (("before", (1, 2, 3, 4, 5, 6)), ("after", (10,))):
        mask = pc.and_(pc.equal(pc.year(when), 2011), pc.is_in(pc.month(when), pa.array(months, pa.int64())))
        chosen = np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        chosen = numpy_generator(0, name).permutation(chosen)[:RETAIL_ROWS]
        parts[name] = FOLDER / f"retail-{name}.parquet"
        with atomic_path(parts[name]) as temporary:
            pq.write_table(rows.take(chosen), temporary)
    bundle = trained("retail", parts["before"])
    return bundle.embed(parts["before"]), bundle.embed(parts["after"])


def gaussian() -> tuple[Array, Array]:
    """Return normal items in 64 dimensions, and such whose mean lies 0.2 off in each."""
    drawn = numpy_generator(0, "gaussian").standard_normal((20_000, 64)).astype(np.float32)
    return drawn[:10_000], drawn[10_000:] + np.float32(0.2)


SHIFTS: dict[str, Callable[[], tuple[Array, Array]]] = {
    "vendor": vendor,
    "corruption 1": lambda: corrupted(1),
    "corruption 2": lambda: corrupted(2),
    "corruption 3": lambda: corrupted(3),
    "class mix": class_mix,
    "new class": new_class,
    "language": language,
    "month": month,
    "gaussian": gaussian,
}


def pools(name: str) -> Path:
    """Return the file of a shift's pools, made on first use."""
    path = FOLDER / f"{name.replace(' ', '-')}.npz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        before, after = SHIFTS[name]()
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, before=before, after=after)
    return path
