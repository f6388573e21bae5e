"""Corruptions of texts and tables: what changes, how much, and what never does."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastness.core.errors import BadInput
from fastness.corruptions.table import TABLE_CORRUPTIONS, Columns
from fastness.corruptions.text import TEXT_CORRUPTIONS

SEVERITIES = (1, 2, 3, 4, 5)
SENTENCES = [
    "How do I activate my new card, please?",
    "I can't find the street because it is dark, but the shop is near.",
    "A man is playing a large guitar on top of the house.",
    "What's the exchange rate for 350 dollars right now?",
] * 25


def text(name: str, sentence: str, severity: int, seed: int = 0) -> str:
    """Return the corrupted text."""
    return TEXT_CORRUPTIONS.get(name)(sentence, severity, seed)


@pytest.mark.parametrize("name", list(TEXT_CORRUPTIONS))
@given(sentence=st.text(max_size=60), severity=st.sampled_from(SEVERITIES), seed=st.integers(0, 3))
def test_any_text(name: str, sentence: str, severity: int, seed: int) -> None:
    """The same seed gives the same; what says something never becomes blank."""
    found = text(name, sentence, severity, seed)
    assert found == text(name, sentence, severity, seed)
    assert bool(found.strip()) == bool(sentence.strip())


@pytest.mark.parametrize("name", list(TEXT_CORRUPTIONS))
def test_severity_grows(name: str) -> None:
    """A higher severity leaves fewer sentences as they were, and another seed gives other results."""
    numbered = [f"{s} {i}" for i, s in enumerate(SENTENCES)]
    touched = [sum(_apart(text(name, s, severity), s) for s in numbered) for severity in SEVERITIES]
    assert touched == sorted(touched)
    assert touched[0] > 0
    assert touched[4] > 2 * touched[0]
    assert [text(name, s, 3, 0) for s in numbered] != [text(name, s, 3, 1) for s in numbered]


def _apart(one: str, other: str) -> int:
    """Count the letters of the longer text that a plain comparison finds changed."""
    from difflib import SequenceMatcher

    same = sum(block.size for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks())
    return max(len(one), len(other)) - same


@given(st.sampled_from(SENTENCES), st.sampled_from(SEVERITIES))
def test_what_each_kind_leaves(sentence: str, severity: int) -> None:
    """Case keeps the letters, look-alikes the shape, lost words the rest in order, typing errors the length."""
    assert text("case", sentence, severity).lower() == sentence.lower()
    twins = text("homoglyphs", sentence, severity)
    assert len(twins) == len(sentence)
    assert all(a == b or not b.isascii() or a in "015" for a, b in zip(sentence, twins, strict=True))
    rest = iter(sentence.split())
    assert all(word in rest for word in text("word_drop", sentence, severity).split())
    assert abs(len(text("typos", sentence, severity)) - len(sentence)) <= 0.2 * len(sentence) + 1


def test_look_alikes_are_other_letters() -> None:
    """Every look-alike has another name in Unicode."""
    found = text("homoglyphs", "aceopxyijsABCEHIKMOPSTXYZ" * 10, 5)
    changed = [b for a, b in zip("aceopxyijsABCEHIKMOPSTXYZ" * 10, found, strict=True) if a != b]
    assert len(changed) == 100
    assert all("LATIN" not in unicodedata.name(letter) for letter in changed if letter != "l")


def test_paraphrases_say_the_same() -> None:
    """Rules, in both directions, with the case of the first letter kept."""
    assert text("paraphrase", "Can't stop", 5) == "Cannot stop"
    assert text("paraphrase", "we are here", 5) == "we're here"
    assert text("paraphrase", "After dinner, she left.", 5) in ("Following dinner, she left.",)
    assert text("paraphrase", "In Rome, she wept.", 5) == "she wept, In Rome."
    assert text("paraphrase", "xyz", 5) == "xyz"
    for fixed in ("1,500.75 euros at 10:30", "Pi is 3.14 of version 2.0.1", "example.com/one-way", "$5 or 7%"):
        assert text("paraphrase", fixed, 5) == fixed
    assert text("paraphrase", "3 cats", 5) == "three cats"
    assert text("paraphrase", "I've won", 5) == "I have won"
    assert {text("paraphrase", "How do I pay?", 5, seed) for seed in range(9)} == {"How can I pay?"}
    assert text("paraphrase", "how do i pay?", 5) == "how can i pay?"


def rows(count: int = 2000) -> tuple[np.ndarray, Columns]:
    """Three numbers, of which one is large and one partly missing, and two categories."""
    rng = np.random.default_rng(0)
    cells = np.stack(
        [
            rng.normal(50, 5, count),
            rng.normal(1e4, 1e3, count),
            rng.normal(size=count),
            rng.integers(0, 4, count),
            rng.choice(3, count, p=(0.7, 0.2, 0.1)),
        ],
        axis=1,
    ).astype(np.float32)
    cells[: count // 4, 2] = np.nan
    values = ((), (), (), ("a", "b", "c", "d"), ("b", "d", "e"))
    origin = np.array([0.0, 100.0, 0, 0, 0])
    columns = Columns(cells.copy(), np.array([0, 1, 2]), np.array([3, 4]), origin, values)
    return cells, columns


@pytest.mark.parametrize("name", list(TABLE_CORRUPTIONS))
def test_tables(name: str) -> None:
    """The input stays; the same seed gives the same; more severity touches more cells; categories stay known ones."""
    cells, columns = rows()
    kind = TABLE_CORRUPTIONS.get(name)
    found = [kind(cells, columns, severity, 7) for severity in SEVERITIES]
    assert np.array_equal(cells, columns.known, equal_nan=True)
    assert np.array_equal(found[2], kind(cells, columns, 3, 7), equal_nan=True)
    touched = [float((~np.isclose(x, cells, equal_nan=True)).mean()) for x in found]
    moved = [float(np.nanmean(np.abs(x[:, 0] - cells[:, 0]))) for x in found]
    assert touched == sorted(touched) or moved == sorted(moved)
    assert touched[0] > 0.005
    assert all(x.dtype == np.float32 and np.isin(x[:, 4][~np.isnan(x[:, 4])], (0, 1, 2)).all() for x in found)
    with pytest.raises(BadInput, match="1 to 5"):
        kind(cells, columns, 0, 7)


def test_how_much_tables_change() -> None:
    """Shares, deviations and factors are those that are stated."""
    cells, columns = rows(20000)
    empty = np.isnan(TABLE_CORRUPTIONS.get("missing")(cells, columns, 4, 0)[:, [0, 1, 3, 4]])
    assert np.allclose(empty.mean(0), 0.35, atol=0.02)
    noisy = TABLE_CORRUPTIONS.get("noise")(cells, columns, 3, 0)
    assert abs(float((noisy - cells)[:, 0].std()) / (0.4 * 5) - 1) < 0.03
    assert abs(np.bincount(noisy[:, 4].astype(int))[0] / len(cells) - 0.7) < 0.02  # drawn from the column itself
    mistaken = TABLE_CORRUPTIONS.get("unit_mistake")(cells, columns, 5, 0)
    factors = (mistaken[:, 1].astype(float) + 100) / (cells[:, 1] + 100)
    seen = factors[np.abs(factors - 1) > 1e-3]
    assert np.allclose(np.log10(np.unique(seen.round(5))), np.round(np.log10(np.unique(seen.round(5)))), atol=0.01)
    assert abs((~np.isclose(mistaken, cells, equal_nan=True)).any(1).mean() - 0.5) < 0.02  # a missing cell has no unit
    swapped = TABLE_CORRUPTIONS.get("column_swap")(cells, columns, 5, 0)
    before, after = cells[:, :3] + columns.origin[:3], swapped[:, :3] + columns.origin[:3]
    assert np.allclose(np.sort(after, 1), np.sort(before, 1), atol=1e-4, equal_nan=True)
    assert 0.4 < (np.abs(after - before) > 1e-3).any(1).mean() < 0.5
    assert np.array_equal(swapped[:, 3:], cells[:, 3:])


def test_exchanged_categories_are_values_of_the_other_column() -> None:
    """A value that the other column does not list is unknown there, a missing one missing, a known one found."""
    cells, columns = rows(4000)
    columns = replace(columns, numbers=np.array([0]))
    cells[:50, 4] = np.nan
    swapped = TABLE_CORRUPTIONS.get("column_swap")(cells, columns, 5, 0)
    changed = ~np.isclose(swapped[:, 3:], cells[:, 3:], equal_nan=True).all(1)
    read = [[("abcd" + "?")[int(x)] if x == x else "" for x in column] for column in (cells[:, 3], swapped[:, 3])]
    other = [[("bde" + "?")[int(x)] if x == x else "" for x in column] for column in (cells[:, 4], swapped[:, 4])]
    assert 0.3 < changed.mean() < 0.55
    for row in np.flatnonzero(changed):
        assert read[1][row] == (other[0][row] if other[0][row] in ("", *"abcd") else "?")
        assert other[1][row] == (read[0][row] if read[0][row] in "bde" else "?")


def test_tables_of_one_kind() -> None:
    """Tables without numbers, or with one column, are no trouble."""
    cells = np.zeros((10, 1), np.float32)
    for numbers in (True, False):
        places = (np.array([0]), np.zeros(0, np.int64))
        columns = Columns(cells, *(places if numbers else places[::-1]), np.zeros(1), ((),))
        for name in TABLE_CORRUPTIONS:
            assert TABLE_CORRUPTIONS.get(name)(cells, columns, 5, 0).shape == (10, 1)
