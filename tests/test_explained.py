"""What moves an embedding: parts hidden one by one, and directions that follow what is known."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LinearRegression

import fastness as fs
from fastness.corruptions import WORLDS
from fastness.corruptions.image import GRID
from fastness.data.show import shown, thumbnail
from fastness.data.sources.arrays import from_pixels
from fastness.evaluation import sheets
from fastness.evaluation.checks import Findings
from fastness.evaluation.directions import _follows, directions
from fastness.evaluation.evidence import Evidence, write
from fastness.evaluation.influence import Influence, influences
from fastness.evaluation.measurement import Measurement
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


def elsewhere(folder: Path, vectors: np.ndarray, **facts: Any) -> Subject:
    """Return another model's vectors of as many small pictures in two classes, half of them held out."""
    n, lots = len(vectors), np.random.default_rng(0)
    data = from_pixels(
        lots.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8),
        np.array(["ape", "bee"])[np.arange(n) // 2 % 2],
        splits=np.resize(["train", "test"], n),
    )
    np.save(folder / "vectors.npy", vectors)
    return Subject.elsewhere(folder / "vectors.npy", data.described(**facts), 0)


def held_out(values: np.ndarray, blank: Any = 0) -> np.ndarray:
    """Return a column that has these values on the held-out items, which are every other."""
    out = np.full((2 * len(values), *values.shape[1:]), blank, values.dtype)
    out[1::2] = values
    return out


def test_directions_are_the_principal_ones(tmp_path: Path) -> None:
    """Share of variance, and the items at the two ends, outermost at the outside; as singular vectors have them."""
    z = np.random.default_rng(0).normal(size=(60, 5)) * [9, 6, 4, 2, 1]
    subject = elsewhere(tmp_path, held_out(z))
    left, strength, _ = np.linalg.svd(z.astype(np.float32) - z.astype(np.float32).mean(0), full_matrices=False)
    found = directions(subject, ends=4)
    assert len(found) == 4
    for i, one in enumerate(found):
        assert one.share == pytest.approx(strength[i] ** 2 / (strength**2).sum(), rel=1e-4)
        order = np.argsort(left[:, i]).tolist()
        assert (one.low, one.high) in ((order[:4], order[-4:]), (order[::-1][:4], order[::-1][-4:]))


@pytest.mark.parametrize(
    ("items", "dimensions", "wanted", "ends", "number"),
    [(60, 5, 4, 6, 4), (60, 3, 4, 6, 3), (48, 5, 4, 6, 4), (47, 5, 4, 6, 3), (24, 5, 4, 6, 2), (23, 5, 4, 6, 1),
     (12, 5, 4, 6, 1), (11, 5, 4, 6, 0), (11, 5, 4, 5, 1), (60, 5, 2, 6, 2)],
)  # fmt: skip
def test_no_item_stands_at_both_ends(
    items: int, dimensions: int, wanted: int, ends: int, number: int, tmp_path: Path
) -> None:
    """So few items have fewer directions."""
    z = np.random.default_rng(0).normal(size=(items, dimensions)) + 3
    found = directions(elsewhere(tmp_path, held_out(z)), wanted, ends)
    assert len(found) == number
    for one in found:
        assert len(one.low) == len(one.high) == ends and not {*one.low} & {*one.high}


def test_of_many_items_six_stand_at_each_end_of_four_directions(tmp_path: Path) -> None:
    """Unless there is one point alone, which has none."""
    z = np.random.default_rng(0).normal(size=(60, 5))
    assert [(len(one.low), len(one.high)) for one in directions(elsewhere(tmp_path, held_out(z)))] == [(6, 6)] * 4
    assert directions(elsewhere(tmp_path, held_out(np.ones((60, 5))))) == []


def test_a_direction_follows_what_it_is_correlated_with(tmp_path: Path) -> None:
    """From 0.3 either way, the two strongest; numbers with a sign, texts as a share less what chance would give."""
    along = np.random.default_rng(0).permutation(np.arange(20.0))
    subject = elsewhere(tmp_path, held_out(np.stack([100 * along, np.random.default_rng(1).normal(size=20)], 1)))
    (first,) = directions(subject, 1)
    assert first.share > 0.99
    along = along if along[first.high].mean() > along[first.low].mean() else 19 - along
    orders = np.argsort(np.random.default_rng(2).random((30_000, 20)), 1).astype(float)
    apart = ((orders - along) ** 2).sum(1)
    just, short, turned = (orders[np.flatnonzero(apart == d)[0]] for d in (930, 932, 1730))  # .3008, .2992 and -.3008

    def said(**known: np.ndarray) -> str:
        class Known(Subject):
            held_out_known = known

        fields = {name: getattr(subject, name) for name in subject.__dataclass_fields__}
        return directions(Known(**fields), 1)[0].follows

    assert said(short=short) == said() == "" and said(just=just, short=short) == "just (+0.30)"
    assert said(turned=turned) == "turned (-0.30)"
    halves, fifths = np.where(along < 10, "low", "high"), (along // 4).astype(np.str_)
    shares = [f"{1 - (1 - _share(along, x)) * 19 / (20 - len(np.unique(x))):.0%}" for x in (halves, fifths)]
    assert said(halves=halves, fifths=fifths) == f"fifths ({shares[1]}), halves ({shares[0]})"
    assert said(just=just, halves=halves, exact=-along) == f"exact (-1.00), halves ({shares[0]})"
    assert said(odd=(along % 2).astype(np.str_)) == ""


def _share(ranks: np.ndarray, values: np.ndarray) -> float:
    """Return the share of variance between groups, as a loop has it."""
    between = sum(
        (values == v).sum() * (ranks[values == v].mean() - ranks.mean()) ** 2 for v in sorted(set(values.tolist()))
    )
    return float(between / ((ranks - ranks.mean()) ** 2).sum())


def pixels(markup: str) -> np.ndarray:
    """Return the picture that stands in a piece of a page."""
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', markup)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.array(image.convert("RGB"))


def tile(subject: Subject, part: str, position: int, side: int) -> np.ndarray:
    """Return what an item looks like on a sheet."""
    dataset = subject.held_out if part == "test" else subject.fit.dataset
    return np.asarray(thumbnail(shown(dataset, position), side))


def test_pictures_on_a_sheet_stand_in_rows(tmp_path: Path) -> None:
    """Each in its place, of 96 pixels with 6 between and 16 for the class below, and nothing else but white."""
    subject = elsewhere(tmp_path, np.random.default_rng(0).normal(size=(40, 3)))
    for positions, across, rows, columns in (([3, 1, 4, 0, 5], 3, 2, 3), ([2], 6, 1, 1), ([0, 1, 2], 3, 1, 3)):
        found = pixels(sheets.sheet(subject.held_out, positions, across))
        assert found.shape == (rows * 118, columns * 102, 3)
        for place, position in enumerate(positions):
            x, y = place % across * 102, place // across * 118
            assert np.array_equal(found[y : y + 96, x : x + 96], tile(subject, "test", position, 96))
            below = found[y + 96 : y + 118, x : x + 96]
            assert (below < 128).any() and (below[-6:] == 255).all()
            assert (found[y : y + 118, x + 96 : x + 102] == 255).all()
            found[y : y + 118, x : x + 102] = 255
        assert (found == 255).all()
    assert pixels(sheets.sheet(subject.held_out, list(range(7)))).shape == (2 * 118, 6 * 102, 3)


def test_texts_on_a_sheet_are_rows_of_a_table() -> None:
    """Class and text, escaped; what is longer than 160 letters is cut, and shows it."""
    long = ["a" * 160, "b" * 161, "<i>c</i>"]
    data = fs.open_data({"text": long, "kind": ["x", "y", "x"]}, text="text", label="kind")
    rows = re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td></tr>", sheets.sheet(data, [0, 1, 2]))
    assert rows == [("x", "a" * 160), ("y", "b" * 159 + "…"), ("x", "&lt;i&gt;c&lt;/i&gt;")]
    bare = sheets.sheet(fs.open_data({"text": long}, text="text"), [1])
    assert bare == f"<table><tr><th></th><td>{'b' * 159}…</td></tr></table>"


def test_the_gallery_shows_the_nearest_of_the_fitting_items(tmp_path: Path) -> None:
    """A row for each chosen item: itself, a gap, and its neighbours, the nearest first."""
    z = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    subject = elsewhere(tmp_path, z)
    test, fit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (z[1::2], z[::2]))
    for rows, neighbours in ((8, 8), (3, 2)):
        found = pixels(sheets.gallery(subject, rows, neighbours))
        assert found.shape == (rows * 68, (neighbours + 1) * 68 + 12, 3)
        each = [tile(subject, "test", i, 64) for i in range(30)]
        chosen = [
            next(i for i, one in enumerate(each) if np.array_equal(found[68 * r : 68 * r + 64, :64], one))
            for r in range(rows)
        ]
        assert len(set(chosen)) == rows and chosen != sorted(chosen)
        for r, item in enumerate(chosen):
            assert (found[68 * r : 68 * r + 68, 64:80] == 255).all()
            for c, other in enumerate(np.argsort(-(fit @ test[item]))[:neighbours].tolist()):
                x = 80 + 68 * c
                assert np.array_equal(found[68 * r : 68 * r + 64, x : x + 64], tile(subject, "fit", other, 64))
    assert pixels(sheets.gallery(subject)).shape == (8 * 68, 9 * 68 + 12, 3)


def test_a_picture_is_dark_where_nothing_depends_on_it() -> None:
    """As bright as it is where most does, 70 in 255 where nothing does or it would become more alike."""
    white = Image.new("RGB", (40, 40), (255, 255, 255))
    marked = np.asarray(sheets._lit(white, np.array([0.5, -0.5, 0.0, 0.25])))
    corners = [marked[y, x].tolist() for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1))]
    assert corners == [[255] * 3, [70] * 3, [70] * 3, [70 + 185 // 2] * 3]
    assert (np.asarray(sheets._lit(white, np.array([-0.5, -1.0, 0.0, -2.0]))) == 70).all()


def test_what_it_is_wrong_on_in_a_weak_region_is_shown(tmp_path: Path) -> None:
    """Up to six items of the region with that number, and none that are right; other slices have no sheet."""
    subject = elsewhere(tmp_path, np.random.default_rng(0).normal(size=(60, 3)))
    region, right = np.arange(30) % 3, np.arange(30) < 12
    right[2::3] = True
    findings = {"slices": Findings([], {"accuracy": right, "region": region})}
    evidence = write(tmp_path, subject, findings, {})
    names = ["found 1: dark", "kind == 'found 1: '", "found 2: light", "found 12: none"]
    weak = [Measurement("slices.accuracy", 0.5, 0, 1, "items", 9, "share", "", "", slice=name) for name in names]
    found = sheets.regions(evidence, subject, weak)
    wrong = [13, 16, 19, 22, 25, 28]
    assert found == {"found 1": sheets.sheet(subject.held_out, wrong)}
    assert sheets.regions(evidence, subject, weak[1:]) == {}
    assert sheets.regions(Evidence(tmp_path, {"files": {}}, []), subject, weak) == {}
    every = {"slices": Findings([], {"accuracy": np.zeros(30, bool), "region": region})}
    (tmp_path / "all").mkdir()
    found = sheets.regions(write(tmp_path / "all", subject, every, {}), subject, weak)
    assert found["found 1"] == sheets.sheet(subject.held_out, [1, 4, 7, 10, 13, 16])
    assert list(found) == ["found 1", "found 2"]


def test_directions_are_said_with_the_items_at_their_ends(tmp_path: Path) -> None:
    z = np.stack([100 * np.arange(30.0), np.random.default_rng(1).normal(size=30)], 1)
    subject = elsewhere(tmp_path, held_out(z), place=held_out(np.arange(30).astype(np.str_), ""))
    found, expected = sheets.directions(subject), directions(subject)
    assert len(found) == len(expected) == 2 and found[0][0].startswith("100% of the variance; it follows place (")
    for (said, low, high), one in zip(found, expected, strict=True):
        assert low == sheets.sheet(subject.held_out, one.low) and high == sheets.sheet(subject.held_out, one.high)
        assert said.endswith(f"it follows {one.follows or 'nothing that is known'}")
