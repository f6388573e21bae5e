"""The first screen: every sentence on the right side of its threshold, in the right order, silent without figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastness.evaluation.answer import Statement, statements, weakest
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.measurement import Measurement

PLACE = Path("nowhere")


def measured(name: str, value: float, low: float = 0.0, high: float = 1.0, **further: Any) -> Measurement:
    """Return a number as a check would."""
    return Measurement(name, value, low, high, "items", 200, "share", further.pop("protocol", "p; q"), "d", **further)


def said(*found: Measurement, seen: int = 0) -> list[Statement]:
    """Return what is said of such evidence."""
    return statements(Evidence(PLACE, {"trained_on": {"held_out_items_seen_in_training": seen}}, list(found)))


def only(*found: Measurement) -> Statement:
    """Return the one sentence that is said."""
    (statement,) = said(*found)
    return statement


def test_nothing_is_said_of_nothing() -> None:
    assert said() == []
    assert said(measured("knn.accuracy", 0.9), measured("corruption.mean.accuracy", 0.5)) == []


def test_items_seen_in_training_are_said_first_and_against() -> None:
    found = said(measured("calibration.scaled.ece", 0.01), seen=1200)
    assert [s.good for s in found] == [False, True] and found[0].text.startswith("1,200 of the held-out items were")
    assert said(measured("calibration.scaled.ece", 0.01), seen=1)[0].text.startswith("1 of")


@pytest.mark.parametrize(("error", "good"), [(0.0, True), (0.05, True), (0.0501, False), (0.3, False)])
def test_calibration(error: float, good: bool) -> None:
    found = only(measured("calibration.scaled.ece", error))
    assert found.good is good and ("does not agree with" in found.text) is not good
    assert f"{error:.1%} apart" in found.text


@pytest.mark.parametrize(("auroc", "good"), [(0.9, True), (0.97, True), (0.8999, False), (0.5, False)])
def test_outsiders(auroc: float, good: bool) -> None:
    """Of each set the best score speaks; other figures are not looked at."""
    sets = [
        measured("ood.svhn.energy.auroc", 0.3),
        measured("ood.svhn.knn.auroc", auroc),
        measured("ood.svhn.max.auroc", 0.2),
    ]
    found = only(*sets, measured("ood.svhn.msp.aupr", 0.99))
    assert found.good is good and ("notices that svhn" in found.text) is good
    assert found.text.endswith(f"AUROC {auroc:.2f} by knn.")
    two = said(*sets, measured("ood.noise.knn.auroc", 0.99))
    assert len(two) == 2 and {"svhn" in s.text for s in two} == {True, False}


@pytest.mark.parametrize(
    ("clean", "mean", "good"), [(1.0, 0.8, True), (0.5, 0.4, True), (0.9, 0.71, False), (0.5, 0.1, False)]
)
def test_corruptions(clean: float, mean: float, good: bool) -> None:
    """Four fifths of the clean accuracy; the worst is named if it is known; without clean accuracy nothing is said."""
    found = [measured("corruption.clean.accuracy", clean), measured("corruption.mean.accuracy", mean)]
    assert only(*found).good is good and "worst" not in only(*found).text
    worst = measured("corruption.worst.accuracy", 0.05, protocol="glass_blur; severity")
    assert only(*found, worst).text.endswith("worst is glass blur, 5%.")
    assert said(found[0]) == said(found[1]) == said(measured("corruption.clean.accuracy", 0.0), found[1]) == []


def few(each: int, ours: tuple[float, float, float], raw: tuple[float, float, float]) -> list[Measurement]:
    """Return accuracies with so many labels a class."""
    weak = dict.fromkeys(("untrained", "from_scratch"), (0.1, 0.05, 0.15))
    return [measured(f"few_label.{each}.{n}.accuracy", *v) for n, v in {"encoder": ours, "raw": raw, **weak}.items()]


def test_whether_it_helps() -> None:
    """Intervals apart decide, five labels before one, ten and fifty; all baselines must be known."""
    above, below, level = (0.9, 0.85, 0.95), (0.3, 0.25, 0.35), (0.6, 0.55, 0.65)
    assert only(*few(5, above, level)).good is True and "the raw items 60%" in only(*few(5, above, level)).text
    assert only(*few(5, below, level)).good is False and only(*few(5, (0.6, 0.5, 0.7), level)).good is None
    touching = (0.75, 0.65, 0.85)
    assert only(*few(5, touching, level)).good is None and only(*few(5, (0.5, 0.45, 0.55), level)).good is None
    assert "With 5 labels a class" in only(*few(1, above, level), *few(5, above, level), *few(50, above, level)).text
    assert "With 1 label a class" in only(*few(1, above, level), *few(10, above, level)).text
    assert "With 10 labels a class" in only(*few(50, above, level), *few(10, above, level)).text
    assert said(*few(5, above, level)[:-1]) == [] == said(*few(5, above, level)[1:])


def test_the_weakest_slice() -> None:
    """Only slices that chance does not explain; they stand as the check has ordered them."""
    whole = measured("slices.accuracy", 0.8)
    weak = [measured("slices.accuracy", v, slice=f"kind == '{n}'", chance=p) for n, v, p in
            (("a", 0.2, 0.049), ("b", 0.3, 0.001), ("c", 0.4, 0.05), ("d", 0.1, None))]  # fmt: skip
    other = [measured("zebra.error", 0.5, slice="kind == 'z'", chance=0.0), measured("a.b", 0.5, slice="x", chance=0.0)]
    evidence = Evidence(PLACE, {}, [whole, *weak, *other])
    assert [m.slice for m in weakest(evidence, 9)] == ["kind == 'a'", "kind == 'b'"]
    assert [m.slice for m in weakest(evidence, 1)] == ["kind == 'a'"]
    found = only(whole, *weak, *other)
    assert found.good is False and found.text.startswith(
        "It is weakest on kind == 'a': right 20% of the time on 200 items, 80%"
    )
    none = only(whole, *weak[2:], *other)
    assert none.good is True and none.text.startswith("On none of 2 slices")
    assert said(whole, *other) == [] == said(*weak)


@pytest.mark.parametrize(
    ("ratio", "high", "chance", "good", "words"),
    [(2.0, 3.0, 0.01, False, "2.0 times as often"), (1.25, 3.0, 0.049, None, "1.2 times as often"),
     (1.26, 3.0, 0.01, False, "1.3 times"), (1.1, 1.25, 0.05, True, "about as often in all groups of at least 50"),
     (1.1, 1.26, 0.2, None, "do not tell"), (None, 0, 0.001, False, "never errs in one group of sex and on 60%"),
     (None, 0, 0.2, None, "do not tell"), (1.1, 1.2, None, True, "about as often")],
)  # fmt: skip
def test_groups(ratio: float | None, high: float, chance: float | None, good: bool | None, words: str) -> None:
    found = [measured("groups.sex.error.difference", 0.6, chance=chance), measured("groups.sex.ece.difference", 0.9)]
    if ratio is not None:
        found.append(measured("groups.sex.error.ratio", ratio, 1.0, high))
    assert only(*found).good is good and words in only(*found).text


def test_what_speaks_against_comes_first_and_what_says_nothing_last() -> None:
    found = said(
        *few(5, (0.6, 0.5, 0.7), (0.6, 0.55, 0.65)), measured("calibration.scaled.ece", 0.01),
        measured("ood.x.knn.auroc", 0.5), measured("corruption.clean.accuracy", 0.5),
        measured("corruption.mean.accuracy", 0.45),
    )  # fmt: skip
    assert [s.good for s in found] == [False, True, True, None]


@pytest.mark.parametrize(("mean", "good"), [(0.8 * 0.75, True), (0.5999, False), (0.6001, True)])
def test_just_above_and_below_four_fifths_of_the_clean_accuracy(mean: float, good: bool) -> None:
    found = [measured("corruption.clean.accuracy", 0.75), measured("corruption.mean.accuracy", mean)]
    assert only(*found).good is good


@pytest.mark.parametrize(("chance", "surely"), [(0.0499, True), (0.05, False), (0.0501, False)])
def test_what_counts_as_beyond_chance(chance: float, surely: bool) -> None:
    """Of slices and of groups alike; a slice counts whatever letter its name begins with."""
    whole = measured("slices.accuracy", 0.8)
    for name in ("Vendor == 'a'", "zone == 'a'", "`1st` == 'a'"):
        found = only(whole, measured("slices.accuracy", 0.5, slice=name, chance=chance))
        assert found.good is not surely and (name in found.text) is surely
    groups = only(measured("groups.sex.error.difference", 0.5, chance=chance))
    assert groups.good is (False if surely else None)


def test_the_best_of_the_baselines_is_the_one_to_beat() -> None:
    """Whichever it is; each has its own words."""
    words = {"raw": "the raw items", "untrained": "the untrained network", "from_scratch": "training from scratch"}
    for best, called in words.items():
        found = [measured("few_label.10.encoder.accuracy", 0.6, 0.55, 0.65)]
        for name in words:
            value = 0.7 if name == best else 0.4
            found.append(measured(f"few_label.10.{name}.accuracy", value, value - 0.04, value + 0.04))
        assert only(*found).good is False and f"; {called} 70%" in only(*found).text


def test_fifty_labels_a_class_are_better_than_none() -> None:
    assert "With 50 labels a class" in only(*few(50, (0.9, 0.85, 0.95), (0.6, 0.55, 0.65))).text
    for each in (2, 49, 51, 100):
        assert said(*few(each, (0.9, 0.85, 0.95), (0.6, 0.55, 0.65))) == []


def test_of_equal_scores_the_first_speaks() -> None:
    found = only(measured("ood.svhn.knn.auroc", 0.95), measured("ood.svhn.energy.auroc", 0.95))
    assert found.text.endswith("by knn.")


def test_every_column_of_groups_has_its_sentence() -> None:
    """In the order of the measurements; figures of one column do not speak for another."""
    found = said(
        measured("groups.error", 0.1),
        measured("groups.age.ece.difference", 0.1, chance=0.001),
        measured("groups.age.error.difference", 0.2, chance=0.3),
        measured("groups.age.error.ratio", 1.1, 1.0, 1.2),
        measured("groups.sex.error.difference", 0.4, chance=0.01),
        measured("groups.sex.error.ratio", 3.0, 2.0, 4.0),
    )
    assert [s.good for s in found] == [False, True]
    assert "3.0 times as often in one group of sex" in found[0].text and found[1].text.endswith("items of age.")
