"""What a service writes down: what the export says of every item, counts of every request, and none of the items."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fastness as fs
from conftest import picture, png, write_pictures
from fastness.core.errors import BadInput
from fastness.data import traits
from fastness.monitoring.kept.payloads import payload
from fastness.monitoring.kept.windows import Kept, kept
from fastness.monitoring.sketch import Sketch
from fastness.registry import Registry
from fastness.serving.wanted import RESERVED, Search, read
from served import COLLECTION, WORDS, Made, Service, data_url, release, serving, until

SECRET = "harbour tide gull"
COLOURS = [picture(i, 12 + i) for i in range(4)]
ROWS = [{"a": 0.5, "b": -1, "colour": "x"}, {"a": None, "b": 1.5, "colour": "secret colour"}]
ASKED: dict[str, list[Any]] = {
    "words": [SECRET, "red rose", "red wine", "sea salt", SECRET],
    "photos": [data_url(pixels) for pixels in COLOURS],
    "cells": ROWS,
}


@pytest.fixture(scope="module")
def made(words: list[Made], photos: Made, cells: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """Bundles with a sketch, except of rows."""
    found = {}
    for name, one in (("words", words[0]), ("photos", photos), ("cells", cells)):
        copy = Path(shutil.copytree(one.bundle, tmp_path_factory.mktemp(name) / "bundle"))
        found[name] = Made(copy, one.data, one.columns)
        if name != "cells":
            fs.sketch(copy, one.data, form="onnx", **one.columns)
    return found


@pytest.fixture(scope="module")
def registry(made: dict[str, Made], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with all of them."""
    with Registry(tmp_path_factory.mktemp("watched") / "registry") as opened:
        for name, one in made.items():
            release(opened, [one], name, index=name == "words")
        yield opened


def raw(name: str) -> list[Any]:
    """Return the items as the runtime takes them."""
    return list(COLOURS) if name == "photos" else ASKED[name]


def ask_all(service: Service, name: str) -> int:
    """Ask about all items on every route, each with an id and metadata; return how often."""
    routes = ["/v1/embeddings", "/v1/classify", "/v1/anomaly", *(["/v1/search"] if name == "words" else [])]
    for route in routes:
        N = len(ASKED[name])
        body = {"input": ASKED[name], "ids": [f"{route}:{i}" for i in range(N)]}
        told = [{"vendor": "north" if i % 2 else None, "age": i, "fresh": i > 0} for i in range(N)]
        assert service.ask(route, {**body, "metadata": told}).status == 200
    return len(routes)


def merged(windows: list[Kept]) -> tuple[dict[str, float], np.ndarray, list[str]]:
    """Return the sums of the counts, and the vectors with their ids."""
    counts: dict[str, float] = {}
    for window in windows:
        for key, value in window.counts.items():
            counts[key] = counts.get(key, 0.0) + value
    parts = [w.window for w in windows if len(w.window)]
    return counts, np.concatenate([p.vectors for p in parts]), [item for p in parts for item in p.ids]


@pytest.mark.parametrize("name", ["words", "photos", "cells"])
def test_what_is_kept_is_what_the_export_says_and_nothing_of_the_items(
    registry: Registry, made: dict[str, Made], tmp_path: Path, name: str
) -> None:
    watch, payloads = tmp_path / "watch", tmp_path / "payloads"
    search = ("--collection", COLLECTION) if name == "words" else ()
    options = ("--watch", watch, "--keep-payloads", payloads, "--timeout", 60, *search)
    with serving(f"{name}@production", registry.address, tmp_path / "log", *options) as service:
        times = ask_all(service, name)
        assert kept(watch, name, "production") == []  # it lives, and the window is under way
        wrong = {"words": " ", "photos": "data:image/png;base64,AAAA", "cells": {"a": 1}}[name]
        assert service.ask("/v1/embeddings", {"input": [wrong]}).status == 400
        assert service.ask("/v1/embeddings", {"input": []}).status == 400
        assert service.ask("/v1/nothing", {"input": []}).status == 404
        assert service.kill(signal.SIGTERM) == 0
    windows = kept(watch, name, "production")
    assert all(w.whole and w.version == f"{name}@1" for w in windows)
    assert {w.index is None for w in windows} == {name != "words"}
    counts, vectors, ids = merged(windows)
    N, expected = len(ASKED[name]), made[name].encoder
    order = {
        f"{route}:{i}": i for route in ("/v1/embeddings", "/v1/classify", "/v1/anomaly", "/v1/search") for i in range(N)
    }
    rows = [order[item] for item in ids]
    assert sorted(ids) == sorted(set(ids)) and len(ids) == N * times
    np.testing.assert_allclose(vectors, expected.embed(raw(name))[rows], atol=1e-3)
    assert counts["items"] == counts["answered"] == N * times and counts["asked"] == N * times + 1
    assert (counts["requests"], counts["invalid"], counts["undecodable"]) == (times + 2, 2, 1)
    assert sum(w.latency.sum() for w in windows) == times + 2

    answers = expected.classify(raw(name))
    for w in windows:
        columns, mine = w.window.columns, [order[item] for item in w.window.ids]
        assert columns["label"].tolist() == answers.labels[mine].tolist()
        np.testing.assert_allclose(columns["confidence"], answers.probabilities.max(1)[mine], atol=1e-5)
        np.testing.assert_allclose(columns["novelty"], answers.novelty[mine], rtol=1e-4)
        np.testing.assert_array_equal(columns["abstained"], answers.abstained[mine])
        assert columns["vendor"].tolist() == ["north" if i % 2 else "" for i in mine]
        assert columns["age"].tolist() == mine and columns["fresh"].tolist() == [float(i > 0) for i in mine]
        assert [item.partition(":")[0] for item in w.window.ids] == columns["route"].tolist()
        _facts(name, columns, mine)
        for digest, i in zip(columns["payload"], mine, strict=True):
            content, item = payload(payloads, digest), ASKED[name][i]
            assert content is not None
            if name == "cells":
                assert json.loads(content) == item
            else:
                assert content == (png(COLOURS[i]) if name == "photos" else item.encode())
    if name == "cells":
        assert all(w.clusters is None for w in windows)
    else:
        sketch = Sketch.load(made[name].bundle)
        assert set(sketch.window.columns) - {"right", "truth", "price"} <= set(windows[0].window.columns)
        assert sum(w.clusters.sum() for w in windows if w.clusters is not None) == N * times
    written = b"".join(path.read_bytes() for path in watch.rglob("*") if path.is_file())
    assert not any(word in written for word in (SECRET.encode(), base64.b64decode(ASKED["photos"][0][22:])))
    log = (service.log / "err").read_text()
    assert SECRET not in log and "north" not in log and "stumbled" not in log


def _facts(name: str, columns: Any, rows: list[int]) -> None:
    """Hold what was told of items against what they are."""
    if name == "cells":
        np.testing.assert_array_equal(columns["a"], [np.nan if ROWS[i]["a"] is None else ROWS[i]["a"] for i in rows])
        assert columns["colour"].tolist() == [{"x": "x"}.get(str(ROWS[i]["colour"]), "(others)") for i in rows]
        assert columns["missing"].tolist() == [float(ROWS[i]["a"] is None) for i in rows]
    elif name == "words":
        assert columns["words"].tolist() == [len(ASKED["words"][i].split()) for i in rows]
        assert columns["characters"].tolist() == [len(ASKED["words"][i]) for i in rows]
    else:
        luma = [float((COLOURS[i] @ np.array([0.299, 0.587, 0.114])).mean()) for i in rows]
        np.testing.assert_allclose(columns["brightness"], luma, rtol=1e-4)
        assert columns["width"].tolist() == [12 + i for i in rows]


def test_without_watch_nothing_is_written_and_killed_with_it_little_is_lost(registry: Registry, tmp_path: Path) -> None:
    watch = tmp_path / "watch"
    with serving("words@production", registry.address, tmp_path / "plain", "--timeout", 60) as service:
        ask_all_but_search(service)
        assert service.kill(signal.SIGTERM) == 0
    assert not watch.exists()
    with serving(
        "words@production", registry.address, tmp_path / "log", "--watch", watch, "--window-items", 4, "--timeout", 60
    ) as service:
        ask_all_but_search(service)
        until(lambda: kept(watch, "words", "production"), lambda found: len(found) == 2)  # closed by their number
        service.kill(signal.SIGKILL)
    found = kept(watch, "words", "production")
    assert sum(w.counts["items"] for w in found if w.whole) == 10


def ask_all_but_search(service: Service) -> None:
    for route in ("/v1/embeddings", "/v1/classify"):
        assert service.ask(route, {"input": ASKED["words"]}).status == 200


def test_large_photographs_are_decoded_as_in_training_and_told_of_as_in_the_sketch(
    photos: Made, tmp_path: Path
) -> None:
    from fastness.data.cache import decode_square
    from fastness_runtime.decode import decode

    def photograph(seed: int) -> np.ndarray:  # with a grain that is only seen at its own size
        grain = np.random.default_rng(seed).normal(0, 60, (300, 400, 1))
        return np.clip(np.asarray(Image.fromarray(picture(seed)).resize((400, 300))) + grain, 0, 255).astype(np.uint8)

    paths = write_pictures(tmp_path / "data", np.stack([photograph(i) for i in range(6)]), ".jpg")
    files = [path.read_bytes() for path in paths]
    copy = Made(Path(shutil.copytree(photos.bundle, tmp_path / "bundle")), tmp_path / "data")
    about = fs.sketch(copy.bundle, copy.data, form="onnx")
    with Registry(tmp_path / "registry") as opened:
        release(opened, [copy], "photos", index=False)
    urls = ["data:image/jpeg;base64," + base64.b64encode(file).decode() for file in files]
    watch, names = tmp_path / "watch", [path.name for path in paths]
    with serving("photos@production", tmp_path / "registry", tmp_path / "log", "--watch", watch) as service:
        answer = service.ask("/v1/embeddings", {"input": urls, "ids": names})
        assert service.kill(signal.SIGTERM) == 0
    found = [one["embedding"] for one in answer.json["data"]]
    size = photos.encoder.about["size"]
    squares = photos.encoder.embed(np.stack([decode_square(file, size) for file in files]))
    np.testing.assert_allclose(found, squares, atol=2e-3)
    assert decode(files[0], size).shape[:2] != decode(files[0]).shape[:2]
    whole = photos.encoder.embed([decode(file) for file in files])
    assert np.abs(whole - squares).max() > 2 * np.abs(np.array(found) - squares).max()
    (window,) = [w.window for w in kept(watch, "photos", "production") if len(w.window)]
    order = [[Path(item).name for item in about.window.ids].index(item) for item in window.ids]
    for fact in traits.OF_PICTURE:
        np.testing.assert_allclose(window.columns[fact], about.window.columns[fact][order], rtol=1e-5, err_msg=fact)


def test_a_sketch_that_was_changed_stops_nothing(made: dict[str, Made], tmp_path: Path) -> None:
    copy = Made(Path(shutil.copytree(made["words"].bundle, tmp_path / "bundle")), made["words"].data)
    numbers = copy.bundle / "sketch" / "reference.npz"
    numbers.write_bytes(numbers.read_bytes()[:-9])
    with Registry(tmp_path / "registry") as opened:
        release(opened, [copy], "words", index=False)
    watch = tmp_path / "watch"
    with serving("words@production", tmp_path / "registry", tmp_path / "log", "--watch", watch) as service:
        ask_all_but_search(service)
        assert service.kill(signal.SIGTERM) == 0
    assert [line["why"] for line in service.lines if line["event"] == "sketch not used"]
    assert all(w.clusters is None and w.counts["items"] == 10 for w in kept(watch, "words", "production"))


def test_a_window_ends_early_when_what_comes_has_changed(made: dict[str, Made], tmp_path: Path) -> None:
    one, lots = made["words"], np.random.default_rng(0)
    copy = Made(Path(shutil.copytree(one.bundle, tmp_path / "bundle")), one.data, one.columns)
    usual = tmp_path / "usual.csv"
    usual.write_text("\n".join(["text", *(" ".join(lots.choice(WORDS["sea"], 4)) + f" {i}" for i in range(600))]))
    fs.sketch(copy.bundle, usual, form="onnx", text="text")
    with Registry(tmp_path / "registry") as opened:
        release(opened, [copy], "words", index=False)
    watch = tmp_path / "watch"
    with serving("words@production", tmp_path / "registry", tmp_path / "log", "--watch", watch) as service:

        def send(kind: str, number: int) -> None:
            texts = [" ".join(lots.choice(WORDS[kind], 4)) + f" {i}" for i in range(30)]
            assert service.ask("/v1/embeddings", {"input": texts, "ids": [f"{kind}-{number}"] * 30}).status == 200

        for number in range(10):
            send("sea", number)
        until(lambda: [p for p in watch.rglob("*.json") if json.loads(p.read_text())["counts"]["items"] == 300])
        for number in range(60):  # while the service lives, and long before five minutes are over
            send("red", number)
            if len(found := kept(watch, "words", "production")) > 1:
                break
            time.sleep(0.5)
        assert [line for line in service.lines if line["event"] == "window ended early"]
    first, *later = found
    assert sum(name.startswith("sea") for name in first.window.ids) == 300
    assert later and all(name.startswith("red") for w in later for name in w.window.ids)


def test_what_clients_say_of_items_is_checked_whether_it_is_kept_or_not() -> None:
    def told(said: str, **more: Any) -> None:
        with pytest.raises(BadInput, match=said):
            read(Search, json.dumps({"input": ["x", "y"], **more}).encode(), 8)

    told("ids: 1 for 2 items", ids=["a"])
    told("metadata: 3 for 2 items", metadata=[{}, {}, {}])
    told("ids", ids="ab")
    told("ids", ids=["a" * 201, "b"])
    told("metadata", metadata=[{"k": "v" * 201}, {}])
    told("metadata", metadata=[{"k": ["v"]}, {}])
    told("metadata", metadata=[{"k": float("nan")}, {}])
    told("metadata", metadata=[{"": 1}, {}])
    told("metadata", metadata=[{f"k{i}": 1 for i in range(17)}, {}])
    for name in RESERVED:
        told(f"metadata: '{name}'", metadata=[{}, {name: 1}])
    body = {"input": "x", "ids": ["a"], "metadata": [{"n": 1, "t": "x", "f": 0.5, "b": True, "no": None}]}
    found = read(Search, json.dumps(body).encode(), 8)
    assert found.ids == ["a"] and found.metadata == [{"n": 1, "t": "x", "f": 0.5, "b": True, "no": None}]


def test_watching_needs_neither_torch_nor_sklearn(made: dict[str, Made], tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
import fastness.serving.run, fastness.serving.app, fastness.serving.watch
from fastness.monitoring.kept.journal import Journal
from fastness.monitoring.kept.windows import kept
from fastness.monitoring.sketch import Sketch
sketch = Sketch.load({str(made["photos"].bundle)!r})
journal = Journal(Path({str(tmp_path)!r}), "photos", "production", centroids=lambda version: sketch.centroids)
journal.seen(sketch.window.vectors, version="photos@1", columns=sketch.window.columns)
journal.close()
assert len(kept(Path({str(tmp_path)!r}), "photos", "production")[0].window) == len(sketch.window)
print(sorted({{"torch", "sklearn", "scipy"}} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_payloads_go_with_watch(tmp_path: Path, fastness: Any) -> None:
    ended = fastness("serve", "words@production", "--keep-payloads", "here")
    assert ended.status == 2 and "goes with --watch" in ended.err
