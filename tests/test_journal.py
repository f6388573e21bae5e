"""What is kept of traffic: every item with the same chance, every count exact, and whatever is killed loses seconds."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from conftest import Ended, fork
from fastness.core.errors import BadInput, Failure
from fastness.monitoring.kept import foreign, journal, labels, stored
from fastness.monitoring.kept.journal import Journal, nearest
from fastness.monitoring.kept.payloads import Payloads, expire, payload
from fastness.monitoring.kept.reservoir import Reservoir
from fastness.monitoring.kept.windows import SECONDS, Kept, kept, quantile
from fastness.monitoring.window import Window

SECOND = 1_000_000
BEGAN = 1_700_000_100 * SECOND  # a multiple of the windows' lengths
NAME = ("photos", "production")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, at: int = BEGAN) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at


def vectors(n: int, seed: int = 0, dim: int = 6) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def opened(folder: Path, **options: Any) -> tuple[Journal, Clock]:
    clock = Clock()
    return Journal(folder, *NAME, **{"seed": 0, "clock": clock, "window": 10.0, **options}), clock


# -- the sample -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.lists(st.integers(0, 50), max_size=30), st.integers(0, 9))
def test_what_is_taken_does_not_depend_on_how_items_come(most: int, parts: list[int], seed: int) -> None:
    one, many, slots = Reservoir(most, seed), Reservoir(most, seed), [-1] * most
    start, found = 0, []
    for n in parts:
        taken = many.taken(n)
        assert [position for position, _ in taken] == sorted({position for position, _ in taken})
        found += [(start + position, place) for position, place in taken]
        start += n
    assert found == one.taken(start) and many.passed == start
    for position, place in found:
        slots[place] = position
    held = [position for position in slots if position >= 0]
    assert len(set(held)) == len(held) == min(most, start) and set(range(min(most, start))) <= {p for p, _ in found}


def test_every_item_is_kept_with_the_same_chance() -> None:
    N, most, times = 60, 7, Counter[int]()
    for seed in range(3000):
        slots = [-1] * most
        for position, place in Reservoir(most, seed).taken(N):
            slots[place] = position
        times.update(slots)
    assert chisquare([times[i] for i in range(N)]).pvalue > 1e-4


# -- windows --------------------------------------------------------------------------------------------------------

SAID = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())


@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=9), SAID, max_size=4), min_size=1, max_size=8))
def test_what_fits_is_kept_as_it_came(tmp_path_factory: pytest.TempPathFactory, metadata: list[dict[str, Any]]) -> None:
    folder, N = tmp_path_factory.mktemp("fits"), len(metadata)
    writer, _ = opened(folder)
    ids, confidence = [f"é{i}" for i in range(N)], np.linspace(0, 1, N)
    given_vectors = vectors(N)
    told: list[list[int]] = []

    def facts(places: Any) -> dict[str, list[float]]:
        told.append(list(places))
        return {"brightness": [float(place) for place in places]}

    writer.seen(
        given_vectors, version="photos@1", route="/v1/x", ids=ids, metadata=metadata,
        columns={"confidence": confidence, "label": ["ä"] * N}, facts=facts,
    )  # fmt: skip
    writer.close()
    (found,) = kept(folder, *NAME)
    window = found.window
    assert window.ids == ids and window.at.tolist() == [BEGAN] * N and found.whole and told == [list(range(N))]
    np.testing.assert_allclose(window.vectors, given_vectors, atol=1e-3)
    np.testing.assert_array_equal(window.columns["confidence"], confidence)
    assert window.columns["brightness"].tolist() == list(range(N)) and set(window.columns["route"]) == {"/v1/x"}
    for name in {key for said in metadata for key, value in said.items() if value is not None} - {
        "confidence",
        "label",
    }:
        if name in ("brightness", "route"):
            continue
        for said, value in zip(metadata, window.columns[name], strict=True):
            wanted = said.get(name)
            if window.columns[name].dtype.kind == "f":
                assert np.isnan(value) if wanted is None else value == float(wanted)
            else:
                assert value == ("" if wanted is None else str(wanted))


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 8 * SECOND), st.booleans(), st.booleans(), st.booleans()),
        max_size=12,
    )
)
def test_no_item_is_lost_or_counted_twice_wherever_windows_end(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool, bool, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("lost")
    writer, clock = opened(folder, cut=25, most=1000)
    said: list[tuple[str, int, str]] = []
    for number, (n, wait, other, flush, early) in enumerate(steps):
        version = "photos@2" if other else "photos@1"
        ids = [f"{number}-{i}" for i in range(n)]
        writer.seen(vectors(n, number), version=version, ids=ids)
        writer.count("/v1/x", 200, 0.01, n, version=version)
        said += [(name, clock.at, version) for name in ids]
        clock.at += wait
        if early:
            writer.end_early(version)
        if flush:
            writer.flush()
            before = {found.id: (found.end, found.window.ids) for found in kept(folder, *NAME)}
    writer.close()
    windows = kept(folder, *NAME)
    found = [(name, int(at), w.version) for w in windows for name, at in zip(w.window.ids, w.window.at, strict=True)]
    assert sorted(found) == sorted(said)
    assert sum(w.counts["items"] for w in windows) == sum(w.counts["asked"] for w in windows) == len(said)
    assert [w.end for w in windows] == sorted(w.end for w in windows) and len({w.id for w in windows}) == len(windows)
    for w in windows:
        at = w.window.at
        assert w.start <= at.min(initial=w.end) and at.max(initial=w.start) <= w.end
        assert w.end - 1 <= w.start - w.start % (10 * SECOND) + 10 * SECOND
        assert w.counts["items"] < 25 + 9
    for version in ("photos@1", "photos@2"):
        mine = [w for w in windows if w.version == version]
        assert all(a.end <= b.start + 1 for a, b in pairwise(mine))
    if steps and any(flush for *_, flush, _ in steps):  # what was over stayed as it was
        now = {w.id: (w.end, w.window.ids) for w in windows}
        assert before.items() <= now.items()


def test_windows_after_an_early_end_are_short_and_few(tmp_path: Path) -> None:
    writer, clock = opened(tmp_path, most=5000)
    for version in ("photos@1", "photos@2"):
        writer.seen(vectors(40), version=version)
    clock.at += SECOND
    writer.end_early("photos@1")
    for version in ("photos@1", "photos@2"):
        for _ in range(50):
            writer.seen(vectors(50), version=version)
    clock.at += 9 * SECOND
    writer.close()
    sizes = [(w.version, w.counts["items"]) for w in kept(tmp_path, *NAME)]
    assert [n for version, n in sizes if version == "photos@1"] == [40, 500, 500, 500, 1000]
    assert [n for version, n in sizes if version == "photos@2"] == [2540]


def test_counts_are_those_of_all_items_whatever_the_sample_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_PENDING", 50)
    centroids = vectors(5, 99)
    writer, clock = opened(tmp_path, most=20, window=1000.0, centroids=lambda version: centroids)
    every, confidence, statuses, lots = [], [], Counter[int](), random.Random(0)
    seconds = [lots.expovariate(20) for _ in range(200)]
    for number, took in enumerate(seconds):
        part = vectors(lots.randrange(1, 9), number)
        sure, status = np.random.default_rng(number).random(len(part)), lots.choice([200, 200, 200, 400, 429, 500, 503])
        writer.seen(part, version="photos@1", columns={"confidence": sure, "abstained": sure > 0.5})
        writer.count("/v1/x", status, took, len(part), undecodable=status == 400)
        every.append(part)
        confidence.append(sure)
        statuses[status] += 1
        clock.at += SECOND
        if number % 40 == 0:
            writer.flush()
    writer.close()
    (found,) = kept(tmp_path, *NAME)
    whole, sure = np.concatenate(every), np.concatenate(confidence)
    expected = np.bincount(((whole[:, None] - centroids) ** 2).sum(2).argmin(1), minlength=5)
    assert found.clusters is not None and found.clusters.tolist() == expected.tolist()
    counts = found.counts
    assert counts["items"] == counts["answered"] == len(whole) and len(found.window) == 20
    np.testing.assert_allclose(
        [counts["confidence"], counts["abstained"], counts["seconds"]], [sure.sum(), (sure > 0.5).sum(), sum(seconds)]
    )
    assert counts["errors"] == statuses[500] and counts["refused"] == statuses[503] + statuses[429]
    assert counts["invalid"] == counts["undecodable"] == statuses[400] and counts["requests"] == 200
    assert {key: n for key, n in counts.items() if key.startswith("status.")} == {
        f"status.{status}": n for status, n in statuses.items()
    }
    assert found.latency.sum() == 200
    exact = np.quantile(seconds, 0.9, method="inverted_cdf")
    assert exact <= quantile(found.latency, 0.9) <= max(SECONDS[0], exact * 10**0.1 * 1.001)
    assert np.isnan(quantile(np.zeros(5), 0.5))


def test_nearest_is_the_nearest() -> None:
    some, centroids = vectors(200, 1), vectors(9, 2) * 0.7
    naive = [min(range(9), key=lambda k: float(np.square(v - centroids[k]).sum())) for v in some]
    assert nearest(some, centroids).tolist() == naive


def test_processes_and_versions_write_beside_each_other(tmp_path: Path) -> None:
    one, clock = opened(tmp_path)
    other, _ = opened(tmp_path)
    one.seen(vectors(2), version="photos@1", index="shop#1")
    other.seen(vectors(3), version="photos@1", index="shop#1")
    one.seen(vectors(4), version="photos@2")
    one.seen(vectors(5), version="photos@1", index="shop#1")  # a request that began before the switch
    one.count("/v1/x", 503, 0.1, 0)  # refused before anything could answer it: of what answered last
    one.flush()
    assert kept(tmp_path, *NAME) == []  # both live, and nothing is over
    one.close()
    other.close()
    found = {(w.version, w.index, w.counts["items"], w.counts.get("refused", 0)) for w in kept(tmp_path, *NAME)}
    assert found == {("photos@1", "shop#1", 7, 1), ("photos@1", "shop#1", 3, 0), ("photos@2", None, 4, 0)}
    assert kept(tmp_path, "photos", "staging") == []
    assert all(w.end == clock.at + 1 for w in kept(tmp_path, *NAME))


def test_a_full_disk_loses_nothing_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, clock = opened(tmp_path)
    writer.seen(vectors(3), version="photos@1")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(2):
            with pytest.raises(Failure, match="no room left"):
                writer.flush()
            clock.at += 6 * SECOND
            writer.seen(vectors(2), version="photos@1")
    writer.close()
    assert sorted(w.counts["items"] for w in kept(tmp_path, *NAME)) == [2, 5]
    assert not list(tmp_path.rglob("*.tmp")) and len(list(tmp_path.rglob("*.parquet"))) == 2


def test_what_is_old_is_deleted_and_what_lives_is_left_alone(tmp_path: Path) -> None:
    writer, _ = opened(tmp_path, keep=3600.0)
    writer.seen(vectors(3), version="photos@1")
    writer.close()
    gone = writer.folder
    os.utime(gone / "lock", (BEGAN / SECOND, BEGAN / SECOND))
    living, _ = opened(tmp_path, keep=3600.0)
    os.utime(living.folder / "lock", (BEGAN / SECOND, BEGAN / SECOND))
    later = Clock(BEGAN + 4000 * SECOND)
    last = Journal(tmp_path, *NAME, window=10.0, keep=3600.0, clock=later)
    last.seen(vectors(1), version="photos@1")
    later.at += 7200 * SECOND
    last.flush()
    assert not gone.exists() and living.folder.exists() and kept(tmp_path, *NAME) == []
    last.seen(vectors(1), version="photos@1")
    last.close()
    assert [w.counts["items"] for w in kept(tmp_path, *NAME)] == [1]


def test_a_window_of_the_future_ends_when_the_clock_is_set_back(tmp_path: Path) -> None:
    """Else all that comes would be in it, and it would be under way until that hour."""
    writer, clock = opened(tmp_path)
    clock.at += 3600 * SECOND
    writer.seen(vectors(2), version="photos@1")
    clock.at -= 3600 * SECOND
    writer.seen(vectors(3), version="photos@1")
    clock.at += 10 * SECOND
    writer.flush()
    assert [window.counts["items"] for window in kept(tmp_path, *NAME)] == [3, 2]
    writer.close()


def test_since_leaves_out_what_ended_before(tmp_path: Path) -> None:
    writer, clock = opened(tmp_path)
    for _ in range(5):
        writer.seen(vectors(1), version="photos@1")
        clock.at += 10 * SECOND
    writer.close()
    ends = [w.end for w in kept(tmp_path, *NAME)]
    assert ends == [BEGAN + 10 * SECOND * i for i in range(1, 6)]
    for since in (0, ends[2], ends[2] + 1, ends[-1] + 1):
        assert [w.end for w in kept(tmp_path, *NAME, since)] == [end for end in ends if end >= since]


def test_damaged_files_and_strange_names_are_told(tmp_path: Path) -> None:
    writer, _ = opened(tmp_path)
    writer.seen(vectors(1), version="photos@1")
    writer.close()
    (window,) = kept(tmp_path, *NAME)
    (file,) = writer.folder.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadInput, match="parquet: cannot be read"):
        _ = window.window
    (said,) = writer.folder.glob("*.json")
    for content in ("", "[]", "{}", '{"format": 1}', '{"format": 99}'):
        said.write_text(content)
        with pytest.raises(BadInput, match=said.name):
            kept(tmp_path, *NAME)
    for name, alias in (("../x", "y"), ("", "y"), ("x", ""), (".x", "y")):
        with pytest.raises(BadInput, match="NAME@ALIAS"):
            kept(tmp_path, name, alias)
    for options in ({"window": 0.0}, {"window": 90_000.0}, {"most": 0}, {"keep": 0.0}):
        with pytest.raises(BadInput, match="a window lasts"):
            opened(tmp_path, **options)


def test_a_window_may_be_given_instead_of_its_file() -> None:
    window = Window(vectors(2))
    made = Kept(
        id="a", start=0, end=1, version="photos@1", index=None, counts={}, latency=np.zeros(3), clusters=None,
        window=window, whole=True,
    )  # fmt: skip
    assert made.window is window


# -- kill -9 --------------------------------------------------------------------------------------------------------


def _write_on(folder: str) -> None:
    """Write an item at a time, and say after each writing how many are on the disk."""
    writer = Journal(Path(folder), *NAME, window=0.3, most=10_000)
    flushed = Path(folder) / "flushed"
    for number in range(1_000_000):
        writer.seen(vectors(1, number), version="photos@1", ids=[str(number)])
        writer.count("/v1/x", 200, 0.001, 1)
        if number % 7 == 0:
            writer.flush()
            flushed.write_text(str(number + 1))


def test_killed_at_any_moment_what_was_flushed_is_there_once(tmp_path: Path) -> None:
    lots = random.Random(1)
    for trial in range(4):
        folder = tmp_path / str(trial)
        folder.mkdir()
        process = fork(_write_on, str(folder))
        while not (folder / "flushed").exists():
            time.sleep(0.005)
        time.sleep(lots.random())
        under_way = {w.id for w in kept(folder, *NAME)}
        assert all(w.whole for w in kept(folder, *NAME))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        text = (folder / "flushed").read_text()
        windows = kept(folder, *NAME)
        ids = [int(name) for w in windows for name in w.window.ids]
        assert sorted(ids) == list(range(len(ids))) and len(ids) >= int(text or 0)
        assert all(len(w.window) == w.counts["items"] for w in windows)
        assert under_way <= {w.id for w in windows} and sum(not w.whole for w in windows) <= 1


# -- labels, other models, payloads -----------------------------------------------------------------------------------


def answered(folder: Path, n: int = 6) -> None:
    writer, clock = opened(folder)
    columns = {"label": ["cat", "dog"] * (n // 2), "confidence": np.linspace(0.5, 1, n), "abstained": np.arange(n) == 0}
    writer.seen(vectors(n), version="photos@1", ids=[f"i{i}" for i in range(n)], columns=columns)
    clock.at += 20 * SECOND
    writer.seen(vectors(1), version="photos@2", ids=["i0"], columns={k: [v[1]] for k, v in columns.items()})
    writer.seen(vectors(1), version="photos@2", ids=["i1"])  # no head: nothing was said
    writer.close()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_labels_join_what_was_said_of_their_items(tmp_path: Path, ending: str) -> None:
    answered(tmp_path)

    def add(known: dict[str, str]) -> int:
        file = tmp_path / f"late.{ending}"
        if ending == "csv":
            file.write_text(
                "\ufeffnote,label,id\n" + "".join(f'"x,\n",{label},{name} \n' for name, label in known.items())
            )
        else:
            pq.write_table(pa.table({"id": [*known], "note": [1] * len(known), "label": [*known.values()]}), file)
        return labels.add(tmp_path, *NAME, file)

    assert len(labels.joined(tmp_path, *NAME)) == 0
    assert add({"i0": "dog", "i2": "cat", "never asked": "cat"}) == 3
    assert add({"i0": "cat", "i5": "dog"}) == 2
    found = labels.joined(tmp_path, *NAME)
    rows = zip(found.ids, found.versions, found.predicted, found.abstained, found.truth, strict=True)
    assert sorted(map(tuple, rows)) == [
        ("i0", "photos@1", "cat", True, "cat"),
        ("i0", "photos@2", "dog", False, "cat"),
        ("i2", "photos@1", "cat", False, "cat"),
        ("i5", "photos@1", "dog", False, "dog"),
    ]
    np.testing.assert_allclose(dict(zip(found.ids, found.confidence, strict=True))["i5"], 1.0)
    late = labels.joined(tmp_path, *NAME, since=BEGAN + 15 * SECOND)
    assert late.ids == ["i0"] and late.at.tolist() == [BEGAN + 20 * SECOND]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "id,what\n1,2\n", "no column 'label'"),
        ("a.csv", "", "no column 'id'"),
        ("a.csv", "id,label\n", "no rows"),
        ("a.csv", "id,label\nx,cat\n,cat\n", "row 2: has no id"),
        ("a.csv", "id,label\nx\n", "row 1: has no label"),
        ("a.parquet", "id,label\n", "cannot be read"),
        ("a.txt", "id,label\n", "ends in .csv or .parquet"),
        ("a.csv", "id,label\nx,\xe9\n", "cannot be read"),
    ],
)
def test_labels_that_cannot_be_used_are_told(tmp_path: Path, name: str, content: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="latin-1")
    with pytest.raises(BadInput, match=said):
        labels.add(tmp_path, *NAME, file)
    with pytest.raises(BadInput, match="no such file"):
        labels.add(tmp_path, *NAME, tmp_path / f"none{file.suffix}") if file.suffix != ".txt" else stored.read(
            tmp_path / "none.npz"
        )


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_another_models_embeddings_become_windows(tmp_path: Path, ending: str) -> None:
    N, lots = 400, np.random.default_rng(0)
    scaled, at = vectors(N) * 3, BEGAN + lots.integers(0, 60, N) * SECOND
    names, seen = np.array([f"x{i}" for i in range(N)]), np.array([lots.choice(["a", "b"]) for _ in range(N)])
    confidence = lots.random(N)
    file = tmp_path / f"theirs.{ending}"
    if ending == "npz":
        np.savez(file, vectors=scaled, ids=names, at=at, label=seen, confidence=confidence)
    else:
        columns = {"vector": scaled.tolist(), "id": names, "label": seen, "confidence": confidence}
        pq.write_table(pa.table({**columns, "at": at.astype("datetime64[us]")}), file)
    assert foreign.add(tmp_path, *NAME, file, version="theirs", window=10.0) == N
    windows = kept(tmp_path, *NAME)
    assert [w.start // (10 * SECOND) for w in windows] == [BEGAN // (10 * SECOND) + i for i in range(6)]
    assert {w.version for w in windows} == {"theirs"} and all(w.whole for w in windows)
    places = {name: i for i, name in enumerate(names)}
    for w in windows:
        rows = [places[name] for name in w.window.ids]
        np.testing.assert_allclose(w.window.vectors, scaled[rows] / 3, atol=1e-3)
        assert w.window.at.tolist() == at[rows].tolist() and w.window.columns["label"].tolist() == seen[rows].tolist()
        np.testing.assert_array_equal(w.window.columns["confidence"], confidence[rows])
    assert sum(len(w.window) for w in windows) == N


def test_files_that_are_no_embeddings_are_told(tmp_path: Path) -> None:
    def told(file: Path, said: str) -> None:
        with pytest.raises(BadInput, match=said):
            foreign.add(tmp_path, *NAME, file)

    for name, arrays, said in (
        ("none", {"x": np.zeros(3)}, "no array 'vectors'; it has: x"),
        ("flat", {"vectors": np.zeros(3)}, "give numbers"),
        ("texts", {"vectors": np.array([["a"]])}, "give numbers"),
        ("nan", {"vectors": np.full((2, 2), np.nan)}, "row 0 holds a number that is none"),
        ("short", {"vectors": np.ones((2, 2)), "ids": np.array(["a"])}, "1 values for 2 items"),
        ("pickled", {"vectors": np.array([{}], object)}, "cannot be read"),
        ("empty", {"vectors": np.zeros((0, 4))}, "no items"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        told(tmp_path / f"{name}.npz", said)
    pq.write_table(pa.table({"vector": [[1.0, 2.0], [1.0]]}), tmp_path / "ragged.parquet")
    told(tmp_path / "ragged.parquet", "as many numbers in each row")
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "without.parquet")
    told(tmp_path / "without.parquet", "no column 'vector'; it has: x")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    told(tmp_path / "torn.npz", "cannot be read")
    told(tmp_path / "x.csv", "ends in .parquet or .npz")


def test_payloads_are_kept_for_their_time_and_no_longer(tmp_path: Path) -> None:
    folder, items = tmp_path / "payloads", [b"a picture", "ein Süßes".encode(), b"{}", b"a picture"]
    with pytest.raises(BadInput, match="--ttl"):
        Payloads(folder, 0)
    keeper = Payloads(folder, 3600)
    digests = [keeper.put(content) for content in items]
    assert digests[0] == digests[3] and payload(folder, digests[0]) is None
    keeper.flush()
    assert [payload(folder, digest) for digest in digests] == items
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 3 and all(path.stat().st_mode & 0o077 == 0 for path in files)
    assert all(payload(folder, wrong) is None for wrong in ("", "../x", "0" * 64, digests[0].upper()))
    old = time.time() - 3601
    for path in files:
        os.utime(path, (old, old))
    keeper.put(items[0])  # it came once more
    keeper.flush()
    assert expire(folder, 3600) == 2 and expire(folder, 3600) == 0
    assert [payload(folder, digest) for digest in digests] == [items[0], None, None, items[0]]
    (folder / "ab").mkdir(exist_ok=True)
    (folder / "ab" / "a file of somebody's").write_text("x")
    assert expire(folder, 0) == 1 and [path.name for path in folder.rglob("*") if path.is_file()] == [
        "a file of somebody's"
    ]


def test_the_verbs_list_and_add(tmp_path: Path, fastness: Callable[..., Ended]) -> None:
    answered(tmp_path / "watch")
    spec, told = "photos@production", ("--watch", tmp_path / "watch")
    (tmp_path / "late.csv").write_text("id,label\ni0,cat\nelse,cat\n")
    assert fastness("labels", "add", spec, "late.csv", *told).out == (
        "2 labels kept; 2 answers that are sampled have one now\n"
    )
    np.savez(tmp_path / "theirs.npz", vectors=vectors(50))
    assert fastness("watch", "add", spec, "theirs.npz", *told, "--version", "theirs").out == "50 items written down\n"
    listed = [json.loads(line) for line in fastness("watch", "list", spec, *told, "--json").out.splitlines()]
    assert [(one["version"], one["items"]) for one in listed] == [("photos@1", 6), ("photos@2", 2), ("theirs", 50)]
    assert len(fastness("watch", "list", spec, *told).out.splitlines()) == 4
    wrong = fastness("watch", "list", "photos@3", *told)
    assert wrong.status == 2 and "say photos@production" in wrong.err
    Payloads(tmp_path / "payloads", 1).put(b"x")
    assert fastness("watch", "expire", "payloads").out == "0 items deleted\n"


def test_what_no_column_can_hold_spoils_no_window(tmp_path: Path) -> None:
    writer, clock = opened(tmp_path)
    spoilt = vectors(2)
    spoilt[1] = np.nan
    writer.seen(spoilt, version="photos@1", metadata=[{"x": 10**400}, {"x": 1.0}])
    writer.flush()
    clock.at += 10 * SECOND
    writer.seen(vectors(3), version="photos@1")
    writer.close()
    first, second = kept(tmp_path, *NAME)
    assert first.window.columns["x"].tolist()[0].startswith("1000") and not first.window.vectors[1].any()
    assert len(first.window) == 2 and len(second.window) == 3


def test_a_window_that_cannot_be_written_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, clock = opened(tmp_path)
    write = stored.write

    def stumbling(path: Path, window: Window) -> None:
        if "bad" in window.ids:
            raise TypeError("no such column")
        write(path, window)

    monkeypatch.setattr(stored, "write", stumbling)
    for name in ("bad", "good"):
        writer.seen(vectors(1), version="photos@1", ids=[name])
        clock.at += 10 * SECOND
    with pytest.raises(Failure, match="left out"):
        writer.flush()
    writer.flush()
    assert [w.window.ids for w in kept(tmp_path, *NAME)] == [["good"]]
    writer.close()


def test_names_that_are_too_many_are_passed_over(tmp_path: Path) -> None:
    writer, _ = opened(tmp_path)
    for i in range(200):
        writer.seen(vectors(1), version="photos@1", metadata=[{"same": "x", f"order {i}": 1}])
    writer.close()
    (window,) = kept(tmp_path, *NAME)
    assert len(window.window.columns) <= 64 and set(window.window.columns["same"]) == {"x"}


def test_windows_by_number_wait_for_the_disk_and_lose_nothing(tmp_path: Path) -> None:
    writer, _ = opened(tmp_path, cut=10, most=10_000)
    for _ in range(500):
        writer.seen(vectors(10), version="photos@1")
    writer.close()
    assert sum(w.counts["items"] for w in kept(tmp_path, *NAME)) == 5000


def test_embeddings_of_the_future_are_refused(tmp_path: Path) -> None:
    at = np.array([BEGAN, BEGAN * 1000])
    np.savez(tmp_path / "theirs.npz", vectors=vectors(2), at=at)
    with pytest.raises(BadInput, match="row 2: 'at' lies in the future"):
        foreign.add(tmp_path / "watch", *NAME, tmp_path / "theirs.npz")


def test_lists_of_different_lengths_are_no_vectors(tmp_path: Path) -> None:
    lists = pa.array([[1.0, 0.0], [1.0, 0.0, 0.0, 0.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"vector": lists}), tmp_path / "theirs.parquet")
    with pytest.raises(BadInput, match="row 2: 'vector' is to have a list of as many numbers"):
        stored.read(tmp_path / "theirs.parquet")


def test_what_a_killed_writer_left_of_payloads_goes_too(tmp_path: Path) -> None:
    payloads = Payloads(tmp_path / "items", 3600)
    assert (tmp_path / "items").stat().st_mode & 0o077 == 0
    digest = payloads.put(b"picture")
    payloads.flush()
    left = tmp_path / "items" / digest[:2] / f".{digest[:40]}.x.tmp"
    left.write_bytes(b"pict")
    for path in (left, left.with_name(digest)):
        os.utime(path, (0, 0))
    assert expire(tmp_path / "items", 3600) == 2 and not left.exists()
