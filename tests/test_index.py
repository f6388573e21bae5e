"""The vector index: what brute force finds, in a folder and on PostgreSQL; what is acknowledged is kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastness as fs
from conftest import database
from fastness.bundle import Bundle
from fastness.core.conditions import NUMBER, TEXT, holds, parse
from fastness.index import Index, folder
from fastness.tasks import index as task

DIM, N = 16, 600
NEW = Callable[..., Index]


def vectors(n: int, seed: int = 0) -> np.ndarray:
    """Return clustered vectors that are never negative, as those behind a ReLU, float32 ``[n, 16]``."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(20, DIM))
    return np.abs(centres[generator.integers(0, 20, n)] + 0.3 * generator.normal(size=(n, DIM))).astype(np.float32)


def cosines(queries: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return all cosines, the naive way."""
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(base, axis=1)
    return queries @ base.T / norms


def ids(n: int, start: int = 0) -> list[str]:
    return [f"item-{i}" for i in range(start, start + n)]


@pytest.fixture(params=["folder", "postgres"])
def new(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NEW:
    """Return what builds an index here or there; small ones have a structure, too."""
    monkeypatch.setattr(folder, "TAIL", 50)
    monkeypatch.setattr(folder, "EXACT", 50)
    if request.param == "folder":
        return lambda kind="flat", space="": Index.build(tmp_path / "index", DIM, kind, space)
    address = request.getfixturevalue("server") + f"&table=t{abs(hash(str(tmp_path)))}"
    return lambda kind="flat", space="": Index.build(address, DIM, kind, space)


def reopened(index: Index) -> Index:
    """Return the same index, opened by a new object."""
    place = index._at.server + f"&table={index._table}" if hasattr(index, "_at") else index.address
    index.close()
    return Index.open(place)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "binary", "int8", "pq"])
def test_each_kind_finds_what_brute_force_finds(new, kind, request):
    """Recall is high and the similarities are the true ones, after opening anew as well."""
    if "postgres" in request.node.name and kind in ("int8", "pq"):
        with pytest.raises(fs.BadInput, match="known: flat, hnsw, binary"):
            new(kind)
        return
    base, asked = vectors(N), vectors(30, 1)
    with new(kind) as index:
        index.add(ids(400), base[:400])
        index.add(ids(200, 400), base[400:])
        index = reopened(index)
        assert len(index) == N
        true = cosines(asked, base)
        best = np.argsort(-true, 1)[:, :10]
        found = index.search(asked, 10)
        assert all(
            h.similarity == pytest.approx(true[i, int(h.id[5:])], abs=1e-5) for i, x in enumerate(found) for h in x
        )
        recall = np.mean([len({int(h.id[5:]) for h in x} & set(b)) / 10 for x, b in zip(found, best, strict=True)])
        assert recall == 1 if kind == "flat" else recall >= 0.97
        index.close()


@pytest.mark.parametrize("kind", ["flat", "hnsw", "binary"])
def test_added_replaced_removed(new, kind):
    """Replaced items have their new vector and metadata; removed ones are found no more; the rest stays."""
    base = vectors(N)
    index = new(kind)
    index.add(ids(N), base, {"n": range(N), "name": [None if i % 2 else f"x{i}" for i in range(N)]})
    index.add(ids(100), base[::-1][:100], {"n": [-1.5] * 100})
    assert index.remove(ids(350, 150)) == 350 and len(index) == N - 350
    index = reopened(index)
    left = {h.id: h for h in index.search(base[:1], N)[0]}
    assert set(left) == {*ids(150), *ids(100, 500)}
    assert left["item-3"].metadata == {"n": -1.5} and left["item-120"].metadata == {"n": 120, "name": "x120"}
    assert index.search(base[::-1][5:6], 2, where="n == -1.5")[0][0].id == "item-5"
    with pytest.raises(fs.BadInput, match="no item 'item-200'; nothing was removed"):
        index.remove(["item-1", "item-200"])
    assert len(index) == 250
    index.close()


def test_refusals(new):
    """What does not fit is refused in one line, and nothing is kept of it."""
    index = new(space="abc")
    index.add(["a"], vectors(1), {"price": [3], "colour": ["red"]})
    for names, given_vectors, columns, said in [
        (["b"], np.zeros((1, 3)), {}, r"takes vectors \[N, 16\]; got \[1, 3\]"),
        (["b", "b"], vectors(2), {}, "'b' comes twice"),
        (["b"], np.full((1, DIM), np.nan), {}, "vector 0 is not finite"),
        (["b"], vectors(1), {"price": ["dear"]}, "'price' holds numbers; item 'b' has 'dear'"),
        (["b"], vectors(1), {"price": [1, 2]}, "2 values for 1 items"),
        (["b\0"], vectors(1), {}, "without NUL"),
        (["b"], vectors(2), {}, "1 ids for 2 vectors"),
    ]:
        with pytest.raises(fs.BadInput, match=said):
            index.add(names, given_vectors, columns)
    for where, said in [("size < 3", "known: colour, price"), ("price < 'a'", "numbers"), ("price <", "write it like")]:
        with pytest.raises(fs.BadInput, match=said):
            index.search(vectors(1), 1, where=where)
    with pytest.raises(fs.BadInput, match="not of other"):
        index.same_space("xyz", "other")
    with pytest.raises(fs.BadInput, match="already"):
        new()
    assert len(index) == 1 and index.search(vectors(1), 5)[0][0].metadata == {"price": 3, "colour": "red"}
    index.close()


NAMES = ("size", "a b", 'it\'s %s "q"')
TEXTS = st.sampled_from(["", "red", "blue", "it's", "Ä", "z'); drop table items; --", "%s"])
NUMBERS = st.sampled_from([None, -1.0, 0.0, 2.5, 7.0])


def conditions() -> st.SearchStrategy[str]:
    """Return expressions over two columns of numbers and one of texts."""
    number = st.builds(
        lambda c, r, v: f"{c} {r} {v}",
        st.sampled_from(["size", "`a b`"]),
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        st.sampled_from([-1, 0, 2.5, 5]),
    )
    text = st.builds(f"`{NAMES[2]}` {{}} {{!r}}".format, st.sampled_from(["<", ">", "==", "!="]), TEXTS)
    listed = st.lists(TEXTS, max_size=3)
    among = st.builds(f"`{NAMES[2]}` {{}} {{!r}}".format, st.sampled_from(["in", "not in"]), listed)
    return st.recursive(
        number | text | among,
        lambda part: (
            st.builds("({} {} {})".format, part, st.sampled_from(["and", "or"]), part)
            | st.builds("(not {})".format, part)
        ),
        max_leaves=4,
    )


@pytest.fixture(scope="module")
def described(tmp_path_factory, server) -> Iterator[tuple[list[Index], dict[str, np.ndarray], np.ndarray]]:
    """Return the same 80 items in a folder and on PostgreSQL, their columns, and their vectors."""
    generator, base = np.random.default_rng(3), vectors(80)
    cells = {
        "size": generator.choice([np.nan, -1.0, 0.0, 2.5, 7.0], 80),
        "a b": generator.choice([np.nan, 0.0, 5.0], 80),
        NAMES[2]: generator.choice(["", "red", "blue", "it's", "Ä", "%s"], 80),
    }
    made = [Index.build(a, DIM) for a in (tmp_path_factory.mktemp("i") / "index", server + "&table=described")]
    for index in made:
        index.add(ids(80), base, cells)
    yield made, cells, base
    for index in made:
        index.close()


@given(conditions())
def test_filters_are_what_a_loop_finds(described, expression):
    """Folder, PostgreSQL and arrays agree on every condition, missing values included."""
    made, cells, base = described
    kinds = {name: TEXT if values.dtype.kind == "U" else NUMBER for name, values in cells.items()}
    wanted = {f"item-{i}" for i in np.flatnonzero(holds(parse(expression, kinds, "test"), cells))}
    for index in made:
        assert {h.id for h in index.search(base[:1], 80, where=expression)[0]} == wanted


def test_narrow_and_wide_filters(new):
    """With a structure, a filter's answers are the nearest of those that match."""
    base, asked = vectors(N), vectors(10, 2)
    index = new("hnsw")
    index.add(ids(N), base, {"n": range(N)})
    for where, chosen in [("n < 20", np.arange(20)), ("n >= 200", np.arange(200, N)), ("n < 0", np.arange(0))]:
        true = cosines(asked, base[chosen])
        for hits, row in zip(index.search(asked, 5, where=where), true, strict=True):
            assert [h.similarity for h in hits] == pytest.approx(sorted(row, reverse=True)[:5], abs=1e-4)
    index.close()


@pytest.mark.parametrize("harm", ["cut", "changed", "missing"])
@pytest.mark.parametrize("kind", ["hnsw", "binary", "int8", "pq"])
def test_a_damaged_structure_is_made_again(tmp_path, monkeypatch, kind, harm):
    """It is no loss: the answers are the same, and the file is there again."""
    monkeypatch.setattr(folder, "TAIL", 50)
    base = vectors(N)
    with Index.build(tmp_path / "i", DIM, kind) as index:
        index.add(ids(N), base)
        before = index.search(base[:5], 5)
    (file,) = (tmp_path / "i").glob("structure-*")
    content = file.read_bytes()
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:100] if harm == "cut" else content[:-9] + b"123456789")
    with Index.open(tmp_path / "i") as index:
        assert index.search(base[:5], 5) == before
        assert index.show()["not_covered"] == 0
    assert [p.stat().st_size for p in (tmp_path / "i").glob("structure-*")] == [len(content)]


@pytest.mark.parametrize("harm", ["cut", "missing"])
def test_nothing_is_added_behind_vectors_that_are_lost(tmp_path: Path, harm: str) -> None:
    """A hole would be filled with zeros, and the items in it be found nowhere."""
    with Index.build(tmp_path / "i", DIM) as index:
        index.add(ids(50), vectors(50))
    (file,) = (tmp_path / "i").glob("vectors-*")
    whole = file.read_bytes()
    file.write_bytes(whole[: 20 * DIM * 4]) if harm == "cut" else file.unlink()
    with Index.open(tmp_path / "i") as index, pytest.raises(fs.Failure, match="missing or was cut; get an intact copy"):
        index.add(ids(10, 50), vectors(10, 1))
    file.write_bytes(whole)
    with Index.open(tmp_path / "i") as index:
        assert sorted(index.ids()) == sorted(ids(50))  # nothing of it was kept
        index.add(ids(10, 50), vectors(10, 1))
        assert [hits[0].id for hits in index.search(np.vstack([vectors(50), vectors(10, 1)]), 1)] == ids(60)


@pytest.fixture(params=["folder", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an index that is not there yet."""
    if request.param == "folder":
        return str(tmp_path / "index")
    return f"{database(request.getfixturevalue('server'))}&table=kept"


def test_a_build_that_fails_leaves_nothing_in_its_own_way(
    place: str, bundle: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged data, a kill by hand before and after items are kept: the same is asked again, and done."""
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "bad.png").write_text("words")
    with pytest.raises(fs.BadInput, match="shop: "):
        task.build(place, bundle, shop)
    with Index.build(place, DIM) as empty:
        kind = type(empty)
    with pytest.raises(fs.BadInput, match="is there already"):  # which is no failure of its own
        task.build(place, bundle, labelled)
    Index.open(place).discard()
    add = kind._add

    def stopped(index: Index, batch: Any) -> None:
        if late:
            add(index, batch)
        raise KeyboardInterrupt

    late = False
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(kind, "_add", stopped)
            task.build(place, bundle, labelled)
        with pytest.raises(fs.BadInput, match="no index here"):
            Index.open(place)
        late = True
    assert not list(tmp_path.glob("*index*"))
    n = len(task.build(place, bundle, labelled).vectors)
    with Index.open(place) as index:
        assert len(index) == n


def test_a_build_that_fails_leaves_what_others_have_added(
    place: str, bundle: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(loaded: Any, data: Any) -> None:
        with Index.open(place) as index:
            index.add(["theirs"], np.ones((1, index.about.dim)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Bundle, "embed_dataset", stopped)
    with pytest.raises(KeyboardInterrupt):
        task.build(place, bundle, labelled)
    with Index.open(place) as index:
        assert index.ids() == ["theirs"]


ADDER = """
import sys, numpy as np
from fastness.index import Index, folder
folder.TAIL = 100
with Index.open(sys.argv[1]) as index:
    for number in range(int(sys.argv[2]), 10**6):
        values = np.random.default_rng(number).normal(size=(20, 16))
        index.add([f"{number % 12}-{i}" for i in range(20)], values, {"batch": [number] * 20})
        print(number, flush=True)
"""


def test_killed_while_adding(tmp_path):
    """Whenever a writer is killed, all that it acknowledged is there, with its own vectors, and no half of a batch."""
    Index.build(tmp_path / "i", DIM, "int8").close()
    generator, last = np.random.default_rng(0), -1
    for _ in range(5):
        command = [sys.executable, "-c", ADDER, str(tmp_path / "i"), str(last + 1)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        first = process.stdout.readline()
        time.sleep(generator.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        said = int((first + process.stdout.read()).split("\n")[-2])
        process.wait()
        with Index.open(tmp_path / "i") as index:
            held = {h.id: int(h.metadata["batch"]) for h in index.search(np.ones((1, DIM)), len(index))[0]}
            last = max(held.values())
            assert last >= said and len(held) == 20 * min(last + 1, 12)
            for number in range(max(0, last - 11), last + 1):
                near = index.search(np.random.default_rng(number).normal(size=(20, DIM)), 1)
                assert [hits[0].id for hits in near] == [f"{number % 12}-{i}" for i in range(20)]
                assert {hits[0].metadata["batch"] for hits in near} == {number}


def test_reading_while_another_process_writes(tmp_path):
    """A reader always sees whole batches, while rows are added, replaced, and files are put in the place of others."""
    Index.build(tmp_path / "i", DIM, "int8").close()
    process = subprocess.Popen(
        [sys.executable, "-c", ADDER, str(tmp_path / "i"), "0"], stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    with Index.open(tmp_path / "i") as index:
        for _ in range(60):
            hits = index.search(np.ones((1, DIM)), 1000)[0]
            counted = np.unique([h.metadata["batch"] for h in hits], return_counts=True)[1]
            assert len(hits) >= 20 and (counted == 20).all()
    process.kill()
    process.wait()
    process.stdout.close()


def test_embedded_and_kept(run, labelled, tmp_path, fastness):
    """The command line builds, searches, filters, removes and shows; another bundle's vectors are refused."""
    place = tmp_path / "kept"
    built = fastness("index", "build", place, run, labelled, "--kind", "binary", "--json")
    assert built.status == 0, built.err
    n = json.loads(built.out)["items"]
    query = labelled / "a" / "00.png"
    found = json.loads(
        fastness("index", "search", place, run, "--query", query, "--where", "label == 'a'", "--json").out
    )
    assert found["hits"][0]["id"] == "a/00.png" and {h["metadata"]["label"] for h in found["hits"]} == {"a"}
    assert json.loads(fastness("index", "remove", place, "a/00.png", "--json").out) == {"removed": 1, "items": n - 1}
    task.add(place, run, labelled)
    assert json.loads(fastness("index", "show", place, "--json").out)["items"] == n
    with pytest.raises(fs.BadInput, match="no index here"):
        Index.open(tmp_path / "nowhere")
