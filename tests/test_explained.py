"""What moves an embedding: parts hidden one by one, and directions that follow what is known."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

import fastness as fs
from fastness.corruptions import WORLDS
from fastness.corruptions.image import GRID
from fastness.evaluation.directions import _follows, directions
from fastness.evaluation.influence import Influence, influences
from fastness.evaluation.sheets import _weighted
from fastness.evaluation.subject import Subject

CPU = torch.device("cpu")
SENTENCES = [f"{a} {b} {c}" for a in ("red", "blue", "green") for b in ("cat", "dog", "bird") for c in ("runs", "sits")]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = fs.train("digits", out=folder, quiet=True, steps=5, width=4, size=16, batch_size=32)
    return Subject.of(fs.load(run.bundle), fs.open_data("digits"), 0)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    data = {"text": SENTENCES}
    run = fs.train(data, encoder="static", steps=5, out=folder, quiet=True, columns={"text": "text"})
    return Subject.of(fs.load(run.bundle), fs.open_data(data, text="text"), 0)


def hidden(subject: Subject, position: int):
    """Return names and the item without each part, in order."""
    names, batches = WORLDS.get(subject.bundle.modality).hidden(subject.scene(subject.test), position)
    return names, list(batches)


def test_hidden_cells_cover_the_picture_once(pictures):
    """Each cell differs from the picture in its own place alone, and together they are the whole picture."""
    names, [(positions, batch)] = hidden(pictures, 3)
    image = pictures.test.batch(np.array([3]))
    assert len(names) == GRID**2 and np.array_equal(positions, np.arange(GRID**2))
    mean = image.float().mean((2, 3), keepdim=True).round().to(torch.uint8)
    touched = (batch != image).any(1).sum(0)
    assert touched.max() <= 1
    same = (image == mean).all(1)[0]
    assert torch.equal(touched == 0, same)


def test_hidden_cells_of_a_row(tmp_path):
    """Every cell that is there is missing once."""
    table = {"a": ["1", "2", "3", ""] * 30, "b": list("xyzx") * 30}
    run = fs.train(table, steps=2, out=tmp_path, quiet=True, width=16, columns={"label": "none"})
    subject = Subject.of(fs.load(run.bundle), fs.open_data(table, label="none"), 0)
    for position in range(4):
        names, [(_, batch)] = hidden(subject, position)
        row = subject.test.batch(np.array([position]))[0]
        there = ~row.isnan()
        assert len(names) == len(batch) == int(there.sum())
        assert all(int((~without.isnan()).sum()) == len(names) - 1 for without in batch)
        assert all(name.split(": ")[1] for name in names)


def test_influence_of_words_is_that_of_deleting_them(texts):
    """The cosine lost is that of the text without the word; a text of one word has no parts."""
    found = influences(texts, np.arange(len(texts.test)))
    assert len(found) == len(texts.test)
    for one in found[:3]:
        words = texts.test.dataset.payloads.read(int(texts.test.dataset.rows[one.item])).split()
        assert one.parts == words
        partner = texts.fit_vectors[one.neighbour] / np.linalg.norm(texts.fit_vectors[one.neighbour])
        for i in range(len(words)):
            left = texts.bundle.embed([" ".join(words[:i] + words[i + 1 :])])[0]
            assert one.values[i] == pytest.approx(one.cosine - left @ partner, abs=1e-5)
    alone = Subject.of(texts.bundle, fs.open_data({"text": ["red", "blue", "cat", "dog"] * 3}, text="text"), 0)
    assert influences(alone, np.arange(len(alone.test))) == []


def test_directions_follow_what_is_known(pictures):
    """Embeddings that are brightness and class are found to follow these; one point has no direction."""

    class Known(Subject):
        @property
        def test_vectors(self):
            bright = self.held_out_known["brightness"]
            z = np.zeros((len(bright), 4), np.float32)
            z[:, 0] = 10 * (bright - bright.mean()) / bright.std()
            z[:, 1] = self.test_labels
            return z

    class Point(Subject):
        @property
        def test_vectors(self):
            return np.ones((len(self.test), 4), np.float32)

    fields = {name: getattr(pictures, name) for name in pictures.__dataclass_fields__}
    found = directions(Known(**fields), count=2)
    assert found[0].follows.startswith(("brightness (+1.00)", "brightness (-1.00)"))
    assert "label" in found[1].follows
    bright = pictures.held_out_known["brightness"]
    assert abs(bright[found[0].low].mean() - bright[found[0].high].mean()) > bright.std()
    assert directions(Point(**fields)) == []


@given(st.integers(6, 60), st.integers(2, 12), st.integers(0, 99))
def test_what_a_text_column_explains_is_the_adjusted_share(n: int, kinds: int, seed: int) -> None:
    """As scikit-learn's regression on one column a value has it, less what chance would give; else nothing."""
    lots = np.random.default_rng(seed)
    ranks, values = lots.permutation(n) + 1.0, lots.integers(0, kinds, n).astype(np.str_)
    names = np.unique(values)
    found = _follows(ranks, values)
    if not 1 < len(names) <= n // 2:
        assert found == 0
        return
    columns = (values[:, None] == names).astype(float)
    plain = LinearRegression(fit_intercept=False).fit(columns, ranks).score(columns, ranks)
    assert found == pytest.approx(1 - (1 - plain) * (n - 1) / (n - len(names)))


def test_what_many_values_or_none_explain_is_not_said() -> None:
    ranks = np.arange(1, 401.0)
    assert _follows(ranks, np.repeat(np.arange(100), 4).astype(np.str_)) > 0.99
    assert _follows(ranks, np.resize(np.arange(101), 400).astype(np.str_)) == 0
    assert _follows(ranks, np.full(400, "same")) == 0
    assert _follows(ranks, -ranks) == pytest.approx(-1) and _follows(ranks, np.ones(400)) == 0
    gaps = np.where(ranks > 2, np.nan, ranks)
    assert _follows(ranks, gaps) == 0 and _follows(ranks, np.where(ranks > 3, np.nan, ranks)) == pytest.approx(1)


def test_only_what_brings_near_is_marked() -> None:
    """The most influential part is darkest; parts that push away are as light as none."""
    marked = _weighted(Influence(0, 0, 0.5, ["<a>", "b", "c"], np.array([0.4, -0.3, 0.2])))
    assert re.findall(r"rgba\(33,102,172,([\d.]+)\)", marked) == ["0.75", "0.00", "0.38"]
    assert re.findall(r">([^<]+)</span>", marked) == ["&lt;a&gt;", "b", "c"]
    nothing = _weighted(Influence(0, 0, 0.5, ["a", "b"], np.array([-0.4, 0.0])))
    assert re.findall(r"172,([\d.]+)\)", nothing) == ["0.00", "0.00"]
