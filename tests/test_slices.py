"""Where it fails: slices are what one would count by hand, and planted ones are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastness as fs
from fastness.data.sources.arrays import from_pixels
from fastness.evaluation import slices
from fastness.evaluation.checks import CHECKS
from fastness.evaluation.checks.groups import _apart, _by_chance
from fastness.evaluation.checks.slices import _chance
from fastness.evaluation.subject import Subject
from fastness.metrics.discovery import regions_of_error
from fastness.metrics.intervals import holm
from fastness.metrics.robustness import effective_robustness


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return fs.load(fs.train("digits", out=folder, quiet=True, steps=30, width=4, size=16, batch_size=32).bundle)


def digits_with(change, chosen: float = 0.25) -> tuple[fs.Dataset, np.ndarray]:
    """Return digits of which a share of the test items was changed, and which."""
    whole = fs.open_data("digits")
    pixels = np.stack([whole.payloads.read(row) for row in range(len(whole))])
    splits = np.asarray(whole.manifest.splits)
    planted = (splits == "test") & (np.random.default_rng(0).random(len(whole)) < chosen)
    pixels[planted] = change(pixels[planted])
    data = from_pixels(pixels, whole.labels, splits=splits)
    return data.described(camera=np.where(planted, "old", "new")), planted[splits == "test"]


def measured(subject: Subject, name: str):
    """Run a check that the subject allows."""
    check = CHECKS.get(name)()
    assert check.missing(subject) is None
    return check.run(subject)


def test_dark_pictures_are_found_without_being_named(bundle):
    """One of the first slices is a region of dark pictures alone; it says what they have in common."""
    data, planted = digits_with(lambda pixels: pixels // 6)
    subject = Subject.of(bundle, data, 0)
    assert np.array_equal(np.asarray(subject.held_out_known["camera"]) == "old", planted)
    found = measured(subject, "slices")
    region = found.items["region"]
    first = [m.slice for m in found.measurements[1:6]]
    number = next(int(name.split(":")[0].removeprefix("found ")) for name in first if name.startswith("found"))
    assert planted[region == number].mean() >= 0.8
    assert any(name.startswith("found") and "camera == 'old' (" in name for name in first)
    assert "camera == 'old'" in first


def test_slices_are_what_one_would_count(bundle):
    """Each slice has the accuracy of its items; the worst stands first; what was asked for is what there is."""
    data, planted = digits_with(lambda pixels: 255 - pixels)
    subject = Subject.of(bundle, data, 0)
    found = measured(subject, "slices")
    right = found.items["accuracy"]
    by_name = {m.slice: m for m in found.measurements}
    assert by_name["camera == 'old'"].value == pytest.approx(right[planted].mean())
    assert by_name["all"].value == pytest.approx(right.mean())
    highs = [m.high for m in found.measurements[1:]]
    assert highs == sorted(highs)
    asked = replace(subject, slices=("camera", "brightness < 60 and camera == 'new'"))
    names = {m.slice for m in measured(asked, "slices").measurements if not m.slice.startswith("found")}
    assert {"all", "camera == 'old'", "camera == 'new'"} <= names


def test_groups(bundle):
    """Difference and ratio are those of the groups' error rates; without a named column there are none."""
    data, planted = digits_with(lambda pixels: np.roll(pixels, 3, axis=2))
    subject = Subject.of(bundle, data, 0)
    assert "--sensitive" in CHECKS.get("groups")().missing(subject)
    report = fs.evaluate(bundle, data, ["groups", "slices"], sensitive=["camera"])
    found = {(m.name, m.slice): m for m in report.evidence.measurements}
    wrong = subject.test_logits.argmax(1) != subject.test_labels
    rates = wrong[planted].mean(), wrong[~planted].mean()
    assert found["groups.error", "camera == 'old'"].value == pytest.approx(rates[0])
    assert found["groups.camera.error.difference", "all"].value == pytest.approx(rates[0] - rates[1])
    assert found["groups.camera.error.ratio", "all"].value == pytest.approx(rates[0] / rates[1])
    page = report.html.read_text()
    assert "times as often in one group of camera" in page and "Where it fails" in page
    assert "camera == &#39;old&#39;" in page
    assert "| slices.accuracy | camera == 'old' |" in report.html.with_suffix(".md").read_text()


def test_without_examples_nothing_of_the_data_is_shown(bundle):
    """No picture is left in the page."""
    data, _ = digits_with(lambda pixels: pixels // 6)
    assert "data:image/png" in fs.evaluate(bundle, data, ["slices"]).html.read_text()
    assert "data:image/png" not in fs.evaluate(bundle, data, ["slices"], examples=False).html.read_text()


def test_without_examples_a_slice_keeps_the_columns_that_it_names_and_no_others(bundle, tmp_path):
    """A column whose name lies within another's, or within a text, is not asked for by that."""
    data, _ = digits_with(lambda pixels: pixels)
    own = [f"person {i // 4}" for i in range(len(data))]
    described = data.described(surname=own, name=own, width=np.arange(len(data)), id=own)
    asked = {"slices": ["surname != 'name id'", "width < 40"], "examples": False}
    keys = fs.evaluate(bundle, described, ["knn"], out=tmp_path, **asked).evidence.known()[1]
    assert {"surname", "width"} <= set(keys) and not {"name", "id"} & set(keys)


def test_facts_of_any_name_and_length(bundle, tmp_path):
    """A fact may be called as the items' key is; free text is no slice and does not fill memory."""
    data, planted = digits_with(lambda pixels: pixels)
    long = ["x" * 50_000 if i == 7 else f"note {i}" for i in range(len(data))]
    kind = np.where(np.arange(len(data)) % 2, "odd", "even")
    described = data.described(sha256=kind, found=kind, note=long)
    report = fs.evaluate(bundle, described, ["knn", "slices"], out=tmp_path)
    keys, known = report.evidence.known()
    assert len(set(keys)) == len(keys) == len(planted)
    assert "note" not in known and "sha256" not in known and "found" in known
    assert any(m.slice == "found == 'odd'" for m in report.evidence.measurements)


def test_columns_are_tried_first(bundle):
    """A column that is not there is said before anything is measured."""
    said = []
    for wrong in ({"slices": ["colour"]}, {"sensitive": ["colour"]}, {"domain": "colour"}):
        with pytest.raises(fs.BadInput, match="colour"):
            fs.evaluate(bundle, "digits", ["few_label"], say=said.append, **wrong)
    assert not said


def test_chance_makes_no_weak_slice():
    """Where errors fall anywhere, hardly ever a slice is named; where they do not, it is."""
    named = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        wrong = rng.random(1000) < 0.2
        every = np.ones(1000, bool)
        parts = [rng.random(1000) < 0.1 for _ in range(25)]
        named += holm([_chance(part, every, wrong) for part in parts]).min() < 0.05
        planted = parts[0] & (rng.random(1000) < 0.5)
        assert _chance(parts[0], every, wrong | planted) < 1e-3
    assert named <= 6


def test_chance_makes_no_unequal_groups(bundle):
    """Groups drawn by lot are seldom said to be served unequally."""
    said = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        wrong, group = rng.random(500) < 0.15, rng.integers(5, size=500)
        members = [np.flatnonzero(group == g) for g in range(5)]

        def rate(rows, wrong=wrong):
            return float(wrong[rows].mean())

        said += _by_chance(rate, members, _apart(rate, members)["difference"], rng) < 0.05
    assert said <= 4


def test_a_policy_on_one_bundle(bundle, tmp_path):
    """Floors judge without anything to compare with."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "rules: [{measure: knn.accuracy, floor: 0.1}, {measure: knn.accuracy, by: label, ceiling: 0.5, items: 20}]"
    )
    report = fs.evaluate(bundle, "digits", ["knn"], policy=policy)
    assert not report.verdict.passed and {j.rule for j in report.verdict.refusals} == {2}
    assert "The gate says no" in report.html.read_text()


@pytest.mark.parametrize("kind", ["direction", "class", "number"])
def test_planted_regions(kind):
    """A region where errors are frequent is found, be it a direction, a class or a number; over many seeds."""
    precise = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(2000, 30)).astype(np.float32) * np.linspace(3, 0.5, 30, dtype=np.float32)
        y = rng.integers(5, size=2000)
        numbers = np.random.default_rng((seed, 1)).random((2000, 2))
        planted = {"direction": z[:, 2] > 2.5, "class": y == 3, "number": numbers[:, 1] < 0.15}[kind]
        wrong = rng.random(2000) < np.where(planted, 0.5, 0.1)
        half = rng.random(2000) < 0.5
        numbers[rng.random((2000, 2)) < 0.05] = np.nan
        regions = regions_of_error(z[half], y[half], numbers[half], wrong[half], 5, seed)
        region = regions.of(z[~half], y[~half], numbers[~half])
        precise.append(planted[~half][region == 1].mean())
    assert np.median(precise) > 0.8 and min(precise) > 0.6


def test_no_regions_where_errors_fall_anywhere():
    """Chance alone makes hardly any region that errors of other items confirm."""
    gaps = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        z, y = rng.normal(size=(1000, 8)).astype(np.float32), rng.integers(3, size=1000)
        wrong = rng.random(1000) < 0.2
        none = np.empty((500, 0))
        region = regions_of_error(z[:500], y[:500], none, wrong[:500], 3, seed).of(z[500:], y[500:], none)
        gaps += [wrong[500:][region == i].mean() - 0.2 for i in range(1, region.max() + 1)]
    assert not gaps or abs(np.mean(gaps)) < 0.06


def test_description():
    """What most of the items have and few of the others; the words of texts."""
    columns = {"vendor": np.array(["a"] * 30 + ["b"] * 70), "size": np.arange(100.0)}
    inside = np.arange(100) < 25
    texts = [f"der Hund {i}" if i < 25 else f"the dog {i}" for i in range(100)]
    said = slices.described(inside, columns, texts)
    assert said.startswith("vendor == 'a' (100% of them, 7% of the others)")
    assert "words: der, hund" in said
    assert slices.described(np.arange(100) % 2 == 0, columns) == "nothing that is known tells them from the others"


def test_shift_and_domains(bundle):
    """The same items from elsewhere have the same accuracy; names of classes count, not their order; so do domains."""
    data, _ = digits_with(lambda pixels: 255 - pixels, 0.4)
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    whole = fs.open_data("digits")
    pixels = np.stack([whole.payloads.read(row) for row in range(len(whole))])
    splits = np.asarray(whole.manifest.splits)
    here = from_pixels(pixels, names[whole.labels], splits=splits)
    test = (splits == "test") & (whole.labels > 5)
    there = from_pixels(pixels[test], np.where(whole.labels[test] == 9, "ten", names[whole.labels[test]]))
    report = fs.evaluate(bundle, here, ["shift"], shift=[there])
    subject = Subject.of(bundle, here, 0)
    right = subject.test_logits.argmax(1) == subject.test_labels
    shared = np.isin(names[whole.labels[splits == "test"]], ["six", "seven", "eight"])
    assert report["shift.set1.accuracy"] == pytest.approx(right[shared].mean())
    assert report["shift.set1.drop"] == pytest.approx(0)
    half = np.arange(test.sum()) < 20  # our classes are in the part that is not measured
    parted = from_pixels(pixels[test], np.where(half, "six", "ten"), splits=np.where(half, "train", "test"))
    with pytest.raises(fs.BadInput, match="none of our classes"):
        fs.evaluate(bundle, here, ["shift"], shift=[parted])
    subject = replace(Subject.of(bundle, data, 0), domain="label")
    assert "needs" in CHECKS.get("domains")().missing(Subject.of(bundle, data, 0))
    assert measured(subject, "domains").measurements == []  # a domain with one class teaches nothing
    camera = data.described(camera=np.where(np.arange(len(data)) % 3, "new", "old"))
    table = measured(replace(Subject.of(bundle, camera, 0), domain="camera"), "domains").measurements
    assert {(m.name, m.slice) for m in table} == {
        (f"domains.from camera == '{one}'.accuracy", f"camera == '{other}'")
        for one in ("new", "old")
        for other in ("new", "old")
    }


def test_effective_robustness():
    """Nothing on the line, as much as one lies above it otherwise; one baseline is no line."""
    clean = np.array([0.6, 0.7, 0.8, 0.9])
    shifted = 1 / (1 + np.exp(-(0.8 * np.log(clean / (1 - clean)) - 0.5)))
    assert effective_robustness(clean, shifted, clean, shifted) == pytest.approx(np.zeros(4), abs=1e-9)
    assert effective_robustness([0.7], [shifted[1] + 0.1], clean, shifted) == pytest.approx([0.1])
    with pytest.raises(ValueError, match="two baseline"):
        effective_robustness([0.7], [0.6], [0.5, 0.5], [0.4, 0.4])


COLUMNS = {
    "size": np.array([3.0, 1.0, 2.0, np.nan, 2.0, -1.0]),
    "kind": np.array(["b", "a", "", "c", "B", "b"]),
}
SIGNS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(
    ("column", "written", "value"), [("size", "2", 2.0), ("size", "-1", -1.0), ("kind", "'b'", "b")]
)
def test_a_comparison_is_that_of_each_item(sign, column, written, value):
    """From either side; what is missing is never in it."""
    holds, there = SIGNS[sign], [x != "" and x == x for x in COLUMNS[column].tolist()]
    pairs = list(zip(COLUMNS[column].tolist(), there, strict=True))
    found = slices.where(f"{column} {sign} {written}", COLUMNS)
    assert found.name == f"{column} {sign} {written}"
    assert found.mask.tolist() == [known and holds(x, value) for x, known in pairs]
    turned = slices.where(f"{written} {sign} {column}", COLUMNS).mask
    assert turned.tolist() == [known and holds(value, x) for x, known in pairs]


def test_expressions_are_joined_as_they_are_written():
    """``and`` binds before ``or``, brackets before both; a chain holds where each of its parts does."""

    def rows(expression):
        return np.flatnonzero(slices.where(expression, COLUMNS).mask).tolist()

    assert rows("size == 3 or size == 1 and kind == 'b'") == [0]
    assert rows("(size == 3 or size == 1) and kind == 'a'") == [1]
    assert rows("0 < size < 3") == [1, 2, 4] and rows("3 >= size > 1") == [0, 2, 4]
    assert rows("not (size > 1 or kind == 'b')") == [1, 3] and rows("not size > 1 and kind == 'b'") == [5]
    assert rows("size in (1, 3)") == [0, 1] and rows("size not in [1, 3]") == [2, 4, 5]
    assert rows("kind in {'b'}") == [0, 5] and rows("kind not in ('b', 'c')") == [1, 4]
    names = {"a b": COLUMNS["size"], "c d": COLUMNS["kind"], "e": COLUMNS["size"]}
    assert np.flatnonzero(slices.where("`a b` < 3 and `c d` == 'b' or e == 3", names).mask).tolist() == [0, 5]
    for wrong in ("1 < 2", "1 in size", "size in 3", "size + 1 in [3]", "size in [kind]", "size == 'x'", "kind == 1"):
        with pytest.raises(fs.BadInput, match="write it like: brightness < 40"):
            slices.where(wrong, COLUMNS)


@pytest.mark.parametrize(
    ("name", "different", "text", "made"),
    [("kind", 1, True, 0), ("kind", 2, True, 2), ("kind", 20, True, 20), ("kind", 21, True, 0),
     ("label", 1, True, 0), ("label", 21, True, 21), ("label", 100, True, 100), ("label", 101, True, 0),
     ("size", 1, False, 0), ("size", 2, False, 2), ("size", 10, False, 10), ("size", 11, False, 2)],
)  # fmt: skip
def test_how_many_values_make_slices_of_themselves(name, different, text, made):
    values = np.resize(np.arange(float(different)), 3 * different)
    found = slices.usual({name: values.astype(np.str_) if text else values})
    assert len(found) == made
    if made == different:
        assert all(part.mask.sum() == 3 and f"{name} == " in part.name for part in found)
    # What is missing is no value of its own.
    values = np.append(values.astype(np.str_), "") if text else np.append(values, np.nan)
    assert [part.name for part in slices.usual({name: values})] == [part.name for part in found]


def test_the_ends_of_a_number_are_its_lowest_and_highest_fifth():
    """Of what is there, whatever the order; ends that are rounded hold what their names say."""
    size = np.random.default_rng(0).permutation(np.append(np.arange(101.0), [np.nan] * 20))
    low, high = slices.usual({"size": size})
    assert (low.name, high.name) == ("size <= 20", "size >= 80")
    assert sorted(size[low.mask]) == list(range(21)) and sorted(size[high.mask]) == list(range(80, 101))
    fine = np.linspace(1.00001, 2.00001, 101)
    low, high = slices.usual({"size": fine})
    assert (low.name, high.name) == ("size <= 1.2", "size >= 1.8")
    assert np.array_equal(low.mask, fine <= 1.2) and np.array_equal(high.mask, fine >= 1.8)


def test_nobody_gets_more_slices_than_can_be_read():
    columns = {f"c{i:02}": np.resize(np.arange(20), 40).astype(np.str_) for i in range(11)}
    found = slices.usual(columns)
    assert len(found) == 200 and found[-1].name == "c09 == '9'"


def test_a_column_that_was_asked_for_may_have_a_thousand_values():
    for values in (np.arange(1000.0), np.arange(1000).astype(np.str_)):
        columns = {"id": np.append(values, values[:5])}
        found = slices.by_value("id", columns)
        assert len(found) == 1000 and sorted(int(part.mask.sum()) for part in found) == [1] * 995 + [2] * 5
        assert [
            part.name for part in slices.asked(["id", "id == 'x'"] if values.dtype.kind == "U" else ["id"], columns)
        ][:1000] == [part.name for part in found]
    with pytest.raises(fs.BadInput, match=r"'a b' has 1,001 different values; give an expression: `a b` < 1"):
        slices.by_value("a b", {"a b": np.arange(1001.0)})


def test_facts_become_numbers_texts_or_nothing():
    """Numbers if all that are there are; cells are trimmed and cut at a hundred; free text is left out."""
    n = 1001
    rows = [str(i) for i in range(n)]
    data = from_pixels(np.zeros((n, 2, 2), np.uint8)).described(
        number=[" 1.5 ", "", None, "-2e3", *["7"] * (n - 4)],
        mixed=["1", "two", " two ", None, *["1"] * (n - 4)],
        empty=[" "] * n,
        long=["x" * 99 + "yz", "x" * 99 + "yw", "x" * 99, *["z"] * (n - 3)],
        many=[f"t{row}" for row in rows],
        nearly=["t1", *[f"t{row}" for row in rows[1:]]],
    )
    known = slices.known_of(data)
    assert set(known) == {"number", "mixed", "empty", "long", "nearly"}
    np.testing.assert_array_equal(known["number"][:5], [1.5, np.nan, np.nan, -2000, 7])
    assert known["mixed"][:4].tolist() == ["1", "two", "two", ""]
    assert set(known["empty"]) == {""} and len(set(known["nearly"])) == 1000
    assert known["long"][:3].tolist() == ["x" * 99 + "y", "x" * 99 + "y", "x" * 99]
    part = slices.known_of(data.select(np.array([4, 1, 0])))
    np.testing.assert_array_equal(part["number"], [7, np.nan, 1.5])
    assert part["mixed"].tolist() == ["1", "two", "1"]


def test_labels_are_known_by_name():
    """An item without a label has none."""
    data = from_pixels(np.zeros((4, 2, 2), np.uint8), np.array(["cat", "dog", "cat", "emu"]))
    assert slices.known_of(data)["label"].tolist() == ["cat", "dog", "cat", "emu"]
    hidden = replace(data, whole=replace(data.whole, labels=np.array([0, -1, 1, 2])))
    assert slices.known_of(hidden)["label"].tolist() == ["cat", "", "dog", "emu"]


def test_what_is_said_of_a_part_is_what_tells_it_best():
    """At least half of it, a fifth more than of the others; the two that tell most, with their shares."""
    inside = np.arange(2000) < 1000

    def said(**shares):
        """Columns that are yes on so many of a thousand inside, and so many of a thousand others, by number."""
        place = np.arange(2000) % 1000
        columns = {n: np.where(place < np.where(inside, *most), "yes", "no") for n, most in shares.items()}
        return slices.described(inside, columns)

    none = "nothing that is known tells them from the others"
    assert said(a=(500, 300)) == "a == 'yes' (50% of them, 30% of the others)"
    assert said(a=(499, 0)) == said(a=(500, 301)) == said(a=(0, 0)) == none
    assert said(a=(800, 599)) == "a == 'yes' (80% of them, 60% of the others)"
    three = said(a=(800, 400), b=(900, 200), c=(900, 400))
    assert three == "b == 'yes' (90% of them, 20% of the others); c == 'yes' (90% of them, 40% of the others)"


@given(st.lists(st.text("ab c", max_size=9), min_size=2, max_size=12), st.integers(1, 11))
def test_telling_words_are_those_of_a_loop(texts, cut):
    """Share inside times the log of the ratio to the share of all; words of two letters and more, five at most."""
    inside = texts[: min(cut, len(texts))]

    def share(word, among):
        return sum(word in text.split() for text in among) / len(among)

    words = {word for text in inside for word in text.split() if len(word) > 1}
    score = {word: share(word, inside) * np.log(share(word, inside) / share(word, texts)) for word in words}
    found = slices.telling_words([text.upper() for text in inside], texts)
    assert len(found) == min(5, len(words)) and set(found) <= words
    assert [score[word] for word in found] == pytest.approx(sorted(score.values(), reverse=True)[: len(found)])
    assert slices.telling_words(["bb aa", "cc"], ["bb aa", "cc"]) == ["aa", "bb", "cc"]
