"""The reference sketch: what is kept is what a service would see, of items that are new, and nobody changed it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastness as fs
from conftest import Ended, picture, pictures, png
from fastness.core.errors import BadInput
from fastness.data import open_data, traits
from fastness.monitoring.sketch import Sketch
from fastness.monitoring.sketching import of_window
from fastness.monitoring.window import Window
from served import Made


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Made], Made]:
    """Return a function that gives a bundle of one's own, with the data it was made of."""

    def copy(made: Made) -> Made:
        return Made(Path(shutil.copytree(made.bundle, tmp_path / "bundle")), made.data, made.columns)

    return copy


def same(one: Sketch, other: Sketch) -> None:
    assert one.names == other.names and one.window.ids == other.window.ids
    np.testing.assert_array_equal(one.window.vectors, other.window.vectors)
    np.testing.assert_array_equal(one.centroids, other.centroids)
    np.testing.assert_array_equal(one.shares, other.shares)
    assert set(one.window.columns) == set(other.window.columns)
    for name, values in one.window.columns.items():
        np.testing.assert_array_equal(values, other.window.columns[name])
        assert values.dtype == other.window.columns[name].dtype


@pytest.mark.parametrize("name", ["words", "photos", "cells"])
def test_a_sketch_is_what_the_export_and_its_head_say_of_the_items(
    copied: Callable[[Made], Made], words: list[Made], photos: Made, cells: Made, name: str
) -> None:
    made = copied({"words": words[0], "photos": photos, "cells": cells}[name])
    found = fs.sketch(made.bundle, made.data, form="onnx", **made.columns)
    same(found, Sketch.load(made.bundle))
    same(found, Sketch.load(made.bundle / "sketch"))
    window, dataset = found.window, open_data(made.data, modality=None, **made.columns)
    places = {item: row for row, item in enumerate(dataset.manifest.names)}
    rows = [places[item] for item in window.ids]
    read = [dataset.payloads.read(row) for row in rows]
    if name == "cells":
        read = [{key: value for key, value in row.items() if key != "kind"} for row in read]
    np.testing.assert_allclose(window.vectors, made.encoder.embed(read), atol=1e-3)
    answers, columns = made.encoder.classify(read), window.columns
    assert columns["label"].tolist() == answers.labels.tolist()
    np.testing.assert_allclose(columns["confidence"], answers.probabilities.max(1), atol=1e-4)
    np.testing.assert_array_equal(columns["abstained"], answers.abstained)
    assert dataset.labels is not None
    truth = [dataset.class_names[dataset.labels[row]] for row in rows]
    assert columns["truth"].tolist() == truth
    np.testing.assert_array_equal(columns["right"], [a == b for a, b in zip(truth, answers.labels, strict=True)])

    head = json.loads((made.bundle / "heads" / "default" / "head.json").read_text())
    assert found.about["fingerprint"] == head["data"]["held_out_fingerprint"]  # the head has not seen them
    assert found.about["bundle"] == fs.load(made.bundle).id and found.about["form"] == "onnx"
    assert fs.load(made.bundle).id == made.encoder.about["bundle"]  # an attachment changes nothing of it
    K = len(found.centroids)
    assert len(set(found.names)) == len(found.names) == len(found.shares) == len(found.about["typical"]) == K
    assert found.shares.sum() == pytest.approx(1) and (found.shares > 0).all()
    assert {item for items in found.about["typical"] for item in items} <= set(window.ids)
    nearest = ((window.vectors[:, None] - found.centroids) ** 2).sum(2).argmin(1)
    np.testing.assert_allclose(np.bincount(nearest, minlength=K) / len(window), found.shares, atol=0.05)


def test_splits_and_samples(copied: Callable[[Made], Made], photos: Made, tmp_path: Path) -> None:
    made = copied(photos)
    shutil.rmtree(made.bundle / "heads")
    for split, seed in (("train", 1), ("test", 2)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i, pixels in enumerate(pictures(30, seed=seed)):
            (tmp_path / "data" / split / f"{split}{i}.png").write_bytes(png(pixels))
    (tmp_path / "data" / "test" / "torn.png").write_bytes(b"torn")
    found = fs.sketch(made.bundle, tmp_path / "data")
    assert sorted(Path(item).name for item in found.window.ids) == sorted(f"test{i}.png" for i in range(30))
    assert found.about["trained"] == 0 and found.about["form"] == "float32" and found.about["head"] is None
    assert not {"label", "right", "confidence"} & set(found.window.columns)
    some = fs.sketch(made.bundle, tmp_path / "data", most=10, seed=3)
    same(some, fs.sketch(made.bundle, tmp_path / "data", most=10, seed=3))
    assert len(some.window) == 10 and set(some.window.ids) <= set(found.window.ids)
    assert some.window.ids != fs.sketch(made.bundle, tmp_path / "data", most=10, seed=4).window.ids
    assert fs.sketch(made.bundle, made.data).about["trained"] == 1
    for options, said in (({"form": "static"}, "has onnx"), ({"head": "none"}, "no head"), ({"most": 0}, "keep one")):
        with pytest.raises(BadInput, match=said):
            fs.sketch(made.bundle, made.data, **options)
    with pytest.raises(BadInput, match="is an export"):
        fs.sketch(made.export, made.data)


def test_a_changed_sketch_is_refused(copied: Callable[[Made], Made], photos: Made, tmp_path: Path) -> None:
    made = copied(photos)
    with pytest.raises(BadInput, match="no sketch here"):
        Sketch.load(made.bundle)
    fs.sketch(made.bundle, made.data)
    for name in ("reference.json", "reference.npz"):
        whole = (made.bundle / "sketch" / name).read_bytes()
        for changed in (whole[:-40], whole.replace(b"b", b"c", 1), b"", b"{}", b"[1]"):
            (made.bundle / "sketch" / name).write_bytes(changed)
            with pytest.raises(BadInput, match=r"changed after it was made|is no readable sketch"):
                Sketch.load(made.bundle)
        (made.bundle / "sketch" / name).write_bytes(whole)
    Sketch.load(made.bundle)
    (made.bundle / "sketch" / "reference.npz").unlink()
    with pytest.raises(BadInput, match="no readable sketch"):
        Sketch.load(made.bundle)


def test_clusters_are_those_that_were_planted_and_called_by_what_they_are() -> None:
    lots = np.random.default_rng(0)
    middles = np.linalg.qr(lots.normal(size=(16, 16)))[0][:5]
    kind = np.arange(400) % 5
    vectors = (middles[kind] + lots.normal(size=(400, 16)) * 0.03).astype(np.float32)
    names = np.array(["cat", "dog", "cat", "cow", "hen"], object)[kind]
    told = ["purr claw", "bark bone", "roar mane", "milk moo", "egg peck"]
    texts = [f"{told[k]} number {i}" for i, k in enumerate(kind)]
    window = Window(vectors, {"label": names}, [f"i{i}" for i in range(400)])
    sketch = of_window(window, {}, texts)
    of = np.argmax(vectors @ sketch.centroids.T - np.square(sketch.centroids).sum(1) / 2, 1)
    for k in range(5):
        (clusters,) = (set(of[kind == k]),)
        assert all(len(set(kind[of == cluster])) == 1 for cluster in clusters)
    assert {name.partition(":")[0] for name in sketch.names} == {"cat", "dog", "cow", "hen"}
    unnamed = of_window(Window(vectors), {}, texts)
    assert all(any(word in name for words in told for word in words.split()) for name in unnamed.names)
    assert of_window(Window(vectors), {}).names[0] == "cluster 1"
    liked = of_window(Window(vectors, {}, window.ids), {}).names
    assert all(name.startswith("like i") for name in liked)
    one = of_window(Window(np.repeat(vectors[:1], 50, 0)), {})
    assert one.shares.tolist() == [1.0] and len(of_window(Window(vectors[:1]), {}).centroids) == 1
    with pytest.raises(BadInput, match="one item"):
        of_window(Window(vectors[:0]), {})


def test_traits_of_a_picture_do_not_depend_on_how_large_it_is_and_name_what_they_say() -> None:
    def told(pixels: np.ndarray) -> dict[str, float]:
        return dict(zip(traits.OF_PICTURE, traits.of_picture(pixels), strict=True))

    small = picture(5, 64)
    large = np.repeat(np.repeat(small, 4, 0), 4, 1)
    for name in ("brightness", "contrast", "saturation"):
        assert told(large)[name] == pytest.approx(told(small)[name], rel=0.02)
    assert (told(large)["width"], told(large)["height"]) == (256, 256)
    assert told(small // 2)["brightness"] == pytest.approx(told(small)["brightness"] / 2, abs=1)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert told(noise)["sharpness"] > 5 * told(small)["sharpness"]
    grey = np.full((3, 200, 3), 77, np.uint8)
    assert traits.of_picture(grey) == pytest.approx((77, 0, 0, 0, 200, 3), abs=1e-3)
    assert traits.of_picture(np.zeros((1, 1, 3), np.uint8)) == (0, 0, 0, 0, 1, 1)
    gradient = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    assert told(gradient)["sharpness"] == pytest.approx(0.5 * 63 / 64, rel=1e-3)


def test_traits_of_cells_undo_their_coding(cells: Made) -> None:
    rows: list[dict[str, Any]] = [
        {"a": 0.5, "b": -1, "colour": "x"},
        {"a": None, "b": 2.25, "colour": "of none"},
        {"a": 1, "b": None, "colour": None},
    ]
    coded = np.concatenate([batch for _, batch in cells.encoder.batches(rows, 3)])
    found = traits.of_cells(coded, cells.encoder.about["columns"])
    np.testing.assert_allclose(found["a"], [0.5, np.nan, 1], atol=1e-6)
    np.testing.assert_allclose(found["b"], [-1, 2.25, np.nan], atol=1e-6)
    assert found["colour"].tolist() == ["x", traits.OTHERS, ""] and found["missing"].tolist() == [0, 1, 2]


def test_the_verb(copied: Callable[[Made], Made], photos: Made, fastness: Callable[..., Ended]) -> None:
    made = copied(photos)
    said = fastness("sketch", made.bundle, made.data, "--items", 40)
    assert said.status == 0 and said.out.startswith("40 items in ") and "note       100%" in said.out
    told = json.loads(fastness("sketch", made.bundle, made.data, "--json").out)
    assert sum(told["clusters"].values()) == pytest.approx(1) and "brightness" in told["columns"]
    assert fastness("sketch", made.bundle, made.data, "--form", "none").status == 2
