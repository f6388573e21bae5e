"""Every odd picture is read right, every damaged one is quarantined by name, and none ends a run."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import PIXELS, idx, installed, tar_folder, write_classes, write_parquet, zip_folder
from fastness.core.errors import BadInput
from fastness.data import Dataset, open_data
from fastness.data.cache import decoded
from fastness.data.manifest import printable
from fastness_runtime.decode import DamagedItem, declared, decode
from hostile import Hostile, write_hostile


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    return write_hostile(tmp_path_factory.mktemp("hostile") / "pictures")


def _pixels(dataset: Dataset) -> dict[str, np.ndarray]:
    names = dataset.manifest.names
    return {name: decode(dataset.payloads.read(int(row))) for name, row in zip(names, dataset.rows, strict=True)}


def test_exactly_the_undecodable_are_quarantined(hostile: Hostile) -> None:
    opened = open_data(hostile.folder)
    images = decoded(opened, 16)

    assert sorted(images.dataset.manifest.names) == sorted(hostile.good)
    assert opened.ignored == hostile.passed_over
    reasons = {printable(item.name): item.reason for item in images.dataset.quarantine}
    assert len(reasons) == len(images.dataset.quarantine)
    assert sorted(reasons) == sorted(map(printable, hostile.bad))
    for name, word in hostile.bad.items():
        reason = reasons[printable(name)]
        assert word in reason and reason and "\n" not in reason


def test_odd_pictures_are_read_right(hostile: Hostile) -> None:
    read = _pixels(decoded(open_data(hostile.folder), 16).dataset)

    for name, (expected, allowed) in hostile.good.items():
        assert read[name].shape == expected.shape, name
        assert np.abs(read[name].astype(int) - expected).max() <= allowed, name


def _zip(folder: Path, names: list[str], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.write(folder / name, name)
    return path


def _tar(folder: Path, names: list[str], path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.add(folder / name, name)
    return path


@pytest.mark.parametrize(("pack", "ending"), [(_zip, "zip"), (_tar, "tar.gz")])
def test_archives_agree_with_the_folder(
    hostile: Hostile, tmp_path: Path, pack: Callable[..., Path], ending: str
) -> None:
    def packable(names: dict[str, Any]) -> list[str]:
        return [
            n for n in names if not (hostile.folder / n).is_symlink() and n.encode("utf-8", "replace").decode() == n
        ]

    good, bad = packable(hostile.good), packable(hostile.bad)
    images = decoded(open_data(pack(hostile.folder, good + bad, tmp_path / f"all.{ending}")), 16)

    assert sorted(images.dataset.manifest.names) == sorted(good)
    assert {item.name for item in images.dataset.quarantine} == set(bad)


def test_training_goes_on_and_lists_them(hostile: Hostile, tmp_path: Path) -> None:
    ended = installed("train", hostile.folder, "--steps", 2, "--width", 4, "--batch-size", 8, "--out", tmp_path / "run")

    assert ended.status == 0, ended.err
    assert f"{len(hostile.bad)} quarantined" in ended.err
    with (tmp_path / "run" / "quarantine.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert sorted(row["item"] for row in rows) == sorted(map(printable, hostile.bad))
    assert all(row["reason"] for row in rows)


def test_nothing_but_damage_names_one_and_why(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"words")

    with pytest.raises(BadInput, match=r"none of 2 items can be decoded, e\.g\. a\.png: no picture"):
        decoded(open_data(tmp_path), 16)


def test_one_picture_opens_without_a_look_at_its_neighbours(hostile: Hostile) -> None:
    opened = open_data(hostile.folder / "plain.png")

    assert opened.manifest.names == ["plain.png"]
    assert opened.ignored == 0 and not opened.quarantine


def _write_good(path: Path) -> None:
    """Write a good file of the kind that the name says."""
    if ".zip" in path.name or ".tar" in path.name:
        write_classes(path.parent / "photos")
        (zip_folder if ".zip" in path.name else tar_folder)(path.parent / "photos", path)
    elif ".parquet" in path.name:
        write_parquet(path, range(8))
    elif "idx" in path.name:
        path.write_bytes(gzip.compress(idx(PIXELS[..., 0])) if ".gz" in path.name else idx(PIXELS[..., 0]))
    else:
        (np.save if path.suffix == ".npy" else np.savez_compressed)(path, PIXELS)


KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "npy", "npz", "parquet", "idx3-ubyte", "idx3-ubyte.gz"]


@pytest.mark.parametrize("damage", ["half", "head", "words", "nothing"])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_of_many_are_refused_in_one_line(tmp_path: Path, kind: str, damage: str) -> None:
    path = tmp_path / f"x-images.{kind}"
    _write_good(path)
    assert len(open_data(path)) == 8
    raw = path.read_bytes()
    parts = {"half": raw[: len(raw) // 2], "head": raw[:3], "words": b"no such thing " * 99, "nothing": b""}
    path.write_bytes(parts[damage])

    with pytest.raises(BadInput) as refused:
        open_data(path)
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_give_a_data_set_or_a_refusal_and_nothing_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x-images.{kind}"
    _write_good(path)
    raw, generator = path.read_bytes(), np.random.default_rng(0)
    for _ in range(15):
        changed = bytearray(raw)
        for position in generator.integers(0, len(raw), 3):
            changed[position] ^= int(generator.integers(1, 256))
        path.write_bytes(changed)
        try:
            decoded(open_data(path), 8)
        except BadInput as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_what_runs_or_hides_a_picture_of_another_size_is_no_picture() -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"
    with pytest.raises(DamagedItem, match="no picture in any known format"):
        decode(program)
    assert declared(program) == 0


def test_damaged_metadata_leaves_the_pixels_as_they_lie() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(file, "PNG", exif=b"Exif\0\0no tags at all")
    assert np.array_equal(decode(file.getvalue()), PIXELS[0])
