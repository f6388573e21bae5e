"""Models that are not ours: their files are measured as a bundle is, or refused with the reason."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

import fastness as fs
from fastness.core.seeds import numpy_generator
from fastness.data.sources.arrays import from_pixels
from fastness.evaluation import evidence
from fastness.evaluation.subject import Subject

CHECKS = ["knn", "linear", "calibration", "selective", "neighbours", "slices"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return fs.load(fs.train("digits", out=folder, quiet=True, steps=20, width=4, size=16, batch_size=32).bundle)


def values(report) -> dict[tuple[str, str], float]:
    """Return values by name and slice."""
    return {(m.name, m.slice): m.value for m in report.evidence.measurements}


def test_embeddings_of_a_bundle_are_measured_like_the_bundle(bundle, tmp_path):
    """The very same numbers."""
    data = fs.open_data("digits")
    np.save(tmp_path / "vectors.npy", bundle.embed(data, normalize=False))
    slices = ["label"]  # how bright a picture is depends a little on the size it is looked at
    ours = fs.evaluate(bundle, data, CHECKS, out=tmp_path / "ours", slices=slices)
    theirs = fs.evaluate(
        None, data, CHECKS, predictions=tmp_path / "vectors.npy", out=tmp_path / "theirs", slices=slices
    )
    assert values(ours) == pytest.approx(values(theirs), abs=1e-6)
    assert "What another model says" in theirs.html.read_text()
    assert set(theirs.evidence.about["skipped"]) == set()
    every = fs.evaluate(None, data, predictions=tmp_path / "vectors.npy", out=tmp_path / "every")
    assert {"few_label", "geometry", "corruption", "answers"} <= set(every.evidence.about["skipped"])
    comparison = fs.compare(ours.evidence.folder, theirs.evidence.folder, out=tmp_path / "compared").comparisons[0]
    assert not any(comparison.changes().values())


def answers() -> tuple[fs.Dataset, np.ndarray, np.ndarray]:
    """Return the test digits, and probabilities that are right four times out of five."""
    data = fs.open_data("digits").split("test")
    rng = numpy_generator(0, "answers")
    wrong = rng.random(len(data)) < 0.2
    said = np.where(wrong, rng.integers(10, size=len(data)), data.labels)
    probabilities = np.full((len(data), 10), 0.02)
    probabilities[np.arange(len(data)), said] = 0.82
    return data, probabilities, said


def test_answers(tmp_path):
    """Accuracy and F1 are scikit-learn's, whatever form the same answers have."""
    data, probabilities, said = answers()
    shuffled = numpy_generator(1, "order").permutation(10)
    names = np.array(data.class_names)
    np.savez(tmp_path / "a.npz", probabilities=probabilities)
    np.savez(tmp_path / "b.npz", logits=np.log(probabilities)[:, shuffled], classes=names[shuffled])
    order = numpy_generator(2, "order").permutation(len(data))
    with (tmp_path / "c.csv").open("w", newline="") as handle:
        rows = [[data.manifest.names[i], *probabilities[i]] for i in order]
        csv.writer(handle).writerows([["id", *(f"p_{name}" for name in names)], *rows])
    with (tmp_path / "d.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["id", "predicted"], *([data.manifest.names[i], names[said[i]]] for i in order)])
    found = {}
    for name in ("a.npz", "b.npz", "c.csv", "d.csv"):
        report = fs.evaluate(None, data, predictions=tmp_path / name, out=tmp_path / f"{name}-evidence")
        found[name] = values(report)
        assert found[name]["answers.accuracy", "all"] == pytest.approx((said == data.labels).mean())
        assert found[name]["answers.f1", "all"] == pytest.approx(f1_score(data.labels, said, average="macro"))
    assert found["a.npz"] == pytest.approx(found["b.npz"], abs=1e-9)
    assert found["a.npz"] == pytest.approx(found["c.csv"], abs=1e-9)
    assert abs(found["a.npz"]["calibration.raw.ece", "all"] - abs((said == data.labels).mean() - 0.82)) < 0.01
    assert not any(name.startswith("calibration") for name, _ in found["d.csv"])
    scaled = fs.evaluate(None, data, ["calibration"], predictions=tmp_path / "a.npz", out=tmp_path / "alone").evidence
    said_of = {m.name: m.protocol for m in scaled.measurements}
    assert "temperature 1.00, as nothing is fitted to another" in said_of["calibration.scaled.ece"]
    assert "no scaling" in said_of["calibration.raw.ece"]


def test_order_and_further_items(bundle, tmp_path):
    """Items in any order keep their embeddings; a file may name more items than there are, but none twice."""
    data = fs.open_data("digits").split("test")
    names = np.array(data.manifest.names)
    z = bundle.embed(data, normalize=False)
    shuffled = numpy_generator(3, "order").permutation(len(data))
    np.save(tmp_path / "z.npy", z[shuffled])
    subject = Subject.elsewhere(tmp_path / "z.npy", data.select(shuffled), 0)
    rows = [list(data.rows).index(row) for row in subject.test.dataset.rows]
    assert np.array_equal(subject.test_vectors, z[rows])
    np.savez(tmp_path / "more.npz", embeddings=np.concatenate([z, z[:5]]), id=[*names, "a", "b", "c", "d", "e"])
    found = fs.evaluate(None, data, ["knn"], predictions=tmp_path / "more.npz", out=tmp_path / "more")
    np.save(tmp_path / "just.npy", z)
    just = fs.evaluate(None, data, ["knn"], predictions=tmp_path / "just.npy", out=tmp_path / "just")
    assert values(found) == values(just)
    np.savez(tmp_path / "twice.npz", embeddings=np.concatenate([z, z[:1]]), id=[*names, names[0]])
    with pytest.raises(fs.BadInput, match=r"twice.npz: id '.*' stands there twice"):
        fs.evaluate(None, data, ["knn"], predictions=tmp_path / "twice.npz")
    pairs = fs.open_data({"a": ["x", "y"], "b": ["u", "v"]}, text="a,b")
    with pytest.raises(fs.BadInput, match="one side"):
        Subject.elsewhere(tmp_path / "z.npy", pairs, 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"probabilities": np.full((3, 10), 0.1)}, "3 rows for"),
        ({"probabilities": np.ones((445, 3))}, "3 columns of probabilities for classes 0, 1"),
        ({"embeddings": np.full((445, 4), np.nan)}, "row 0 of embeddings has a value that is no number"),
        ({"probabilities": np.full((445, 10), -3.0)}, "are these logits"),
        ({"embeddings": np.ones(445)}, r"shape \(445,\)"),
        ({"predicted": np.full(445, "cat")}, "row 0: 'cat' is no class"),
        ({"vectors": np.ones((445, 4))}, "holds vectors; give just one of embeddings"),
        ({"logits": np.ones((445, 10)), "predicted": np.zeros(445)}, "give just one of"),
        ({"logits": np.ones((2, 10)), "id": np.array(["a", "b"])}, "no row for 445 of 445 items"),
    ],
)
def test_files_that_do_not_fit(content, says, tmp_path):
    """Each is refused in one line that says what would fit."""
    data = fs.open_data("digits").split("test")
    np.savez(tmp_path / "p.npz", **content)
    with pytest.raises(fs.BadInput, match=f"p.npz: .*{says}"):
        fs.evaluate(None, data, predictions=tmp_path / "p.npz")


def test_files_that_are_none(tmp_path: Path):
    """Garbage, a pickle and an empty table."""
    data = fs.open_data("digits").split("test")
    (tmp_path / "p.npz").write_bytes(b"no array")
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], object), allow_pickle=True)
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    for name, says in (("p.npz", "not readable"), ("p.npy", "not readable"), ("p.csv", "no column 'predicted'")):
        with pytest.raises(fs.BadInput, match=f"{name}: .*{says}"):
            fs.evaluate(None, data, predictions=tmp_path / name)


def test_the_command_line(fastness, tmp_path):
    """Data alone with predictions; without either it says what is missing."""
    _, probabilities, _ = answers()
    np.savez(tmp_path / "p.npz", probabilities=np.tile(probabilities[:1], (1797, 1)))
    done = fastness("evaluate", "digits", "--predictions", "p.npz", "--checks", "answers", "--out", "found")
    assert done.status == 0 and "answers.accuracy" in done.out, done.err
    assert fastness("evaluate", "digits").err.count("evaluate BUNDLE DATA") == 1


def texts(folder: Path, labels: list[str], **columns: list[str]) -> Path:
    """Write a table of short texts."""
    names = {"text": [f"message number {i}" for i in range(len(labels))], "label": labels, **columns}
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(names)
        writer.writerows(zip(*names.values(), strict=True))
    return folder / "texts.csv"


def test_evidence_is_only_ever_added(tmp_path):
    """A folder that holds evidence is refused before anything is measured; one that a kill left without is taken."""
    _, probabilities, said = answers()
    data = fs.open_data("digits").split("test")
    np.savez(tmp_path / "p.npz", probabilities=probabilities)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "measurements.jsonl").write_text("half a line")
    found = fs.evaluate(None, data, ["answers"], predictions=tmp_path / "p.npz", out=tmp_path / "out")
    assert found["answers.accuracy"] == pytest.approx((said == data.labels).mean())
    with pytest.raises(fs.BadInput, match="out: holds evidence already"):
        fs.evaluate(None, data, ["answers"], predictions=tmp_path / "p.npz", out=tmp_path / "out")


def test_no_examples_no_names(tmp_path):
    """Without examples no column that tells nearly every item is kept, unless it was asked for."""
    labels = ["a", "b"] * 50
    data = texts(tmp_path, labels, person=[f"Ünal {i}" for i in range(100)], town=["Oslo", "Rome"] * 50)
    np.savez(tmp_path / "p.npz", predicted=np.array(labels))
    for number, (options, known) in enumerate(
        (
            ({"examples": False}, {"label", "town"}),
            ({"examples": False, "slices": ["person != 'x'"]}, {"label", "town", "person"}),
            ({}, {"label", "town", "person"}),
        )
    ):
        out = tmp_path / str(number)
        report = fs.evaluate(
            None, data, ["answers"], predictions=tmp_path / "p.npz", text="text", label="label", out=out, **options
        )
        columns = report.evidence.known()[1]
        assert {name for name, values in columns.items() if values.dtype.kind == "U"} == known
        assert ("Ünal".encode() in (out / "items.parquet").read_bytes()) <= ("person" in known)


def test_one_class_to_fit_on(tmp_path):
    """A probe has nothing to tell apart then: checks that want labels are passed over, and say why."""
    data = texts(tmp_path, ["a"] * 20 + ["a", "b"] * 10, part=["train"] * 20 + ["test"] * 20)
    np.save(tmp_path / "z.npy", np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    found = fs.evaluate(
        None, data, predictions=tmp_path / "z.npy", text="text", label="label", split="part", out=tmp_path / "e"
    )
    assert "label" in found.evidence.about["skipped"]["linear"]


def test_classes_may_be_called_anything(tmp_path):
    """A formula, an underscore, markup and what is no Unicode stand on the page as they are written, or escaped."""
    names = ["$_$", "_back", "<b>bold</b>"]
    pixels = np.random.default_rng(0).integers(0, 255, (90, 8, 8, 3), np.uint8)
    data = from_pixels(pixels, np.array(names)[np.arange(90) % 3])
    z = np.eye(3)[np.arange(90) % 3] + np.random.default_rng(1).normal(size=(90, 3)) / 4
    np.save(tmp_path / "z.npy", z.astype(np.float32))
    found = fs.evaluate(None, data, predictions=tmp_path / "z.npy", out=tmp_path / "e")
    page = found.html.read_text()
    assert "<b>bold" not in page and all(name in page for name in ("$_$", " _back"))
    folder = tmp_path / "odd"
    for name in (b"caf\xe9", b"tea"):
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).mkdir(parents=True)
        for i in range(20):
            picture = Image.fromarray(pixels[i if name == b"tea" else 20 + i])
            picture.save(Path(os.fsdecode(os.fsencode(folder) + b"/" + name)) / f"{i}.png")
    np.save(tmp_path / "y.npy", z[:40].astype(np.float32))
    odd = fs.evaluate(None, folder, ["linear"], predictions=tmp_path / "y.npy", out=tmp_path / "o")
    assert evidence.read(odd.evidence.folder).get("linear.accuracy") is not None
