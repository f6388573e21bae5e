"""A collection embedded anew: whole or not written down, whenever it is killed. In folders and on PostgreSQL."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fastness as fs
from conftest import database, fork, pictures, write_classes, write_pictures
from fastness.index import Index
from fastness.index.previews import Previews, preview
from fastness.index.turns import alone
from fastness.registry import Registry, reindex
from fastness.registry.indexes import indexed, recorded
from fastness.registry.reindex import rebuild
from fastness.registry.target import target
from fastness.tasks.index import build

YES = "it is a test"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a folder of 24 pictures of two classes, and one that is damaged."""
    folder = write_classes(tmp_path / "shop", each=12)
    (folder / "b" / "bad.png").write_text("words")
    return folder


@pytest.fixture
def place(address: str, request: pytest.FixtureRequest) -> str | None:
    """Return where indexes are kept: in the registry's folder, or on PostgreSQL."""
    return f"{database(request.getfixturevalue('server'))}&table=shop" if "://" in address else None


def content(index: Index, seed: int = 0) -> dict[str, Any]:
    """Return similarities to a few queries and the metadata of every item, by id."""
    queries = np.random.default_rng(seed).normal(size=(4, index.about.dim))
    found: dict[str, Any] = {}
    for hits in index.search(queries, max(1, len(index))):
        for hit in hits:
            found.setdefault(hit.id, [hit.metadata]).append(hit.similarity)
    return found


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two indexes hold the same items with the same vectors and metadata."""
    return first.keys() == second.keys() and all(
        first[name][0] == second[name][0] and np.allclose(first[name][1:], second[name][1:], atol=2e-6)
        for name in first
    )


def test_a_rebuilt_index_is_what_a_build_makes(
    registry: Registry, make: Callable[[str], Path], shop: Path, place: str | None, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(reindex, "CHUNK", 5)
    folder = make("one")
    registry.add(folder, "photos")
    said: list[str] = []
    made = rebuild(registry, "photos@1", shop, collection="shop", to=place, by="ann", say=said.append)
    assert (made.name, made.number, made.collection, made.items, made.by) == ("photos", 1, "shop", 24, "ann")
    assert (made.kind, made.form, made.columns, made.data) == ("flat", None, {}, str(shop))
    assert "1 damaged items left out" in said and str(made) == f"shop#{made.id}"
    build(tmp_path / "naive", folder, shop)
    with Index.open(made.address) as index, Index.open(tmp_path / "naive") as naive:
        assert len(index) == 24 and index.about.space == naive.about.space and index.columns() == naive.columns()
        assert same(content(index), content(naive))
        assert sorted(index.ids()) == sorted(naive.ids()) == sorted(content(index))
    if place is None:
        named = Path(made.address)
        assert named.parent == registry.folder / "indexes" / "shop"
        assert named.name == f"photos-1-{made.fingerprint[:12]}"
    else:
        assert "table=shop_1_" in made.address

    said.clear()
    assert rebuild(registry, "photos@1", collection="shop", to=place, say=said.append) == made
    assert not any("embedded" in line for line in said)
    with Index.open(made.address) as index:  # somebody's hand: what is missing is added, what is not of it goes
        index.remove(["a/03.png", "b/00.png"])
        index.add(["stranger"], np.ones((1, index.about.dim)))
    assert rebuild(registry, "photos@1", collection="shop", to=place) == made
    with Index.open(made.address) as index, Index.open(tmp_path / "naive") as naive:
        assert same(content(index), content(naive))


def test_other_items_or_another_version_are_another_index(
    registry: Registry, make: Callable[[str], Path], shop: Path, place: str | None
) -> None:
    for name in ("one", "two"):
        registry.add(make(name), "photos")
    with pytest.raises(fs.BadInput, match=r"shop: no index of it was built for photos yet; say of which data"):
        rebuild(registry, "photos@1", collection="shop", to=place)
    first = rebuild(registry, "photos@1", shop, collection="shop", to=place, kind="hnsw", label="none")
    registry.promote("photos@1", "production", override=True, why=YES)
    second = rebuild(registry, "photos@2", collection="shop", to=place)
    assert (second.data, second.columns, second.kind) == (first.data, {"label": "none"}, "hnsw")
    assert second.fingerprint == first.fingerprint and second.address != first.address

    def serving() -> tuple[int, int, Any]:
        found = target(registry, "photos", "production", "shop")
        assert found is not None
        assert found.since == registry.serving("photos")["production"].at
        return found.version.number, found.move, found.index

    moved = registry.log()[0].id
    assert serving() == (1, moved, first)
    write_pictures(shop / "a" / "more", pictures(3, seed=7))
    changed = rebuild(registry, "photos@1", collection="shop", to=place)
    assert changed.id > second.id and changed.items == 27 and changed.fingerprint != first.fingerprint
    assert serving() == (1, moved, changed)
    with Index.open(first.address) as old, Index.open(changed.address) as new:
        assert len(old) == 24 and len(new) == 27
    (shop / "a" / "00.png").rename(shop / "a" / "renamed.png")  # the same pictures by other names
    renamed = rebuild(registry, "photos@1", collection="shop", to=place)
    assert renamed.id > changed.id
    with Index.open(renamed.address) as index:
        assert "a/renamed.png" in index.ids() and "a/00.png" not in index.ids()

    move = registry.promote("photos@2", "production", override=True, why=YES)
    assert serving() == (2, move.id, second)
    back = registry.rollback("photos", "production", why=YES)
    assert serving() == (1, back.id, renamed)
    gone = target(registry, "photos", "production")
    assert gone is not None and gone.index is None
    other = target(registry, "photos", "production", "archive")
    assert other is not None and other.index is None
    assert target(registry, "photos", "canary", "shop") is None
    registry.remove("photos", "production", why=YES)
    assert target(registry, "photos", "production", "shop") is None


def _switch(address: str, times: int) -> None:
    """Move an alias to and fro, and write indexes down meanwhile."""
    with Registry(address) as registry:
        for i in range(times):
            number = 1 + i % 2
            about = {"kind": "flat", "items": i, "data": "d", "columns": {}, "fingerprint": "f"}
            recorded(registry, name="photos", number=number, collection="shop", address=f"/place/{i}", **about)
            registry.promote(f"photos@{number}", "production", override=True, why=YES)


def test_what_is_to_serve_is_read_at_one_moment(registry: Registry, address: str, make: Callable[[str], Path]) -> None:
    for name in ("one", "two"):
        registry.add(make(name), "photos")
    process = fork(_switch, address, 60)
    seen = {}
    while process.is_alive():
        found = target(registry, "photos", "production", "shop")
        if found is not None:
            assert found.index is not None and found.index.number == found.version.number
            seen[found.move] = found
    process.join()
    moves = {move.id: move for move in registry.log()}
    assert process.exitcode == 0 and len(moves) == 60 and len(seen) > 3
    for found in seen.values():
        move = moves[found.move]
        assert (move.number, move.at) == (found.version.number, found.since)
        assert found.index is not None and found.index.items == move.id - 1  # the one that was newest then


def test_a_refusal_moves_nothing(registry: Registry, make: Callable[[str], Path]) -> None:
    from fastness.registry.moves import Judged

    for name in ("one", "two"):
        registry.add(make(name), "photos")
    move = registry.promote("photos@1", "production", override=True, why=YES)
    with pytest.raises(fs.GateRefused):
        judged = Judged(False, "worse", registry.find("photos@2").manifest, 1, {}, {})
        registry.promote("photos@2", "production", why=YES, gate=judged)
    found = target(registry, "photos", "production")
    assert found is not None and (found.version.number, found.move, found.since) == (1, move.id, move.at)


def _rebuild(address: str, shop: str, place: str | None, started: str) -> None:
    """Rebuild in small steps, saying how far it has come."""
    reindex.CHUNK = 1
    with Registry(address) as registry, Path(started).open("w") as said:

        def say(line: str) -> None:
            print(line, file=said, flush=True)
            time.sleep(0.01)

        rebuild(registry, "photos@1", shop, collection="shop", to=place, previews=place is None, say=say)


def test_killed_at_any_moment_it_goes_on_where_it_was(
    registry: Registry, address: str, make: Callable[[str], Path], shop: Path, place: str | None, tmp_path: Path
) -> None:
    folder = make("one")
    registry.add(folder, "photos")
    lots, started = np.random.default_rng(0), tmp_path / "started"
    embedded, made = 0, None
    for _ in range(10):
        started.write_text("")
        process = fork(_rebuild, address, str(shop), place, str(started))
        lines = int(lots.integers(1, 5))
        while process.is_alive() and started.read_text().count("\n") < lines:
            time.sleep(0.001)
        time.sleep(float(lots.uniform(0, 0.03)))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        embedded += sum(line.endswith("embedded") for line in started.read_text().splitlines())
        made = indexed(registry, "photos", 1, "shop")
        if made is not None:  # then all of it is there
            with Index.open(made.address) as index:
                assert len(index) == made.items == 24
            break
        assert process.exitcode == -signal.SIGKILL
    again = rebuild(registry, "photos@1", shop, collection="shop", to=place, previews=place is None)
    assert made in (None, again)
    assert embedded <= 24  # what was said to be kept was not embedded again
    build(tmp_path / "naive", folder, shop)
    with Index.open(again.address) as index, Index.open(tmp_path / "naive") as naive:
        assert len(index) == again.items == 24 and same(content(index), content(naive))
        if place is None:
            assert all(preview(again.address, name) for name in index.ids())


def test_two_do_not_build_the_same_at_once(
    registry: Registry, make: Callable[[str], Path], shop: Path, place: str | None
) -> None:
    registry.add(make("one"), "photos")
    made = rebuild(registry, "photos@1", shop, collection="shop", to=place)
    with alone(made.address), pytest.raises(fs.Failure, match="another process builds it just now") as told:
        rebuild(registry, "photos@1", collection="shop", to=place)
    assert "\n" not in str(told.value)
    assert rebuild(registry, "photos@1", collection="shop", to=place) == made


def test_what_is_known_of_items_counts(tmp_path: Path, make: Callable[[str], Path], shop: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from conftest import png

    pixels = pictures(6)
    cells: dict[str, list[Any]] = {
        "image": [{"bytes": png(p), "path": f"{i}"} for i, p in enumerate(pixels)],
        "price": [1, 2, 3, None, 5, 6],
    }
    with Registry(tmp_path / "registry") as registry:
        registry.add(make("one"), "photos")
        pq.write_table(pa.table(cells), tmp_path / "shop.parquet")
        first = rebuild(registry, "photos@1", tmp_path / "shop.parquet", collection="shop")
        cells["price"][0] = 10  # other prices, the same pictures
        pq.write_table(pa.table(cells), tmp_path / "shop.parquet")
        second = rebuild(registry, "photos@1", collection="shop")
        assert second.id > first.id
        for made, prices in ((first, {1, 2, 3, 5, 6}), (second, {10, 2, 3, 5, 6})):
            with Index.open(made.address) as index:
                assert {h[0]["price"] for h in content(index).values() if h[0]} == prices
        # The registry's folder may be moved, with the indexes in it.
        shutil.rmtree(first.address)
    (tmp_path / "registry").rename(tmp_path / "moved")
    with Registry(tmp_path / "moved") as registry:
        found = indexed(registry, "photos", 1, "shop")
        assert found is not None and found.id == second.id
        assert Path(found.address).is_relative_to(tmp_path / "moved")
        with Index.open(found.address) as index:
            assert len(index) == 6


def test_previews_show_items_without_the_data(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path, place: str | None
) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    for i, pixels in enumerate(pictures(5, 300)):
        Image.fromarray(pixels[:200]).save(folder / f"{i}.png")
    registry.add(make("one"), "photos")
    if place is not None:
        with pytest.raises(fs.BadInput, match="in a folder alone"):
            rebuild(registry, "photos@1", folder, collection="shop", to=place, previews=True)
        made = rebuild(registry, "photos@1", folder, collection="shop", to=place)
        assert preview(made.address, "0.png") is None
        with pytest.raises(fs.BadInput, match="in a folder alone"):
            Previews(made.address)
        return
    made = rebuild(registry, "photos@1", folder, collection="shop")
    assert preview(made.address, "0.png") is None
    assert rebuild(registry, "photos@1", collection="shop", previews=True) == made
    shutil.rmtree(folder)
    seen = preview(made.address, "0.png")
    assert seen is not None and seen[0] == "image/webp" and preview(made.address, "9.png") is None
    with Image.open(io.BytesIO(seen[1])) as picture:
        assert picture.format == "WEBP" and picture.size == (128, 85)
    (Path(made.address) / "previews.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(fs.Failure, match="build with --previews again"):
        preview(made.address, "0.png")


def test_an_export_embeds_in_its_own_space(tmp_path: Path) -> None:
    lines = [f"the {colour} {thing} {i}" for i in range(4) for colour in ("red", "blue") for thing in ("cat", "house")]
    (tmp_path / "lines.txt").write_text("\n".join([*lines, "word " * 200]))
    network = {"layers": 1, "heads": 2}
    run = fs.train(
        tmp_path / "lines.txt", encoder="transformer", width=16, steps=3, batch_size=8, network=network,
        out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    for form in ("onnx", "static"):
        fs.export(run.bundle, tmp_path / "lines.txt", form, floor=-1.0)
    bundle = fs.load(run.bundle)
    with Registry(tmp_path / "registry") as registry:
        registry.add(run.bundle, "words")
        asked = {"data": tmp_path / "lines.txt", "collection": "lines", "previews": True}
        plain = rebuild(registry, "words@1", **asked)
        onnx = rebuild(registry, "words@1", form="onnx", **asked)
        static = rebuild(registry, "words@1", form="static", **asked)
        assert [made.form for made in (plain, onnx, static)] == [None, "onnx", "static"]
        assert static.address.endswith("-static") and len({plain.address, onnx.address, static.address}) == 3
        own = fs.load(Path(run.bundle) / "exports" / "static")
        for made, space, embedder in ((plain, bundle.id, bundle), (onnx, bundle.id, bundle), (static, own.id, own)):
            with Index.open(made.address) as index:
                assert index.about.space == space
                hit = index.search(embedder.embed([lines[3]]), 1)[0][0]
                assert hit.similarity == pytest.approx(1, abs=1e-4)
                assert preview(made.address, hit.id) == ("text/plain", lines[3].encode())
        longest = [preview(plain.address, name) for name in Index.open(plain.address).ids()]
        assert max(len(seen[1]) for seen in longest if seen) == 300
        with pytest.raises(fs.BadInput, match=r"words@1: has no export '\.\./x'; there are: onnx, static"):
            rebuild(registry, "words@1", form="../x", **asked)


def test_refusals_are_one_line(registry: Registry, make: Callable[[str], Path], shop: Path, place: str | None) -> None:
    registry.add(make("one"), "photos")
    asked: dict[str, Any] = {"data": shop, "collection": "shop", "to": place}
    made = rebuild(registry, "photos@1", **asked)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"collection": "../shop"}, "is no name"),
        ({"kind": "hnsw"}, "is there, of kind flat"),
        ({"data": shop / "nowhere"}, "nowhere"),
        ({"form": "onnx"}, "has no export 'onnx'; there are: none"),
        ({"kind": "tree", "collection": "other"}, "unknown kind of index 'tree'"),
        ({"to": "postgresql://ann:secret@host/d?table=t"}, "use ~/.pgpass or PGPASSWORD"),
        ({"to": "postgresql://ann@host/d?table=t&password=secret"}, "use ~/.pgpass or PGPASSWORD"),
        ({"to": "postgresql://ann@host/d"}, "say how its tables' names begin"),
        ({"to": f"postgresql://ann@host/d?table={'t' * 40}"}, "at most 51"),
        ({"to": "postgresql://ann@host/d?table=T"}, "small letters"),
    ]
    if place is not None:
        cases.append(({"to": None}, "say where indexes are kept"))
    for changed, said in cases:
        with pytest.raises(fs.BadInput, match=said) as told:
            rebuild(registry, "photos@1", **{**asked, **changed})
        assert "\n" not in str(told.value) and "secret" not in str(told.value)
    with pytest.raises(fs.BadInput, match="no photos@2 here"):
        rebuild(registry, "photos@2", **asked)
    assert indexed(registry, "photos", None, "shop") == made


def test_the_command_line(fastness, make: Callable[[str], Path], shop: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        registry.add(make("one"), "photos")
        registry.add(make("two"), "photos")
    first = fastness("index", "rebuild", "shop", "photos@1", "shop", "--previews", "--label", "none", "--json")
    assert first.status == 0 and "1 damaged items left out" in first.err, first.err
    told = json.loads(first.out)
    assert told["index"] == f"shop#{told['id']}" and told["items"] == 24 and told["columns"] == {"label": "none"}
    assert preview(told["address"], "a/00.png") is not None
    second = fastness("index", "rebuild", "shop", "photos@2", "--to", "elsewhere")
    assert second.status == 0 and "photos@2  24 items, flat" in second.out
    assert (tmp_path / "elsewhere" / "shop").is_dir()
    assert fastness("index", "rebuild", "shop", "photos@9").status == 2
    assert json.loads(fastness("index", "show", told["address"], "--json").out)["items"] == 24


def test_a_service_needs_no_torch() -> None:
    modules = ("", ".target", ".keys", ".indexes", ".reindex")
    names = [*(f"fastness.registry{m}" for m in modules), "fastness.index", "fastness.index.previews"]
    heavy = ("torch", "pyarrow", "sklearn", "PIL", "fastness.data", "fastness.bundle", "alembic")
    code = f"import sys, {', '.join(names)}; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
