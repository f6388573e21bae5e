"""Splits: in proportion, groups kept whole, the same for the same seed."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastness as fs
from conftest import PIXELS, picture, pictures, png, tar_folder, write_classes, write_pictures, zip_folder
from fastness.core.errors import BadInput
from fastness.data import open_data
from fastness.data.splits import canonical, cut, is_split, numbered
from fastness.data.text import texts_of

SHARES = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**32)
LABELS = st.lists(st.integers(-1, 4), min_size=2, max_size=80).map(lambda values: np.array(values, np.int64))
GROUPS = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=80).map(lambda values: np.array(values, np.str_))


@given(n=st.integers(2, 300), share=SHARES, seed=SEEDS)
def test_the_share_is_met_and_neither_part_is_empty(n: int, share: float, seed: int) -> None:
    chosen = cut(n, share, seed)

    assert chosen.shape == (n,) and 0 < chosen.sum() < n
    assert abs(chosen.sum() - share * n) <= 1


@given(labels=LABELS, share=SHARES, seed=SEEDS)
def test_each_class_gives_its_share(labels: np.ndarray, share: float, seed: int) -> None:
    sizes = {int(label): int((labels == label).sum()) for label in np.unique(labels)}
    if max(sizes.values()) == 1:
        with pytest.raises(BadInput, match="single item"):
            cut(len(labels), share, seed, labels=labels)
        return

    chosen = cut(len(labels), share, seed, labels=labels)

    for label, size in sizes.items():
        given_up = int(chosen[labels == label].sum())
        assert abs(given_up - share * size) <= 1
        assert (0 < given_up < size) if size > 1 else given_up == 0


@given(groups=GROUPS, share=SHARES, seed=SEEDS, data=st.data())
def test_no_group_is_in_both_parts(groups: np.ndarray, share: float, seed: int, data: st.DataObject) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups))))
    sizes = np.unique(groups, return_counts=True)[1]
    if len(sizes) == 1:
        with pytest.raises(BadInput, match="one group"):
            cut(len(groups), share, seed, groups=groups)
        return

    chosen = cut(len(groups), share, seed, labels=labels, groups=groups)

    assert 0 < chosen.sum() < len(groups)
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert abs(chosen.sum() - share * len(groups)) <= sizes.max()


@given(groups=GROUPS, seed=SEEDS)
def test_a_quarter_is_the_smaller_part_however_large_a_group_is(groups: np.ndarray, seed: int) -> None:
    if len(set(groups)) > 1:
        assert cut(len(groups), 0.25, seed, groups=groups).sum() <= len(groups) / 2


@given(labels=LABELS.filter(lambda labels: np.bincount(labels + 1).max() > 1), share=SHARES, seed=SEEDS)
def test_the_seed_alone_decides(labels: np.ndarray, share: float, seed: int) -> None:
    assert np.array_equal(*(cut(len(labels), share, seed, labels=labels) for _ in range(2)))


def test_another_seed_gives_another_cut() -> None:
    assert len({cut(50, 0.3, seed).tobytes() for seed in range(10)}) == 10


@given(
    same=st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda found: len(set(found)) > 2),
    grouped=st.booleans(),
    seed=SEEDS,
)
def test_what_is_the_same_stays_together(same: list[int], grouped: bool, seed: int) -> None:
    number = numbered(np.array(same)[:, None])
    assert [same.index(item) for item in same] == [int(np.argmax(number == n)) for n in number]
    groups = np.array(["ab"[i % 2] if i < 4 else "" for i in range(len(same))]) if grouped else None
    try:
        chosen = cut(len(same), 0.25, seed, groups=groups, same=number)
    except BadInput as error:
        assert grouped and "one group" in str(error)
        return
    assert 0 < chosen.sum() < len(same) and not set(number[chosen]) & set(number[~chosen])
    if groups is not None:
        assert not set(groups[chosen]) & set(groups[~chosen]) - {""}


def test_a_question_with_many_answers_is_in_one_part_alone(tmp_path: Path) -> None:
    from fastness.evaluation.subject import Subject

    path = tmp_path / "x.csv"
    path.write_text("q,a\n" + "".join(f"question {i} of many,answer {i} {j}\n" for i in range(20) for j in range(5)))
    made = fs.train(path, text="q,a", steps=1, batch_size=8, width=8, out=tmp_path / "run", quiet=True)
    bundle = fs.load(made.bundle)
    subject = Subject.of(bundle, open_data(path, text="q,a"), 0)
    fit, test = (set(texts_of(items.dataset)) for items in (subject.fit, subject.test))
    assert not fit & test and len(fit) + len(test) == 20 and len(test) == 5


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_outside_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(BadInput, match="between 0 and 1"):
        cut(10, share, 0)


@pytest.mark.parametrize("n", [0, 1])
def test_what_cannot_be_divided_is_refused(n: int) -> None:
    with pytest.raises(BadInput, match="add more data"):
        cut(n, 0.5, 0)


@given(seed=SEEDS)
def test_divide_gives_every_item_once(seed: int) -> None:
    dataset = open_data((np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((4, 4), np.uint8), [0, 1] * 10))

    rest, part = dataset.divide(0.25, seed)

    assert sorted([*rest.rows, *part.rows]) == list(range(20))
    assert len(part) in (4, 5, 6) and len(set(part.labels.tolist())) == 2


def test_names_of_splits() -> None:
    assert all(map(is_split, ["train", "Val", "VALIDATION", "test"]))
    assert not any(map(is_split, ["training", "tests", "cats", ""]))
    assert {canonical("val"), canonical("Validation")} == {"validation"}


def test_an_unknown_split_is_refused_with_those_there_are(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_pictures(tmp_path / name, PIXELS[:1])
    with pytest.raises(BadInput, match="no split 'dev'; there are: test, train"):
        open_data(tmp_path).split("dev")


@pytest.mark.parametrize(
    ("names", "labels", "splits"),
    [
        ("x.png y.png", None, None),
        ("all/x.png all/y.png", None, None),
        ("wrap/per/a/x.png wrap/per/b/y.png", "ab", None),
        ("a/x.png a/deep/y.png b/z.png", "aab", None),
        ("a/x.png b/y.png z.png", "ab-", None),
        ("train/x.png test/y.png", None, {"train": 1, "test": 1}),
        ("train/x.png val/y.png VALIDATION/z.png test/t.png", None, {"train": 1, "validation": 2, "test": 1}),
        ("test/a/z.png train/a/x.png train/b/y.png", "aab", {"train": 2, "test": 1}),
        ("wrap/train/a/x.png wrap/train/b/y.png", "ab", {"train": 2}),
    ],
)
def test_what_folders_mean(tmp_path: Path, names: str, labels: str | None, splits: dict[str, int] | None) -> None:
    for name in names.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(picture(len(name))))
    opened = open_data(tmp_path)

    found = None if opened.labels is None else [(*opened.class_names, "-")[label] for label in opened.labels]
    assert opened.manifest.names == sorted(names.split())
    assert found == (labels and list(labels))
    assert (opened.manifest.splits is None) == (splits is None)
    assert splits is None or Counter(opened.manifest.splits.tolist()) == splits


def test_folders_mean_what_one_says(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photos")
    splits = write_classes(tmp_path / "splits")
    (splits / "a").rename(splits / "train")

    assert open_data(folder, label="none").labels is None
    assert open_data(splits, split="none").class_names == ("b", "train")
    assert set(open_data(folder, group="folder").manifest.groups) == {"a", "b"}
    assert open_data(folder, group="none").manifest.groups is None
    digits = open_data("digits", label="none", split="none")
    assert digits.labels is None and digits.split_names == ()


@pytest.mark.parametrize("ending", ["", ".zip", ".tar.gz"])
def test_what_nobody_knows_of_a_tree_is_refused_and_not_taken_for_its_folders(tmp_path: Path, ending: str) -> None:
    folder = path = write_classes(tmp_path / "photos")
    if ending:
        path = tmp_path / f"photos{ending}"
        (zip_folder if ending == ".zip" else tar_folder)(folder, path)
    for option in ("label", "split", "group"):
        with pytest.raises(BadInput, match=rf"photos.*: no column 'patint' for --{option} \(.*\); say folder or none"):
            open_data(path, **{option: "patint"})
    assert open_data(path, label="folder", group="folder").fingerprint == open_data(path).fingerprint


@pytest.mark.parametrize("ending", ["", ".zip", ".tar", ".tar.gz", "whole.zip"])
def test_what_a_table_beside_a_tree_says_is_known_also_in_an_archive(tmp_path: Path, ending: str) -> None:
    folder = path = write_classes(tmp_path / "photos")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    table = "file_name,patient,kind\n" + "".join(f"{name},p{i // 2},k{i % 2}\n" for i, name in enumerate(names))

    def packed(table: str) -> Path:
        (folder / "metadata.csv").write_text(table)
        if ending == "whole.zip":  # without the folder itself
            return Path(shutil.make_archive(str(tmp_path / "whole"), "zip", folder))
        if ending:
            (zip_folder if ending == ".zip" else tar_folder)(folder, tmp_path / f"photos{ending}")
        return tmp_path / f"photos{ending}"

    opened = open_data(packed(table), group="patient", label="kind")
    assert opened.class_names == ("k0", "k1") and opened.labels.tolist() == [0, 1] * 4
    assert opened.manifest.groups.tolist() == [f"p{i // 2}" for i in range(8)]
    assert opened.manifest.facts["kind"].to_pylist() == ["k0", "k1"] * 4
    path = packed(table)
    for option in ("label", "group"):
        with pytest.raises(BadInput, match=rf"no column 'patint' for --{option} .*: patient, kind\)"):
            open_data(path, **{option: "patint"})
    path = packed(f"{table}{names[0]},p9,k9\n")
    with pytest.raises(BadInput, match=rf"^{path}.*metadata\.csv: '{names[0]}' stands there twice"):
        open_data(path)


def test_a_folder_that_may_be_a_split_or_a_class_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "vehicles"
    for seed, name in enumerate(("bus", "car", "train")):
        write_pictures(folder / name, pictures(3, seed=seed))
    with pytest.raises(BadInput, match=r"'train' beside 'bus' .*--split folder or --split none"):
        open_data(folder)
    classes, split = open_data(folder, split="none"), open_data(folder, split="folder")
    assert classes.class_names == ("bus", "car", "train") and len(classes.training_part()) == 9
    assert split.split_names == ("train",) and len(split.training_part()) == 3
    write_pictures(folder, PIXELS[:1])  # a file is no folder
    for name in ("bus", "car"):
        (folder / name).rename(tmp_path / name)
    assert open_data(folder).split_names == ("train",)
