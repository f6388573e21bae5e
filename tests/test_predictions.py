"""Models that are not ours: their files are measured as a bundle is, or refused with the reason."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

import fastness as fs
from fastness.core.seeds import numpy_generator
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
    assert not any(comparison.verdicts().values())


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
