"""What all tests share: a cache of their own, tiny pictures, a tiny bundle, and the command line in a process."""

from __future__ import annotations

import atexit
import functools
import io
import json
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

if TYPE_CHECKING:
    from fastness.registry import Registry
    from served import Made

# Fixtures that are made once for all examples of a test are meant; timing on a busy machine says nothing.
settings.register_profile(
    "fastness", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("fastness")

# Tiny tensors: more threads only wait for each other, the longer the busier the machine is.
os.environ.setdefault("OMP_NUM_THREADS", "1")

EXECUTABLE = Path(sys.executable).with_name("fastness")
_HEAVY = [
    "pytest",
    "hypothesis",
    "pyarrow.parquet",
    "fastness.training.run",
    "fastness.evaluation.evaluate",
    "fastness.tasks.search",
    "fastness.cli.main",
]
_STANDARD_SOURCES = (
    "torchvision.datasets.CIFAR10, Tiny-ImageNet, npm emoji-datasource-*, clothing-dataset-small, "
    "Magnetic-tile-defect, OTB"
)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep everything that tests cache in a temporary folder, in this process and in those it starts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTNESS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of the shared data sets; without it the test is skipped."""
    given = os.environ.get("FASTNESS_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder}: no shared data; set FASTNESS_DATA, or fetch the sets from {_STANDARD_SOURCES}")
    return folder


def picture(seed: int, size: int = 12) -> np.ndarray:
    """Return a smooth colour pattern, uint8 ``[size, size, 3]``, that the seed decides."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    return np.asarray(Image.fromarray(corners).resize((size, size), Image.Resampling.BICUBIC))


def pictures(n: int, size: int = 12, seed: int = 0) -> np.ndarray:
    """Return ``n`` patterns, uint8 ``[n, size, size, 3]``."""
    return np.stack([picture(1000 * seed + i, size) for i in range(n)])


PIXELS = pictures(8)
LABELS = [0, 1, 1, 0, 1, 0, 0, 1]


def on_pictures() -> list[str]:
    """Return the methods that learn from pictures; tasks of prediction are for texts and tables."""
    from fastness.methods import METHODS
    from fastness.methods.pretext import Pretext

    return [name for name in METHODS if not issubclass(METHODS.get(name), Pretext)]


@functools.cache
def teacher() -> str:
    """Return the folder of a tiny bundle of pictures, for methods that learn from one; the same in every process."""
    import torch

    from fastness.bundle import write
    from fastness.data.manifest import Manifest
    from fastness.encoders import build
    from fastness.encoders.image import ImageSpec

    folder = Path(tempfile.mkdtemp(prefix="fastness-teacher-"))
    atexit.register(shutil.rmtree, folder)
    with torch.random.fork_rng(devices=[]):  # whoever asks first has seeded what it draws itself
        torch.manual_seed(7)
        encoder = build(ImageSpec("resnet18", 16, {"width": 4}))
    write(folder / "bundle", encoder, {}, Manifest([], np.zeros((0, 32), np.uint8)))
    return str(folder / "bundle")


def required(method: str) -> dict[str, Any]:
    """Return the options without which a method cannot be made."""
    return {"teacher": teacher()} if method == "distil" else {}


def write_pictures(folder: Path, pixels: np.ndarray, suffix: str = ".png") -> list[Path]:
    """Write pictures as ``00.png``, ``01.png`` … and return their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:02}{suffix}" for i in range(len(pixels))]
    for path, array in zip(paths, pixels, strict=True):
        Image.fromarray(array).save(path, quality=95)
    return paths


def write_classes(folder: Path, names: str = "ab", each: int = 4, size: int = 12) -> Path:
    """Write one folder a class with ``each`` pictures and return the root."""
    for seed, name in enumerate(names):
        write_pictures(folder / name, pictures(each, size, seed))
    return folder


def zip_folder(folder: Path, path: Path) -> None:
    """Pack a folder into a zip, in no good order."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder.parent))


def tar_folder(folder: Path, path: Path) -> None:
    """Pack a folder into a tar, compressed as its name says."""
    with tarfile.open(path, f"w:{path.suffix[1:].replace('tgz', 'gz').replace('tar', '')}") as archive:
        archive.add(folder, folder.name)


def idx(array: np.ndarray) -> bytes:
    """Return an array of bytes in MNIST's format."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def png(pixels: np.ndarray) -> bytes:
    """Return a picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, rows: range, names: list[str] | None = None, **more: list[Any]) -> Path:
    """Write those of `PIXELS` and `LABELS` as Hugging Face's datasets do, two a row group."""
    path.parent.mkdir(exist_ok=True)
    data = [{"bytes": png(PIXELS[i]), "path": f"{i}.png"} for i in rows]
    table = pa.table({"image": data, "label": [LABELS[i] for i in rows], **more})
    if names:
        feature = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": feature}})})
    pq.write_table(table, path, row_group_size=2)
    return path


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twelve pictures; not to be changed."""
    return write_classes(tmp_path_factory.mktemp("labelled"), each=12)


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, labelled: Path) -> Iterator[Path]:
    """The folder of a tiny finished run on `labelled`; not to be changed."""
    import fastness as fs

    out = tmp_path_factory.mktemp("run")
    made = fs.train(labelled, steps=2, width=4, size=16, batch_size=8, out=out, quiet=True).folder
    before = content(made)
    yield made
    assert content(made) == before, f"{made}: a test changed what all tests of its process share"


@pytest.fixture(scope="session")
def bundle(run: Path) -> Path:
    """The folder of a tiny trained bundle; not to be changed."""
    return run / "bundle"


@pytest.fixture(scope="session")
def worse(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `bundle` that sees nothing, since every weight is zero; not to be changed."""
    import fastness as fs
    from fastness.bundle import write

    loaded = fs.load(bundle)
    for parameter in loaded.encoder.parameters():
        parameter.data.mul_(0)
    folder = tmp_path_factory.mktemp("worse") / "bundle"
    write(folder, loaded.encoder, loaded.recipe, loaded)
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Return the address of a real PostgreSQL with pgvector."""
    import pgserver

    with tempfile.TemporaryDirectory(prefix="fastness-pg-") as place:
        running = pgserver.get_server(place)
        yield running.get_uri()
        running.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a registry that is not there yet."""
    return str(tmp_path / "registry") if request.param == "sqlite" else database(request.getfixturevalue("server"))


def database(server: str) -> str:
    """Return the address of a new, empty database."""
    import psycopg

    name = f"r{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def registry(address: str, tmp_path: Path) -> Iterator[Registry]:
    """Return an empty registry."""
    from fastness.registry import Registry

    with Registry(address, str(tmp_path / "kept") if "://" in address else None) as opened:
        yield opened


@pytest.fixture
def make(bundle: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return what makes a bundle that differs from others by what it has attached."""

    def made(text: str) -> Path:
        folder = tmp_path / f"bundle-{text}"
        shutil.copytree(bundle, folder)
        (folder / "cards").mkdir()
        (folder / "cards" / "card.md").write_text(text)
        return folder

    return made


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit status (negative: the signal) and what it wrote."""

    status: int
    out: str
    err: str


def fork(target: Callable[..., Any], *args: Any) -> multiprocessing.process.BaseProcess:
    """Start ``target`` in a process of its own that already has the heavy imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_HEAVY)
    process = context.Process(target=_child, args=(os.environ.get("FASTNESS_CACHE"), target, *args), daemon=True)
    process.start()
    return process


def _child(cache: str | None, target: Callable[..., Any], *args: Any) -> None:
    os.environ["FASTNESS_CACHE"] = str(cache)
    target(*args)


def command_line(words: list[str], folder: str, log: str) -> None:
    """Be ``fastness WORDS`` in ``folder``, with both outputs in files."""
    os.chdir(folder)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = ["fastness", *words]
    from fastness.cli.main import main

    main()


@pytest.fixture
def fastness(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """Return a function that runs a command line in ``tmp_path``, by `fork` since imports take seconds."""
    log = tmp_path_factory.mktemp("log")

    def call(*words: object) -> Ended:
        process = fork(command_line, [str(word) for word in words], str(tmp_path), str(log))
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, (log / "out").read_text(), (log / "err").read_text())

    return call


def installed(*words: object, cwd: Path | None = None) -> Ended:
    """Run the installed ``fastness``."""
    done = subprocess.run([EXECUTABLE, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """Three bundles of texts, each with a head and an export; not to be changed."""
    from served import make_words

    return make_words(tmp_path_factory.mktemp("words"), 3)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle of pictures with a head and an export; not to be changed."""
    from served import make_pictures

    return make_pictures(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle of a table with a head and an export; not to be changed."""
    from served import make_rows

    return make_rows(tmp_path_factory.mktemp("cells"))
