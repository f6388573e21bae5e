"""The checks: numbers agree with their items' outcomes, with what is known, and with each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import hypergeom

import fastness as fs
from fastness.corruptions import SEVERITIES, WORLDS, Scene
from fastness.corruptions.image import COMMON, CORRUPTIONS
from fastness.data.sources.arrays import from_pixels
from fastness.evaluation.checks import CHECKS
from fastness.evaluation.checks.groups import _apart, _by_chance
from fastness.evaluation.probe import Probe
from fastness.evaluation.subject import Subject
from fastness.metrics.calibration import softmax
from fastness.metrics.probe import fit_linear


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run = fs.train("digits", out=folder, quiet=True, steps=30, width=4, size=16, batch_size=32)
    return fs.load(run.bundle)


def digits() -> fs.Dataset:
    """A part of each split."""
    part = fs.open_data("digits")
    rows = np.concatenate([np.flatnonzero(part.manifest.splits == s)[:n] for s, n in (("train", 300), ("test", 150))])
    return part.select(rows)


@pytest.fixture(scope="module")
def subject(bundle):
    return Subject.of(bundle, digits(), 0)


def noise(count: int = 60) -> fs.Dataset:
    """Pictures of nothing."""
    return fs.open_data(np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8))


def values(found) -> dict[str, float]:
    """Values by name; every one lies in its interval."""
    assert all(m.low <= m.value <= m.high and np.isfinite(m.value) for m in found.measurements)
    return {m.name: m.value for m in found.measurements}


def run(name: str, subject: Subject):
    """Run a check that the subject allows."""
    check = CHECKS.get(name)()
    assert check.missing(subject) is None
    return check.run(subject)


@pytest.mark.parametrize("name", ["neighbours", "clustering", "calibration", "selective"])
def test_the_same_twice(name, subject):
    """One seed, one answer."""
    assert values(run(name, subject)) == values(run(name, subject))


def test_neighbours_agree_with_knn_of_one(subject):
    """Precision at 1 is the share whose nearest item has its class."""
    z, bank = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (subject.test_vectors, subject.fit_vectors))
    nearest = subject.fit_labels[(z @ bank.T).argmax(1)]
    found = values(run("neighbours", subject))
    assert found["neighbours.precision@1"] == pytest.approx((nearest == subject.test_labels).mean(), abs=0.01)
    assert found["neighbours.precision@1"] <= found["neighbours.mrr"]


def test_calibration_means_are_those_of_its_items(subject):
    """Scaling changes confidences, never answers; the error is within what the outcomes say."""
    found = run("calibration", subject)
    right, confidence = found.items["right"], found.items["scaled_confidence"]
    assert values(found)["calibration.scaled.ece"] >= abs(confidence.mean() - right.mean()) - 1e-9
    assert np.array_equal(right, run("selective", subject).items["wrong"] == 0)


def test_selective_ends_at_the_error(subject):
    """More risk allowed, more can be answered."""
    found = values(run("selective", subject))
    assert found["selective.coverage@1%"] <= found["selective.coverage@5%"] <= found["selective.coverage@10%"]


def test_clusters_of_well_separated_classes(subject):
    """Embeddings that are their classes are found again; those that are one point have no shape."""

    class Classes(Subject):
        @property
        def test_vectors(self):
            spread = np.random.default_rng(0).normal(0, 0.01, (len(self.test), 10))
            return (np.eye(10)[self.test_labels] + spread).astype(np.float32)

    ideal = Classes(**{name: getattr(subject, name) for name in subject.__dataclass_fields__})
    found = values(run("clustering", ideal))
    assert found["clustering.kmeans.ari"] == pytest.approx(1)
    assert found["clustering.kmeans.dunn"] > 5
    assert found["clustering.kmeans.davies_bouldin"] < 0.1


def test_noise_is_noticed_and_the_same_kind_is_not(bundle, subject):
    """Far items have a high AUROC; more of the same about a half."""
    more = fs.open_data("digits").split("train").select(np.arange(600, 800))
    found = values(run("ood", subject.with_sets({"noise": noise(), "same": more}, {})))
    assert found["ood.noise.ssd.auroc"] > 0.95
    assert found["ood.noise.ssd.fpr95"] < 0.2
    assert 0.35 < found["ood.same.knn.auroc"] < 0.65


def test_ood_by_name_and_without_labels(bundle):
    """Without labels the scores that need none remain; without a set from outside the check says what it wants."""
    pixels = np.random.default_rng(1).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    report = fs.evaluate(bundle, pixels, ["ood"], ood=[pixels[:20] // 2])
    assert {m.name.split(".")[2] for m in report.evidence.measurements} == {"knn", "ssd"}
    with pytest.raises(fs.BadInput, match="--ood"):
        fs.evaluate(bundle, pixels, ["ood"])


def test_corruption_means_are_those_of_its_items(bundle, tmp_path):
    """Every figure is the mean over the columns it names; the worst is the worst of the common ones."""
    report = fs.evaluate(bundle, digits(), ["corruption"], out=tmp_path)
    items = pq.read_table(tmp_path / "corruption.parquet").to_pydict()
    found = {m.name: m.value for m in report.evidence.measurements}
    assert found["corruption.clean.accuracy"] == pytest.approx(np.mean(items["clean.accuracy"]))
    assert found["corruption.fog.3.accuracy"] == pytest.approx(np.mean(items["fog.3.accuracy"]))
    mean = np.mean([items[f"{name}.{s}.accuracy"] for name in COMMON for s in SEVERITIES])
    assert found["corruption.mean.accuracy"] == pytest.approx(mean)
    each = {name: found[f"corruption.{name}.mean.accuracy"] for name in COMMON}
    worst = min(each, key=lambda name: each[name])
    assert found["corruption.worst.accuracy"] == pytest.approx(each[worst])
    assert report.evidence.get("corruption.worst.accuracy").protocol.startswith(f"{worst};")
    for name, value in found.items():
        assert np.mean(items[name.removeprefix("corruption.")]) == pytest.approx(value)
    assert len([name for name in found if name.endswith(".3.accuracy")]) == len(list(CORRUPTIONS))


def stream(world, items, name: str, known) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Corrupt items at severity 3."""
    prepare = fs.open_data  # pictures and tables need none
    return world.corrupted(Scene(items, known, prepare, torch.device("cpu")), name, 3, 0)


def test_corrupted_pictures_do_not_depend_on_what_came_before(subject):
    """The same arguments, the same bytes; every item once."""
    world = WORLDS.get("image")
    once = list(stream(world, subject.test, "glass_blur", subject.fit))
    list(stream(world, subject.test, "fog", subject.fit))
    again = list(stream(world, subject.test, "glass_blur", subject.fit))
    assert np.array_equal(np.sort(np.concatenate([p for p, _ in once])), np.arange(len(subject.test)))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(once, again, strict=True))
    with pytest.raises(fs.BadInput, match="unknown corruption"):
        list(stream(world, subject.test, "rain", subject.fit))


_SENTENCES = ("the cat sat", "a dog ran home", "rain fell on the roof", "what is the time", "she can't see it")
WORDS = [f"{sentence} on day {day}" for day in range(40) for sentence in _SENTENCES]


def test_corruption_of_texts(tmp_path):
    """Without labels it is the cosine to the clean embedding; case is nothing to a tokenizer that drops it."""
    run = fs.train(
        {"text": WORDS}, encoder="static", steps=5, out=tmp_path / "run", quiet=True, columns={"text": "text"}
    )
    report = fs.evaluate(run.bundle, {"text": WORDS}, ["corruption"], text="text", out=tmp_path / "evidence")
    found = {m.name: m.value for m in report.evidence.measurements}
    assert found["corruption.case.5.cosine"] == pytest.approx(1, abs=1e-5)
    assert found["corruption.clean.cosine"] == pytest.approx(1, abs=1e-5)
    assert found["corruption.typos.5.cosine"] < found["corruption.typos.1.cosine"] < 1


def test_corruption_of_tables(tmp_path):
    """Accuracy falls as more cells are missing."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=400), rng.normal(size=400)
    table = {"a": a.round(3), "b": b.round(3), "kind": np.where(a + b > 0, "warm", "cold")}
    run = fs.train(table, steps=20, out=tmp_path / "run", quiet=True, columns={"label": "kind"}, width=32)
    report = fs.evaluate(run.bundle, table, ["corruption"], label="kind", out=tmp_path / "evidence")
    found = {m.name: m.value for m in report.evidence.measurements}
    assert found["corruption.clean.accuracy"] > 0.8
    assert found["corruption.missing.5.accuracy"] < found["corruption.missing.1.accuracy"] + 0.02
    assert found["corruption.missing.5.accuracy"] < found["corruption.clean.accuracy"] - 0.1


def test_the_probe():
    """Two classes have two logits; a class that was not fitted is never the answer; temperature stays positive."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    two = Probe.fitted(x, y, 2, 0)
    assert two.logits(x).shape == (200, 2)
    assert (two.logits(x).argmax(1) == y).mean() > 0.95
    three = Probe.fitted(x, y * 2, 3, 0)
    assert set(three.logits(x).argmax(1)) == {0, 2}
    assert 0.01 <= three.temperature <= 100
    few = Probe.fitted(x[:4], np.array([0, 0, 1, 2]), 3, 0)
    assert few.temperature == 1.0


def test_a_calibrated_figure_says_how_its_temperature_was_found(subject):
    """The plain one says that there was none."""
    for m in run("calibration", subject).measurements:
        scaled = m.name.startswith("calibration.scaled.")
        assert ("no scaling" not in m.protocol) == scaled
        assert (f"temperature {subject.probe.temperature:.2f}, chosen on the other fifth" in m.protocol) == scaled


def test_what_has_too_few_items_is_not_measured(subject):
    one, two = (replace(subject, test=subject.test.select(np.arange(n))) for n in (1, 2))
    check = CHECKS.get("stability")()
    assert check.missing(one) == "needs more items" and check.missing(two) is None
    assert check.missing(replace(subject, fit=subject.fit.select(np.arange(1)))) == "needs more items"


def test_stability_of_one_point_and_of_points_apart(subject):
    """Both figures are shares; an encoder that gives one point tells nothing apart, ties counting against it."""
    found = values(run("stability", subject))
    assert 0 < found["stability.neighbours"] <= 1
    assert 0 < found["stability.partner"] <= 1
    bundle = fs.load(subject.bundle.path)
    real = bundle.encoder.of_views
    bundle.encoder.of_views = lambda views: torch.ones_like(real(views))
    point = replace(subject, bundle=bundle)
    found = values(run("stability", point))
    assert found == {"stability.neighbours": 1.0, "stability.partner": 0.0}


def test_fine_tuning_leaves_the_encoder_as_it_was(subject):
    """It learns from the labels, and embeddings are the same afterwards."""
    before = subject.bundle.embed_items(subject.test)
    assert values(run("fine_tuned", subject))["fine_tuned.accuracy"] > 0.3
    assert np.array_equal(before, subject.bundle.embed_items(subject.test))


def test_gap_between_fitted_and_held_out(subject):
    """The gap is what the probe loses on items that it was not fitted on."""
    found = values(run("linear", subject))
    model = fit_linear(subject.fit_vectors, subject.fit_labels)
    fitted = (model.predict(subject.fit_vectors) == subject.fit_labels).mean()
    assert found["linear.gap"] == pytest.approx(fitted - found["linear.accuracy"])


def test_votes(bundle, subject, tmp_path):
    """Votes that are the probabilities leave no distance; those that are the labels leave calibration's nll."""
    p = softmax(subject.test_logits, subject.probe.temperature)
    same = values(run("votes", replace(subject, votes=p)))
    assert same["votes.distance"] == pytest.approx(0, abs=1e-9)
    assert same["votes.doubt_correlation"] == pytest.approx(1)
    counts = (50 * np.eye(10)[subject.test_labels]).astype(np.uint8)
    np.savez(tmp_path / "votes.npz", counts=counts)
    report = fs.evaluate(bundle, digits(), ["votes", "calibration"], votes=tmp_path / "votes.npz")
    assert report["votes.cross_entropy"] == pytest.approx(report["calibration.scaled.nll"])
    assert report["votes.people.accuracy"] == 1
    np.savez(tmp_path / "votes.npz", counts=np.random.default_rng(0).permutation(counts))
    with pytest.raises(fs.BadInput, match=r"votes.npz: .* put them in the items' order"):
        fs.evaluate(bundle, digits(), ["votes"], votes=tmp_path / "votes.npz")
    np.savez(tmp_path / "votes.npz", counts=np.zeros_like(counts))
    with pytest.raises(fs.BadInput, match=r"votes.npz: row 0 has no vote"):
        fs.evaluate(bundle, digits(), ["votes"], votes=tmp_path / "votes.npz")


def answered(folder, n: int = 240, **facts) -> Subject:
    """Return another model's probabilities of three classes, right more often where they are surer."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    logits = rng.normal(size=(n, 3)) + rng.gamma(1.5, 1.5, (n, 1)) * np.eye(3)[labels]
    data = from_pixels(rng.integers(0, 256, (n, 4, 4), dtype=np.uint8), labels).described(**facts)
    np.savez(folder / "said.npz", probabilities=softmax(logits))
    return Subject.elsewhere(folder / "said.npz", data, 0)


def fitted(folder, n: int = 240) -> Subject:
    """Return vectors that tell three classes a little, so that a probe of them has a temperature."""
    rng = np.random.default_rng(1)
    labels = np.arange(2 * n) % 3
    splits = np.repeat(["train", "test"], n)
    data = from_pixels(rng.integers(0, 256, (2 * n, 4, 4), dtype=np.uint8), labels, splits=splits)
    np.save(folder / "vectors.npy", np.eye(12)[labels] + 0.7 * rng.normal(size=(2 * n, 12)))
    return Subject.elsewhere(folder / "vectors.npy", data, 0)


def probabilities(subject: Subject, temperature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities of the classes, how sure the answer is, and whether it is right."""
    p = np.exp(subject.test_logits / temperature)
    p /= p.sum(1, keepdims=True)
    return p, p.max(1), p.argmax(1) == subject.test_labels


def distance(confidence: np.ndarray, right: np.ndarray, bins: list[np.ndarray]) -> float:
    """Return the expected calibration error of such bins."""
    return sum(abs(confidence[b].mean() - right[b].mean()) * b.sum() for b in bins if b.any()) / len(right)


@pytest.mark.parametrize("made", [answered, fitted])
def test_calibration_is_that_of_a_loop(made, tmp_path):
    """Fifteen bins of equal width and of equal mass; scaled by the temperature or not at all."""
    subject = made(tmp_path)
    found = run("calibration", subject)
    got, n = values(found), len(subject.test)
    assert (subject.probe.temperature == 1) is (made is answered) and len(got) == 8
    for way, temperature in (("raw", 1.0), ("scaled", subject.probe.temperature)):
        p, confidence, right = probabilities(subject, temperature)
        width = [(confidence > i / 15) & (confidence <= (i + 1) / 15) for i in range(15)]
        mass = [np.isin(np.arange(n), part) for part in np.array_split(np.argsort(confidence), 15)]
        assert got[f"calibration.{way}.ece"] == pytest.approx(distance(confidence, right, width))
        assert got[f"calibration.{way}.ece_mass"] == pytest.approx(distance(confidence, right, mass))
        brier = ((p - np.eye(3)[subject.test_labels]) ** 2).sum(1)
        nll = -np.log(p[np.arange(n), subject.test_labels])
        assert got[f"calibration.{way}.brier"] == pytest.approx(brier.mean())
        assert got[f"calibration.{way}.nll"] == pytest.approx(nll.mean())
        for column, each in (("_confidence", confidence), (".brier", brier), (".nll", nll)):
            assert found.items[f"{way}{column}"] == pytest.approx(each)
    assert np.array_equal(found.items["right"], right) and 0.5 < right.mean() < 0.95
    units = {"ece": "share", "ece_mass": "share", "brier": "score", "nll": "nats"}
    for m in found.measurements:
        kind = m.name.split(".")[2]
        assert (m.n, m.better, m.unit) == (n, "lower", units[kind])
        assert ("15 bins of equal width" in m.protocol) is (kind == "ece")
        assert ("15 bins of equal mass" in m.protocol) is (kind == "ece_mass")
        scaled = m.name.startswith("calibration.scaled.")
        assert ("; no scaling; " in m.protocol) is not scaled
        theirs = "temperature 1.00, as nothing is fitted to another model's answers"
        assert (theirs in m.protocol) is (scaled and made is answered)
        assert ("chosen on the other fifth" in m.protocol) is (scaled and made is fitted)


@pytest.mark.parametrize("made", [answered, fitted])
def test_selection_is_that_of_a_loop(made, tmp_path):
    """The surest first: the mean risk of all shares that may be answered, and the largest share within each risk."""
    subject = made(tmp_path)
    found = run("selective", subject)
    _, confidence, right = probabilities(subject, subject.probe.temperature)
    wrong = ~right[np.argsort(-confidence)]
    risks = [wrong[:k].mean() for k in range(1, len(wrong) + 1)]
    got = values(found)
    assert list(got) == [f"selective.{kind}" for kind in ("aurc", "coverage@1%", "coverage@5%", "coverage@10%")]
    assert got["selective.aurc"] == pytest.approx(np.mean(risks))
    for share in (0.01, 0.05, 0.1):
        most = max((k for k, risk in enumerate(risks, 1) if risk <= share), default=0)
        assert got[f"selective.coverage@{share:.0%}"] == pytest.approx(most / len(wrong))
    assert got["selective.coverage@5%"] < got["selective.coverage@10%"]
    assert np.array_equal(found.items["wrong"], ~right) and found.items["confidence"] == pytest.approx(confidence)
    for m in found.measurements:
        area = m.name == "selective.aurc"
        assert (m.n, m.better) == (240, "lower" if area else "higher")
        assert m.protocol.startswith("mean error over all coverages" if area else "share answered at that share")


def grouped(folder, *names: str) -> Subject:
    """Return answers on groups of 49, 50, 51 and 90 items, and of another column without a meaning."""
    size = np.repeat(["s", "t", "u", "v"], [49, 50, 51, 90])
    subject = answered(folder, size=size, lot=np.where(np.arange(240) % 2, "odd", "even"), few=["x"] * 239 + ["y"])
    return replace(subject, sensitive=names)


def test_groups_are_those_of_a_loop(tmp_path):
    """Of fifty items at least; largest less smallest, and over smallest, of errors and of calibration errors."""
    subject = grouped(tmp_path, "size", "few")
    found = run("groups", subject)
    _, confidence, right = probabilities(subject, 1)
    rows = {"t": np.arange(49, 99), "u": np.arange(99, 150), "v": np.arange(150, 240)}
    got = {(m.name, m.slice): m for m in found.measurements}
    for kind in ("error", "ece"):
        rates = {}
        for group, mine in rows.items():
            c, r = confidence[mine], right[mine]
            bins = [(c > i / 15) & (c <= (i + 1) / 15) for i in range(15)]
            rates[group] = 1 - r.mean() if kind == "error" else distance(c, r, bins)
            m = got.pop((f"groups.{kind}", f"size == '{group}'"))
            assert (m.n, m.better, m.chance, m.unit) == (len(mine), "lower", None, "share")
            assert m.value == pytest.approx(rates[group]) and m.low < m.value < m.high
            if kind == "error":
                half = 1.96 * (rates[group] * (1 - rates[group]) / len(mine)) ** 0.5
                assert m.high - m.low == pytest.approx(2 * half, rel=0.25)
        assert got.pop((f"groups.{kind}", "few == 'x'")).n == 239
        most, least = max(rates.values()), min(rates.values())
        for figure, value in (("difference", most - least), ("ratio", most / least)):
            m = got.pop((f"groups.size.{kind}.{figure}", "all"))
            assert m.value == pytest.approx(value)
            assert (m.n, m.better, m.unit) == (191, "lower", "score")
            assert m.protocol.startswith("largest and smallest of 3 groups of at least 50 items; ")
    assert not got
    assert np.array_equal(found.items["error"], ~right) and found.items["confidence"] == pytest.approx(confidence)


def test_chances_of_groups_are_corrected_for_the_columns_alone(tmp_path):
    """Holm's correction over columns, errors and calibration errors each for themselves; one figure's two agree."""
    alone = {}
    for name in ("size", "lot"):
        found = run("groups", grouped(tmp_path, name)).measurements
        alone |= {m.name: m.chance for m in found if m.chance is not None}
    both = {m.name: m.chance for m in run("groups", grouped(tmp_path, "size", "lot")).measurements if m.chance}
    assert set(both) == set(alone) and len(both) == 8
    for kind in ("error", "ece"):
        mine = [alone[f"groups.{name}.{kind}.difference"] for name in ("size", "lot")]
        least, most = sorted(mine)
        for name, p in zip(("size", "lot"), mine, strict=True):
            expected = min(1, 2 * least) if p == least else max(min(1, 2 * least), most)
            for figure in ("difference", "ratio"):
                assert both[f"groups.{name}.{kind}.{figure}"] == pytest.approx(expected)


def test_groups_of_answers_without_probabilities_and_without_errors(tmp_path):
    """No calibration error; a ratio to a group that is never wrong is left out; such groups are as apart as can be."""
    names = np.repeat(["a", "b"], 60)
    labels = np.arange(120) % 2
    data = from_pixels(np.repeat(np.arange(120, dtype=np.uint8), 16).reshape(120, 4, 4), labels).described(g=names)
    np.savez(tmp_path / "said.npz", predicted=np.where(names == "a", labels, 1 - labels).astype(np.str_))
    subject = replace(Subject.elsewhere(tmp_path / "said.npz", data, 0), sensitive=("g",))
    found = {m.name: m for m in run("groups", subject).measurements if m.slice == "all"}
    assert list(found) == ["groups.g.error.difference"]
    assert found["groups.g.error.difference"].value == 1
    assert found["groups.g.error.difference"].chance == pytest.approx(1 / 301)  # of 300 permutations none as far
    assert found["groups.g.error.difference"].n == 120


def test_how_far_groups_lie_apart_by_chance():
    """As the hypergeometric distribution has it for two groups; certain where nothing is apart."""
    wrong = np.arange(60) % 3 == 0
    members = [np.flatnonzero(np.arange(60) < 30), np.flatnonzero(np.arange(60) >= 30)]

    def rate(rows):
        return float(wrong[rows].mean())

    assert _apart(rate, members) == {"difference": 0, "ratio": 1}
    assert _by_chance(rate, members, 0.0, np.random.default_rng(0)) == 1
    exact = 2 * hypergeom.cdf(7, 60, 20, 30)  # 7 and 13 of 20, or further apart
    assert _by_chance(rate, members, 6 / 30 - 1e-9, np.random.default_rng(0)) == pytest.approx(exact, abs=0.06)
    three = [np.array([0, 1, 2, 3]), np.array([0, 3]), np.array([0, 1, 2])]
    assert _apart(rate, three) == pytest.approx({"difference": 1 - 1 / 3, "ratio": 3})
    never = _apart(rate, [np.array([1, 2]), np.array([0, 1])])
    assert never["difference"] == 0.5 and np.isnan(never["ratio"])
