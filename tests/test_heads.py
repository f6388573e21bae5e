"""Heads: what they compute, what they promise of abstaining, and that every way to run one gives the same answers."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import fastness as fs
from conftest import Ended, write_pictures
from fastness.bundle import heads
from fastness.bundle.heads import Head
from fastness.data import Dataset
from fastness.delivery.parity import answers_alike
from fastness.evaluation.probe import Probe
from fastness.metrics.outliers import Clusters, mahalanobis
from fastness.tasks.fit import _numbers, threshold
from fastness_runtime import Answers, Unusable
from fastness_runtime import load as load_export


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return fs.open_data("digits").split("train").select(np.arange(600))


@pytest.fixture(scope="module")
def fitted(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Head]:
    """A bundle of digits with a head that knows those up to 6; not to be changed."""
    run = fs.train(digits, method="supervised", width=8, size=16, batch_size=50, steps=60,
                   out=tmp_path_factory.mktemp("heads") / "run", quiet=True)  # fmt: skip
    known = digits.select(np.asarray(digits.labels) <= 6)
    return run.bundle, fs.fit(run.bundle, known)


@pytest.fixture
def copy(fitted: tuple[Path, Head], tmp_path: Path) -> Path:
    return shutil.copytree(fitted[0], tmp_path / "bundle")


def test_it_says_what_probe_and_clusters_say(fitted: tuple[Path, Head], digits: Dataset) -> None:
    """Probabilities are a softmax of scores, and novelty the distance by the clusters' own covariance."""
    bundle, head = fs.load(fitted[0]), fitted[1]
    features = bundle.embed(digits, normalize=False)
    answers, n = head.answer(features), head.numbers
    for i in range(0, 600, 97):
        scores = [
            sum(float(features[i, d] - n.mean[d]) * float(n.weights[d, c]) for d in range(bundle.dim))
            + float(n.bias[c])
            for c in range(7)
        ]
        shares = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(answers.probabilities[i], shares, atol=1e-5)
        unit = features[i] / np.linalg.norm(features[i])
        white = (unit - n.centre).astype(np.float64) @ n.whitening
        assert answers.novelty[i] == pytest.approx(min(float(np.square(white - m).sum()) for m in n.means), rel=1e-4)
    assert (answers.abstained == (answers.novelty > head.threshold)).all()
    np.testing.assert_array_equal(answers.labels, np.array(head.classes)[answers.probabilities.argmax(1)])


def test_novelty_is_the_metric_that_evaluations_report(fitted: tuple[Path, Head]) -> None:
    """On clusters in the plane both ways to compute it agree."""
    lots = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    bank = (lots.normal(size=(3, 5))[labels] * 3 + lots.normal(size=(120, 5))).astype(np.float32)
    asked = lots.normal(size=(30, 5)).astype(np.float32)
    numbers = _numbers(Probe.fitted(bank, labels, 3, 0), Clusters.fitted(bank, labels))
    head = Head(Path("x"), {"classes": ["a", "b", "c"], "threshold": None}, numbers)
    np.testing.assert_allclose(head.answer(asked).novelty, mahalanobis(bank, asked, labels), rtol=1e-3)
    probe = Probe.fitted(bank, labels, 3, 0)
    logits = probe.logits(bank) / probe.temperature
    expected = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(head.answer(bank).probabilities, expected / expected.sum(1, keepdims=True), atol=1e-4)


@given(st.integers(20, 200), st.sampled_from([0.05, 0.1, 0.3]), st.integers(0, 5))
def test_a_new_item_is_refused_no_more_often_than_was_agreed(n: int, share: float, seed: int) -> None:
    """Of exchangeable numbers the one left out is beyond the others' threshold in at most this share of turns."""
    values = np.random.default_rng(seed).exponential(size=n)
    beyond = [values[i] > (threshold(np.delete(values, i), share) or np.inf) for i in range(n)]
    assert np.mean(beyond) <= share + 1e-9


def test_shares_refused_are_those_agreed_over_many_draws() -> None:
    lots = np.random.default_rng(0)
    refused = []
    for _ in range(2000):
        values = lots.normal(size=60) ** 2
        refused.append(np.mean(values[40:] > threshold(values[:40], 0.1)))
    assert 0.07 < np.mean(refused) <= 0.1
    assert threshold([1.0, 2.0], 0) is None


def test_strangers_are_noticed(fitted: tuple[Path, Head], digits: Dataset) -> None:
    bundle, head = fs.load(fitted[0]), fitted[1]
    stranger = np.asarray(digits.labels) > 6
    answers = head.answer(bundle.embed(digits, normalize=False))
    assert roc_auc_score(stranger, answers.novelty) > 0.7
    assert answers.abstained[stranger].mean() > 2 * answers.abstained[~stranger].mean()


@pytest.mark.parametrize("form", ["onnx", "onnx-fp16", "onnx-int8"])
def test_the_head_within_a_graph_answers_as_beside_it(
    fitted: tuple[Path, Head], digits: Dataset, form: str, tmp_path: Path
) -> None:
    made = fs.export(fitted[0], digits, form, head="default", out=tmp_path / "export")
    loaded = load_export(made.folder)
    pixels = [np.asarray(p) for p in fs.load(fitted[0]).encoder.prepare(digits).batch(np.arange(64)).numpy()]
    found = loaded.classify(pixels)
    expected = fitted[1].answer(fs.load(fitted[0]).embed(np.stack(pixels), normalize=False))
    alike = answers_alike(found, expected)
    assert made.parity.head is not None and made.parity.head.holds
    # Sixty-four pictures: one that lies at the threshold is more than the two in a hundred that int8 is allowed.
    assert alike.same >= 0.9 if form == "onnx-int8" else alike.holds
    assert found.classes == fitted[1].classes and loaded.about["head"]["id"] == fitted[1].about["id"]
    if form == "onnx":
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_allclose(found.novelty, expected.novelty, rtol=1e-3)
    assert made.parity.head.probability < 0.2
    one = loaded.classify(pixels[:1])
    np.testing.assert_allclose(one.novelty, found.novelty[:1], rtol=1e-3)
    assert loaded.classify(pixels[:0]).probabilities.shape == (0, 7)
    np.testing.assert_allclose(loaded.embed(pixels), load_export(made.folder).embed(pixels), atol=0)


def test_an_export_without_a_head_says_so(fitted: tuple[Path, Head], digits: Dataset, tmp_path: Path) -> None:
    made = fs.export(fitted[0], digits, out=tmp_path / "export")
    with pytest.raises(Unusable, match="has no head in it"):
        load_export(made.folder).classify(np.zeros((1, 3, 16, 16), np.uint8))


def test_answers_that_differ_are_not_let_pass() -> None:
    def said(*labels: str) -> Answers:
        shares = np.stack([[0.9, 0.1] if x == "a" else [0.1, 0.9] for x in labels]).astype(np.float32)
        return Answers.of(shares, np.array([x == "?" for x in labels], np.float32), ["a", "b"], 0.5)

    assert answers_alike(said("a", "b", "?"), said("a", "b", "?")).holds
    found = answers_alike(said("a", "a", "?", "b"), said("a", "b", "b", "b"))
    assert not found.holds and found.same == 0.5 and found.abstained == 0.25 and found.expected == 0


def test_a_head_is_kept_whole_and_is_its_bundles_own(copy: Path, fitted: tuple[Path, Head]) -> None:
    again = heads.read(fs.load(copy))
    assert again.about == fitted[1].about and fs.load(copy).id == fs.load(fitted[0]).id
    for name in (heads.DESCRIPTION, heads.NUMBERS):
        path = again.folder / name
        content = path.read_bytes()
        path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
        with pytest.raises(fs.BadInput, match=r"changed after it was fitted|no readable head"):
            heads.read(fs.load(copy))
        path.write_bytes(content)
    about = {**json.loads((again.folder / heads.DESCRIPTION).read_text()), "bundle": "0" * 64}
    about["id"] = heads._identity(about)
    (again.folder / heads.DESCRIPTION).write_text(json.dumps(about))
    with pytest.raises(fs.BadInput, match="fitted on another bundle"):
        heads.read(fs.load(copy))


def test_heads_are_asked_for_by_name(copy: Path, digits: Dataset) -> None:
    bundle = fs.load(copy)
    shutil.copytree(copy / "heads" / "default", copy / "heads" / ".default-half-written")
    assert heads.names(bundle) == ["default"]
    fs.fit(bundle, digits, name="all", abstain=0)
    with pytest.raises(fs.BadInput, match="has the heads all, default; name one"):
        fs.classify(bundle, digits)
    assert not fs.classify(bundle, digits, head="all").answers.abstained.any()
    with pytest.raises(fs.BadInput, match="no head here; there are: all, default"):
        heads.read(bundle, "none")
    for name in ("", "../x", "a/b", ".hidden", "x" * 65):
        with pytest.raises(fs.BadInput, match="is no name for one"):
            fs.fit(bundle, digits, name=name)


def test_what_cannot_be_fitted_is_refused(copy: Path, digits: Dataset, tmp_path: Path) -> None:
    one = digits.select(np.asarray(digits.labels) == 3)
    for i in range(40):
        write_pictures(tmp_path / "alike" / "ab"[i % 2] / str(i), np.zeros((1, 8 + i, 8 + i, 3), np.uint8))
    alike = tmp_path / "alike"
    for data, more, said in (
        (one, {}, "of two at least"),
        (digits, {"abstain": 1.0}, "is no share"),
        (digits, {"abstain": 0.001}, "or a larger --abstain"),
        (digits, {"side": "left"}, "has no sides"),
        (alike, {"abstain": 0.0}, "are all alike"),
    ):
        with pytest.raises(fs.BadInput, match=said):
            fs.fit(copy, data, name="new", **more)
    assert heads.names(fs.load(copy)) == ["default"]


def test_two_classes(copy: Path, digits: Dataset) -> None:
    labels = np.asarray(digits.labels)
    two = digits.select(labels <= 1)
    head = fs.fit(copy, two, name="two", abstain=0.1)
    answers = fs.classify(copy, two, head="two").answers
    assert head.classes == ("0", "1") and answers.probabilities.shape == (len(two), 2)
    np.testing.assert_allclose(answers.probabilities.sum(1), 1, atol=1e-5)
    assert (answers.labels == np.array(["0", "1"])[labels[labels <= 1]]).mean() > 0.9


def test_the_verbs(copy: Path, fastness: Callable[..., Ended], labelled: Path, tmp_path: Path) -> None:
    said = fastness("fit", copy, labelled, "--name", "kinds", "--abstain", "0", "--json")
    assert said.status == 0 and json.loads(said.out)["classes"]
    said = fastness("classify", copy, labelled, "--head", "kinds", "--out", tmp_path / "a.csv")
    assert said.status == 0 and "0 of them refused an answer" in said.out
    with (tmp_path / "a.csv").open() as handle:
        lines = list(csv.DictReader(handle))
    assert lines and all(line["label"] == line["likeliest"] and 0 < float(line["probability"]) <= 1 for line in lines)
    said = fastness("export", copy, labelled, "--head", "kinds", "--out", tmp_path / "out")
    assert said.status == 0 and "the same answer" in said.out
    assert fastness("classify", copy, labelled, "--head", "other").status == 2
