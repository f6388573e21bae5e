"""Evaluation: measurements with protocol and interval, evidence that is only added to, honest headlines."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import fastness as fs
from fastness.core.files import sha256_file
from fastness.data.cache import decoded
from fastness.evaluation import evidence as evidences
from fastness.evaluation.answer import statements
from fastness.evaluation.checks import CHECKS, few_label
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return fs.train("digits", out=folder, quiet=True, steps=20, width=4, size=16, batch_size=32)


@pytest.fixture(scope="module")
def report(run):
    part = fs.open_data("digits")
    rows = np.concatenate([np.flatnonzero(part.manifest.splits == s)[:300] for s in ("train", "test")])
    return fs.evaluate(run.bundle, part.select(rows))


def test_every_number_has_an_interval_around_it_and_a_protocol(report):
    assert report.evidence.measurements
    for m in report.evidence.measurements:
        assert m.low <= m.value <= m.high
        assert m.n > 0 and m.over in {"items", "draws", "seeds"} and len(m.protocol) > 20
        assert len(m.data) == 64


def test_the_curve_has_the_encoder_and_three_baselines(report):
    names = {m.name for m in report.evidence.measurements if m.name.startswith("few_label.5.")}
    assert {n.split(".")[2] for n in names} == {"encoder", "untrained", "raw", "from_scratch"}
    m = report.evidence.get("few_label.5.encoder.accuracy")
    assert m is not None and m.over == "draws" and m.n >= 5


def test_evidence_reads_back_and_its_files_have_the_hashes_it_states(report):
    again = evidences.read(report.evidence.folder)
    assert again.measurements == report.evidence.measurements
    for name, digest in again.about["files"].items():
        assert sha256_file(again.folder / name) == digest


def test_what_is_found_by_name_is_of_all_items(report):
    found, every = report.evidence.find("slices."), report.evidence.measurements
    assert {m.slice for m in found} == {"all"} and len({m.slice for m in every if m.name == "slices.accuracy"}) > 3
    assert [m for m in every if m.slice == "all"] == report.evidence.find("")
    assert report.evidence.get("slices.accuracy") == found[0] and report.evidence.get("slices.none") is None


def test_evidence_is_added_and_the_bundle_keeps_its_id(run, report):
    before = fs.load(run.bundle).id
    other = fs.evaluate(run.bundle, "digits", ["geometry"])
    assert other.evidence.folder != report.evidence.folder
    assert report.html.exists() and fs.load(run.bundle).id == before


def test_outcomes_of_items_agree_with_the_number(report):
    import pyarrow.parquet as pq

    items = pq.read_table(report.evidence.folder / "knn.parquet")
    assert np.mean(items["accuracy"].to_numpy()) == pytest.approx(report["knn.accuracy"])
    assert len(items) == report.evidence.get("knn.accuracy").n


def test_training_items_among_the_held_out_are_counted(run):
    train = fs.open_data("digits").split("train")
    report = fs.evaluate(run.bundle, train, ["geometry"])
    assert (
        report.evidence.about["trained_on"]["held_out_items_seen_in_training"] == report.evidence.about["items"]["test"]
    )


WITHOUT_LABELS = {"geometry", "stability", "clustering"}


def test_without_labels_only_what_needs_none_is_measured(run):
    pixels = np.random.default_rng(0).integers(0, 256, (240, 8, 8), dtype=np.uint8)
    report = fs.evaluate(run.bundle, pixels)
    assert {m.name.split(".")[0] for m in report.evidence.measurements} == WITHOUT_LABELS
    assert set(report.evidence.about["skipped"]) == set(CHECKS) - WITHOUT_LABELS
    assert "--checks all" in report.evidence.about["skipped"]["corruption"]
    with pytest.raises(fs.BadInput, match="label"):
        fs.evaluate(run.bundle, pixels, ["knn"])


def test_the_page_is_whole_in_itself(report):
    page = report.html.read_text()
    for m in report.evidence.measurements:
        assert m.name in page and m.protocol.split(",")[0] in page
    for outside in ('src="http', 'href="http', "<script", "@import"):
        assert outside not in page


def test_the_first_screen_shows_what_each_check_calls_its_headline(report):
    first = re.findall(r'class="tile".*?</b>(.*?)<br>', report.html.read_text())
    measured = {m.name for m in report.evidence.measurements}
    assert first[:2] == ["knn.accuracy", "linear.accuracy"] and set(first) < measured
    assert "calibration.scaled.ece" in first and "calibration.raw.ece" in measured - set(first)
    patterns = [(name, pattern) for name in CHECKS for pattern in CHECKS.get(name).headline]
    assert all(pattern.startswith(f"{name}.") for name, pattern in patterns)


def test_the_parts_never_share_an_item_and_splits_are_respected(run):
    bundle = fs.load(run.bundle)
    found = Subject.of(bundle, fs.open_data("digits"), 0)
    assert set(found.test.dataset.manifest.splits) == {"test"}
    assert not set(found.fit.dataset.rows) & set(found.test.dataset.rows)
    cut = Subject.of(bundle, fs.open_data("digits").split("train"), 0)
    assert not set(cut.fit.dataset.rows) & set(cut.test.dataset.rows)
    assert len(cut.fit) + len(cut.test) == len(fs.open_data("digits").split("train"))


def test_draws_are_nested_balanced_and_repeatable(run):
    subject = Subject.of(fs.load(run.bundle), fs.open_data("digits"), 0)
    draws = dict(few_label._draws(subject, 1))
    assert all(np.array_equal(draws[k], dict(few_label._draws(subject, 1))[k]) for k in draws)
    assert set(draws[1]) <= set(draws[5]) <= set(draws[10])
    for per_class, rows in draws.items():
        assert set(np.bincount(subject.fit_labels[rows])) == {per_class}


@pytest.mark.parametrize(
    ("ours", "best", "said"),
    [((0.9, 0.88, 0.92), (0.8, 0.78, 0.82), "It helps"), ((0.8, 0.7, 0.9), (0.8, 0.75, 0.85), "overlap"),
     ((0.5, 0.48, 0.52), (0.8, 0.78, 0.82), "does not help")],
)  # fmt: skip
def test_the_first_screen_says_what_the_intervals_say(ours, best, said, tmp_path):
    def measured(name, value, low, high):
        return Measurement(f"few_label.5.{name}.accuracy", value, low, high, "draws", 5, "share", "p", "d")

    found = [measured("encoder", *ours), measured("raw", *best)]
    found += [measured(name, 0.1, 0.09, 0.11) for name in ("untrained", "from_scratch")]
    about = {"trained_on": {"held_out_items_seen_in_training": 0}}
    assert said in statements(evidences.Evidence(tmp_path, about, found))[0].text


def test_measurements_survive_json():
    m = Measurement("a.b", 0.5, float("-inf"), float("inf"), "draws", 1, "share", "how", "0" * 64)
    assert Measurement.from_dict(json.loads(json.dumps(m.to_dict()))) == m


def test_a_collapsed_encoder_is_not_flattered(run):
    """All embeddings equal: kNN is at chance, and the shape says collapse."""
    bundle = fs.load(run.bundle)
    for parameter in bundle.encoder.parameters():
        parameter.data.zero_()
    images = decoded(fs.open_data("digits"), bundle.encoder.spec.size)
    assert np.ptp(bundle.embed_items(images, normalize=False)) == 0
    subject = Subject.of(bundle, fs.open_data("digits"), 0)
    accuracy = CHECKS.get("knn")().run(subject).measurements[0].value
    assert accuracy < 0.2
    shape = {m.name: m.value for m in CHECKS.get("geometry")().run(subject).measurements}
    assert shape["geometry.effective_rank"] == 1.0 and shape["geometry.uniformity"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("difference", "ratio", "chance", "said"),
    [
        (0.6, None, 0.003, "never errs in one group of sex and on 60% of another"),
        (0.2, (3.0, 2.0, 4.0), 0.003, "errs 3.0 times as often in one group of sex"),
        (0.01, (1.1, 1.0, 1.2), 0.5, "about as often in all groups of at least 50 items of sex"),
        (0.1, (1.6, 1.0, 3.0), 0.5, "these items do not tell"),
    ],
)
def test_what_is_said_of_groups(difference, ratio, chance, said, tmp_path):
    """The worst disparity, where one group is never wrong and there is no ratio, is said as any other."""
    figures = {"difference": (difference, 0.0, 1.0), **({} if ratio is None else {"ratio": ratio})}
    found = [
        Measurement(f"groups.sex.error.{name}", *values, "items", 200, "score", "p", "d", chance=chance)
        for name, values in figures.items()
    ]
    about = {"trained_on": {"held_out_items_seen_in_training": 0}}
    (only,) = statements(evidences.Evidence(tmp_path, about, found))
    assert said in only.text


def test_fine_tuning_takes_ten_epochs(run):
    part = fs.open_data("digits")
    rows = np.concatenate([np.flatnonzero(part.manifest.splits == s)[:n] for s, n in (("train", 200), ("test", 40))])
    subject = Subject.of(fs.load(run.bundle), part.select(rows), 0)
    (found,) = CHECKS.get("fine_tuned")().run(subject).measurements
    assert "15 steps of 128 on all labels" in found.protocol
    assert found.n == 40 and found.low <= found.value <= found.high
