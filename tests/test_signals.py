"""Signals: what is as it was alarms at its level and not more often; what was changed alarms, and by its own signal."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastness.core.errors import BadInput
from fastness.monitoring.kept import labels
from fastness.monitoring.kept.journal import Journal
from fastness.monitoring.kept.traffic import Traffic, joined
from fastness.monitoring.kept.windows import kept
from fastness.monitoring.monitor import Monitor
from fastness.monitoring.policy import Policy
from fastness.monitoring.signals import Asked, judged_by
from fastness.monitoring.sketch import FOLDER, Sketch
from fastness.monitoring.window import Window
from fastness.registry import Registry, incidents

D, N = 16, 400
EVERY = {
    "drift": {},
    "outliers": {},
    "abstained": {},
    "missing": {},
    "collapse": {},
    "estimate": {"drop": 0.05},
    "labels": {"drop": 0.05},
}
ABOUT = {"bundle": "0" * 64, "form": "float32", "items": N, "fingerprint": "f" * 64}


def items(seed: int, n: int = N, **changed: Any) -> Window:
    """Return items of three clusters as a head answers for them; of two random streams any two are alike.

    Args:
        seed: of the items.
        n: how many.
        **changed: ``shift`` of all vectors, ``flat`` how far most directions reach, ``unsure`` and ``novel`` share of
            them, ``gone`` share of missing cells.
    """
    lots = np.random.default_rng(seed)
    kind = lots.integers(3, size=n)
    vectors = 3 * np.eye(D)[kind] + lots.normal(size=(n, D))
    vectors[:, 0] += changed.get("shift", 0.0)
    vectors[:, 2:] *= changed.get("flat", 1.0)
    unsure = lots.random(n) < changed.get("unsure", 0.1)
    novel = lots.random(n) < changed.get("novel", 0.05)
    confidence = np.where(unsure, lots.uniform(0.3, 0.6, n), lots.uniform(0.8, 1.0, n))
    columns = {
        "label": np.array(["red", "sea", "sky"], object)[kind],
        "confidence": confidence,
        "novelty": lots.normal(size=n) + 6 * novel,
        "abstained": unsure.astype(float),
        "right": (lots.random(n) < confidence).astype(float),
        "width": np.where(lots.random(n) < changed.get("gone", 0.02), np.nan, lots.normal(size=n)),
    }
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Window(unit.astype(np.float32), columns, [f"{seed}-{i}" for i in range(n)], np.arange(n))


def sketch() -> Sketch:
    """Return a reference."""
    return Sketch(ABOUT, items(0), np.eye(D, dtype=np.float32)[:3], ("red", "sea", "sky"), np.full(3, 1 / 3))


def write(watch: Path, window: Window, version: str = "photos@1") -> None:
    """Write items down as a service does; it does not know what is right."""
    journal = Journal(watch, "photos", "production", window=60, seed=1)
    known = {name: values for name, values in window.columns.items() if name != "right"}
    journal.seen(window.vectors, version=version, ids=window.ids, columns=known)
    journal.close()


def asked(watch: Path, labelled: int | None = 0, least: int = 100) -> Asked:
    """Return what signals are asked about all that was written."""
    traffic = Traffic.of(kept(watch, "photos", "production"))
    return Asked(traffic, watch, "photos", "production", labelled, sketch, None, least, 0)


def said(watch: Path, labelled: int | None = 0, least: int = 100, **signals: Any) -> dict[str, Any]:
    """Return what signals say of what was written."""
    lines: list[str] = []
    found = judged_by(Policy.model_validate({"signals": signals or EVERY}), asked(watch, labelled, least), lines.append)
    assert lines == []
    return found


def test_what_is_as_it_was_does_not_alarm(tmp_path: Path) -> None:
    write(tmp_path, items(1))
    found = said(tmp_path)
    assert set(found) == set(EVERY) - {"labels"} and not any(signal["alarm"] for signal in found.values())
    assert all(isinstance(signal["said"], str) and "\n" not in signal["said"] for signal in found.values())


@pytest.mark.parametrize(
    ("changed", "alarms"),
    [
        ({"shift": 2.0}, {"drift"}),
        ({"novel": 0.5}, {"drift", "outliers"}),
        ({"unsure": 0.6}, {"drift", "abstained", "estimate"}),
        ({"gone": 0.5}, {"drift", "missing"}),
        ({"flat": 0.01}, {"drift", "collapse"}),
    ],
)
def test_what_was_changed_alarms_by_its_own_signal(tmp_path: Path, changed: dict[str, float], alarms: set[str]) -> None:
    write(tmp_path, items(1, **changed))
    assert {name for name, signal in said(tmp_path).items() if signal["alarm"]} == alarms


def test_a_change_within_a_slice_is_explained_within_it_whatever_else_is_usual(tmp_path: Path) -> None:
    """The reference has clusters red, sea and sky; what comes has only one of them, and in that a new cluster."""
    window = items(1)
    window.vectors[:] = np.where(np.arange(N)[:, None] % 5, window.vectors, -np.eye(D, dtype=np.float32)[3])
    red = window.select(window.columns["label"] == "red")
    write(tmp_path, Window(red.vectors, {"label": red.columns["label"]}, red.ids))
    found = said(tmp_path, drift={"tests": ["within"], "slices": ["label"]})["drift"]
    assert found["alarm"] and "label == 'red' (within" in found["said"]
    first, *others = found["detail"]["explanation"]["causes"]
    assert first["kind"] == "cluster new" and not any("label" in cause["what"] for cause in [first, *others])


def test_too_little_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, items(1, 50, shift=9.0))
    assert said(tmp_path) == {} and said(tmp_path, least=50)["drift"]["alarm"]


@pytest.mark.parametrize("right", [0.9, 0.4])
def test_labels_are_judged_when_they_come(tmp_path: Path, right: float) -> None:
    window = items(1)
    write(tmp_path, window)
    assert "labels" not in said(tmp_path)
    lots = np.random.default_rng(2)
    truth = np.where(lots.random(N) < right, window.columns["label"], "moon")
    lines = [f"{name},{label}" for name, label in zip(window.ids, truth, strict=True)]
    (tmp_path / "late.csv").write_text("\n".join(["id,label", *lines]))
    labels.add(tmp_path, "photos", "production", tmp_path / "late.csv")
    found = said(tmp_path)["labels"]
    assert found["alarm"] == (right < 0.5) and "labelled answers were right" in found["said"]
    assert found["detail"] == {"files": 1}
    assert "labels" not in said(tmp_path, labelled=1)  # nothing new has come since
    assert "labels" not in said(tmp_path, labelled=None)  # a window of later is asked
    assert said(tmp_path, labelled=5)["labels"] == found  # files were taken away since


def test_a_monitor_holds_answers_against_labels_once(tmp_path: Path, make: Callable[[str], Path]) -> None:
    """However many windows waited; and again when more labels have come."""
    window, watch = items(1), tmp_path / "watch"
    for _ in range(3):
        write(watch, window)
    policy = Policy.model_validate({"signals": {"labels": {"floor": 0.9}}, "least": 100})
    with Registry(tmp_path / "registry") as registry:
        registry.add(make("one"), "photos")
        judged: list[bool] = []
        for day in range(2):
            (tmp_path / "late.csv").write_text("\n".join(["id,label", *(f"{name},moon" for name in window.ids)]))
            labels.add(watch, "photos", "production", tmp_path / "late.csv")
            write(watch, window)
            found = Monitor(registry, "photos@production", watch, policy).look()
            judged += ["labels" in one.verdict for one in found]
            assert sum(judged) == day + 1


def test_answers_that_nobody_gave_are_not_what_was_usual(tmp_path: Path) -> None:
    """Of the items that the reference's head abstained from most were wrong; the others have become worse since."""
    window = items(1)
    known = sketch().window
    right = np.where(known.columns["abstained"] == 1, 0.0, 1.0)
    reference = replace(sketch(), window=replace(known, columns={**known.columns, "right": right}))
    write(tmp_path, window)
    lots = np.random.default_rng(2)
    truth = np.where(lots.random(N) < right.mean(), window.columns["label"], "moon")
    lines = [f"{name},{label}" for name, label in zip(window.ids, truth, strict=True)]
    (tmp_path / "late.csv").write_text("\n".join(["id,label", *lines]))
    labels.add(tmp_path, "photos", "production", tmp_path / "late.csv")
    policy = Policy.model_validate({"signals": {"labels": {"drop": 0}}})
    about = replace(asked(tmp_path), sketch=lambda: reference)
    assert right.mean() < 0.95 and judged_by(policy, about, print)["labels"]["alarm"]


def test_several_windows_are_judged_as_one(tmp_path: Path) -> None:
    parts = [items(seed, 100) for seed in (1, 2, 3)]
    whole = joined(parts)
    assert (whole.vectors == np.concatenate([part.vectors for part in parts])).all() and len(set(whole.ids)) == 300
    for name in parts[0].columns:
        expected = np.concatenate([part.columns[name] for part in parts])
        assert (whole.columns[name] == expected).sum() == len(expected) - np.isnan(whole.columns["width"]).sum() * (
            name == "width"
        )
    parts[1].columns["width"][0] = 1234567.0  # all its digits
    words = Window(parts[0].vectors, {"width": np.array(["wide"] * 100, object)})
    assert joined([parts[1], words]).columns["width"][0] == "1234567"
    bare = Window(parts[0].vectors, {"width": np.array(["wide"] * 100, object)})
    mixed = joined([parts[1], bare])
    assert mixed.columns["width"].dtype == object and (mixed.columns["label"][100:] == "").all()
    assert np.isnan(mixed.columns["confidence"][100:]).all() and mixed.ids[100:] == [""] * 100
    missing = np.isnan(parts[1].columns["width"])
    assert ((mixed.columns["width"][:100] == "") == missing).all()


def test_a_monitor_compares_with_the_version_s_own_reference(tmp_path: Path, make: Callable[[str], Path]) -> None:
    bundle = make("one")
    sketch().write(bundle / FOLDER)
    policy = Policy.model_validate({"signals": {"drift": {}}, "least": 100})
    lines: list[str] = []
    with Registry(tmp_path / "registry") as registry:
        registry.add(bundle, "photos")
        registry.add(make("two"), "photos")
        watch = tmp_path / "watch"
        write(watch, items(1))
        monitor = Monitor(registry, "photos@production", watch, policy, say=lines.append)
        (fine,) = monitor.look()
        assert not fine.verdict["drift"]["alarm"] and incidents.incidents(registry) == []
        write(watch, items(2, shift=2.0))
        write(watch, items(3, shift=2.0), "photos@2")
        found = {w.version: w for w in monitor.look()}
        assert found["photos@1"].verdict["drift"]["alarm"] and found["photos@2"].verdict == {}
        (one,) = incidents.incidents(registry)
        assert one.kind == "drift" and "embeddings" in one.title
        assert any("photos@2: has no reference" in line for line in lines)
        detail = incidents.timeline(registry, one.id)[0].detail
        assert detail is not None and detail["windows"] == found["photos@1"].windows
        assert detail["detail"]["findings"][0]["alarm"]
        explained = detail["detail"]["explanation"]
        assert explained["causes"] and explained["said"] in one.title and explained["nearest"] is None
        with registry.database.writing() as connection:
            incidents.closed(connection, one, "it is over", by="ann")
        write(watch, items(4, shift=2.0))
        monitor.look()
        again = incidents.timeline(registry, incidents.incidents(registry)[0].id)[0].detail
        nearest = (again or {})["detail"]["explanation"]["nearest"]
        assert nearest["id"] == str(one.id) and nearest["alike"] > 0.9


def test_a_damaged_file_is_said_and_hides_no_other_signal(tmp_path: Path) -> None:
    write(tmp_path, items(1, shift=2.0))
    (file,) = tmp_path.rglob("*.parquet")
    file.write_bytes(hashlib.sha256(b"damaged").digest())
    lines: list[str] = []
    journal = Journal(tmp_path, "photos", "production", window=60)
    for _ in range(N):
        journal.count("/v1/search", 500, 0.1, 1, version="photos@1")
    journal.close()
    found = judged_by(Policy.model_validate({"signals": {"drift": {}, "errors": {}}}), asked(tmp_path), lines.append)
    assert set(found) == {"errors"} and found["errors"]["alarm"]
    assert len(lines) == 1 and lines[0].startswith("drift: cannot be judged: ") and file.name in lines[0]


def test_judging_and_explaining_need_no_torch(tmp_path: Path) -> None:
    """It takes five times the memory that a monitor takes without."""
    write(tmp_path, items(1, shift=2.0, novel=0.5))
    program = f"""
import sys
from pathlib import Path
sys.path.append({str(Path(__file__).parent)!r})
import fastness.monitoring.monitor
from test_signals import said
assert "explanation" in said(Path({str(tmp_path)!r}))["drift"]["detail"]
print("torch" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_requests_are_judged_however_many_items_each_holds(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "photos", "production", window=60)
    journal.seen(items(1).vectors, version="photos@1")
    for number in range(48):
        journal.count("/v1/search", 500 if number < 12 else 200, 0.1, 10, version="photos@1")
    journal.close()
    found = judged_by(Policy.model_validate({"signals": {"errors": {}}}), asked(tmp_path), print)
    assert found["errors"]["alarm"]


def test_a_column_that_is_no_longer_sent_is_missing_and_hides_nothing(tmp_path: Path) -> None:
    window = items(1, shift=2.0)
    del window.columns["width"]
    write(tmp_path, window)
    drift = {"drift": {"slices": ["width < 0", "label"]}}
    found = said(tmp_path, **drift, missing={"columns": ["width"]})
    assert found["drift"]["alarm"] and "not judged: width < 0" in found["drift"]["said"]
    assert list(found["drift"]["detail"]["not judged"]) == ["width < 0"]
    assert found["missing"]["alarm"] and "missing width" in found["missing"]["said"]
    assert not said(tmp_path, missing={})["missing"]["alarm"]


def test_a_damaged_file_of_labels_silences_labels_alone(tmp_path: Path) -> None:
    write(tmp_path, items(1, shift=2.0))
    folder = tmp_path / "photos@production" / "labels"
    folder.mkdir()
    (folder / "9999999999999999-aa.parquet").write_bytes(b"PAR1 not")
    lines: list[str] = []
    found = judged_by(Policy.model_validate({"signals": EVERY}), asked(tmp_path), lines.append)
    assert found["drift"]["alarm"] and "labels" not in found
    assert len(lines) == 1 and "move it away" in lines[0] and lines[0].startswith("labels: cannot be judged")


def test_what_is_enough_of_the_items_is_enough_of_their_sample(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "watch", "photos", "production", window=60, most=300, seed=1)
    window = items(1, 900, shift=2.0)
    journal.seen(window.vectors, version="photos@1", ids=window.ids)
    journal.close()
    with Registry(tmp_path / "registry") as registry:
        policy = Policy.model_validate({"signals": {"drift": {}}, "least": 800})
        monitor = Monitor(registry, "photos@production", tmp_path / "watch", policy)
        monitor._references["photos@1"] = sketch()
        (found,) = monitor.look()
    assert found.items == 900 and found.verdict["drift"]["alarm"]


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        ({"drift": {"tests": ["men"]}}, "no test 'men'"),
        ({"drift": {"floors": {"men": 1}}}, "no test 'men'"),
        ({"drift": {"tests": []}}, "names none"),
        ({"drift": {"level": 1e-6}}, "0.0001"),
        ({"latency": {"seconds": 60}}, "50"),
    ],
)
def test_a_policy_that_could_do_nothing_is_refused(tmp_path: Path, signals: dict[str, Any], said: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps({"signals": signals}))
    with pytest.raises(BadInput, match=said):
        Policy.load(path)
