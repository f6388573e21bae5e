"""Switches under load: no request fails, no answer mixes versions, and what cannot serve leaves the old one serving.

``FASTNESS_SWITCHES`` and ``FASTNESS_KILLS`` say how often; ``benchmarks/switching.py`` does it in the published number.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import database
from fastness.core.errors import Failure
from fastness.registry import Registry
from fastness.registry.indexes import indexed, recorded
from fastness.registry.registry import Version
from fastness.registry.reindex import rebuild
from fastness.serving.telemetry import Telemetry
from fastness_runtime import signature
from scenarios import SPEC, killed_rebuilds, killed_services, killed_writers, switches_under_load, to
from served import COLLECTION, YES, Clients, Made, Truth, release, sentences, serving, spoiled, until

SWITCHES = int(os.environ.get("FASTNESS_SWITCHES", "20"))
KILLS = int(os.environ.get("FASTNESS_KILLS", "6"))


@pytest.fixture(scope="module")
def made(words: list[Made], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with three versions, each with an index; not to be changed."""
    folder = tmp_path_factory.mktemp("made") / "registry"
    with Registry(folder) as registry:
        release(registry, words, "words")
    return folder


@pytest.fixture(scope="module")
def truth(made: Path) -> Truth:
    """What the three versions say, without a service."""
    with Registry(made) as registry:
        found = Truth.of(registry, "words", sentences(8, seed=5))
    assert found.distinct()
    return found


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A registry of one's own that is like `made`."""
    return Path(shutil.copytree(made, tmp_path / "registry"))


@pytest.fixture
def registry(place: Path) -> Iterator[Registry]:
    """`place`, opened."""
    with Registry(place) as opened:
        yield opened


def test_switches_and_rollbacks_under_load_drop_and_mix_nothing(
    registry: Registry, truth: Truth, tmp_path: Path
) -> None:
    done = switches_under_load(registry, truth, tmp_path / "log", SWITCHES, SWITCHES // 4)
    assert done.wrong == [] and done.broken == []
    assert set(done.answered) == set(truth.vectors) and sum(done.answered.values()) > 5 * SWITCHES


def threads(service: Any) -> int:
    """Return how many threads a process has."""
    return len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))


def opened(service: Any, name: str) -> int:
    """Return how many files whose path has a name in it a process has open."""
    found = 0
    for path in Path(f"/proc/{service.process.pid}/fd").iterdir():
        try:
            found += name in str(path.readlink())
        except FileNotFoundError:
            continue  # closed just now
    return found


def test_nothing_is_left_of_what_served(registry: Registry, place: Path, truth: Truth, tmp_path: Path) -> None:
    with serving(SPEC, place, tmp_path / "log", "--collection", COLLECTION) as service, Clients(service.port, truth, 2):
        seen = []
        for turn in range(30):
            wanted = 1 + (turn + 1) % 3
            to(registry, wanted)
            service.until(lambda about, wanted=wanted: about["version"] == f"words@{wanted}")
            # One that serves and one that is let go of: a side's worker, two searchers, the ledger each of them opens.
            seen.append((threads(service), opened(service, "/indexes/")))
        until(lambda: opened(service, "/indexes/"), lambda n: n <= 12)
    least = [min(column) for column in zip(*seen[:6], strict=True)]
    most = [max(column) for column in zip(*seen[-10:], strict=True)]
    assert most[0] <= least[0] + 8 and most[1] <= 2 * max(12, least[1]), seen


def test_a_request_keeps_its_release_and_nothing_else_does(registry: Registry, truth: Truth) -> None:
    from fastness.serving.service import Service, Settings

    known: list[weakref.ref[Any]] = []

    def alive() -> int:
        return sum(ref() is not None for ref in known)

    async def main() -> list[int]:
        service, counted = Service(registry, Settings("words", "production", COLLECTION), Telemetry(None)), []
        for watch in await service.start():
            watch.cancel()
        live = service.live
        for turn in range(30):
            with live.held() as old:
                to(registry, 1 + (turn + 1) % 3)
                await live.look()
                assert live.now is not None and live.now is not old
                known.append(weakref.ref(live.now))
                assert alive() == min(2, turn + 1)  # of the first nobody keeps count
                found = await old.side("text", None).embed(truth.probes, 60)  # as if nothing had happened
                np.testing.assert_allclose(found, truth.vectors[old.version], atol=1e-5)
                assert old.search is not None
                hits = await asyncio.to_thread(old.search.find, found, 3, None)
                assert [[hit.id for hit in row] for row in hits] == truth.nearest[old.version]
                assert old.index == truth.index[old.version]
            while live._closing:
                await asyncio.sleep(0.01)
            del old
            assert alive() == 1
            counted.append(sum(not thread.name.startswith("asyncio") for thread in threading.enumerate()))
        await service.stop([])
        return counted

    counted = asyncio.run(main())
    gc.collect()
    assert alive() == 0 and max(counted[-10:]) <= max(counted[:10]), counted


@pytest.mark.parametrize("moved", [lambda registry: to(registry, 1), lambda registry: to(registry, 3)])
def test_what_is_rolled_back_while_it_loads_is_not_put_in_place(
    registry: Registry, truth: Truth, moved: Callable[[Registry], object]
) -> None:
    from fastness.serving.service import Service, Settings

    loaded: list[Any] = []

    async def main() -> None:
        service = Service(registry, Settings("words", "production", COLLECTION), Telemetry(None))
        for watch in await service.start():
            watch.cancel()
        live, really = service.live, service.live._load

        def load(wanted: Any) -> Any:
            loaded.append(really(wanted))
            moved(registry)
            return loaded[-1]

        live._load, before = load, live.now
        to(registry, 2)
        await live.look()
        assert live.now is before and before is not None and before.version == "words@1"
        with pytest.raises(Failure, match="serves no more"):
            await loaded[0].side("text", None).embed(["red"], 60)
        found = await before.side("text", None).embed(truth.probes, 60)
        np.testing.assert_allclose(found, truth.vectors["words@1"], atol=1e-5)
        live._load = really
        await live.look()
        assert live.now is not None and live.trouble is None
        assert live.now.version == str(registry.find("words@production"))
        await service.stop([])

    asyncio.run(main())


def test_the_first_release_is_put_in_place_whatever_the_alias_names_by_then(registry: Registry) -> None:
    from fastness.serving.service import Service, Settings

    async def main() -> None:
        service = Service(registry, Settings("words", "production", COLLECTION), Telemetry(None))
        really = service.live._load

        def load(wanted: Any) -> Any:
            to(registry, 2)
            return really(wanted)

        service.live._load = load
        watches = await service.start()  # there is something to serve until the next look
        assert service.live.now is not None and service.live.now.version == "words@1"
        await service.stop(watches)

    asyncio.run(main())


def _cut_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _graph_that_is_none(export: Path) -> None:
    """Spoil a graph so that its hash is right."""
    about, good = export / "export.json", signature.sha256(export / "encoder.onnx")
    _cut_file(export / "encoder.onnx")
    about.write_text(about.read_text().replace(good, signature.sha256(export / "encoder.onnx")))


DAMAGED: list[tuple[Callable[[Path], object], str]] = [
    (spoiled, "gives other vectors here than where it was made: cosine -1.0"),
    (lambda export: (export / "sample.npz").unlink(), "has no sample to prove it by"),
    (lambda export: _cut_file(export / "sample.npz"), "sample.npz"),
    (lambda export: (export / "parity.json").unlink(), "parity.json: cannot be read"),
    (lambda export: _cut_file(export / "encoder.onnx"), "encoder.onnx: was changed after the export was made"),
    (_graph_that_is_none, "words@"),
    (shutil.rmtree, "has no export to serve"),
]
"""What was wrong with a version's export when it was added, and what is said of it."""


def _add_damaged(registry: Registry, damage: Callable[[Path], object], copy: Path) -> Version:
    """Add words@2 as it is after a damage, with the same index."""
    shutil.copytree(registry.pull("words@2"), copy)
    damage(copy / "exports" / "onnx")
    version, index = registry.add(copy, "words"), indexed(registry, "words", 2, COLLECTION)
    assert index is not None
    same = {key: value for key, value in vars(index).items() if key not in ("id", "at", "number")}
    recorded(registry, number=version.number, **same)
    return version


def _file_that_was_changed_in_the_store(registry: Registry, place: Path) -> Callable[[], object]:
    shutil.rmtree(registry.pull("words@2"))
    digest, _ = registry.files(registry.find("words@2"))["exports/onnx/encoder.onnx"]
    (path,) = (place / "store").rglob(digest)
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    return lambda: path.write_bytes(content)


def _index_of_another_encoder(registry: Registry, place: Path) -> Callable[[], object]:
    mine, other = (_folder(place, number) for number in (2, 3))
    mine.rename(place / "mine")
    shutil.copytree(other, mine)
    return lambda: (shutil.rmtree(mine), (place / "mine").rename(mine))


def _no_index_where_it_was(registry: Registry, place: Path) -> Callable[[], object]:
    mine, kept = _folder(place, 2), place / "kept"
    mine.rename(kept)
    return lambda: kept.rename(mine)


def _folder(place: Path, number: int) -> Path:
    """Return the folder of a version's index."""
    (path,) = (p for p in (place / "indexes" / COLLECTION).glob(f"words-{number}-*") if p.is_dir())
    return path


TROUBLES: list[tuple[Callable[[Registry, Path], Callable[[], object]], str]] = [
    (_file_that_was_changed_in_the_store, "was changed in the store"),
    (_index_of_another_encoder, "was made by another encoder"),
    (_no_index_where_it_was, "indexes/shop/words-2-"),
]
"""What may happen to a version that is good, and what is said of it until that is mended."""


def test_what_cannot_serve_leaves_the_old_one_serving_until_it_is_mended(
    registry: Registry, place: Path, truth: Truth, tmp_path: Path
) -> None:
    with (
        serving(SPEC, place, tmp_path / "log", "--collection", COLLECTION) as service,
        Clients(service.port, truth, 1) as clients,
    ):
        before = threads(service)

        def refused(number: int, said: str, failures: int) -> None:
            to(registry, number)
            about = service.until(lambda about: about["trouble"])
            assert said in about["trouble"] and "\n" not in about["trouble"], about
            assert (about["version"], about["wanted"]) == ("words@1", f"words@{number}")
            assert service.metric("fastness_behind") == 1 and service.ask("/readyz").json["behind"] is True
            assert service.metric("fastness_switches_total", result="failed") > failures
            clients.progress()

        def served(number: int) -> None:
            about = service.until(lambda about: about["version"] == f"words@{number}" and not about["trouble"])
            assert about["wanted"] is None and service.metric("fastness_behind") == 0

        for failures, (damage, said) in enumerate(DAMAGED):
            version = _add_damaged(registry, damage, tmp_path / f"copy {failures}")
            refused(version.number, said, failures)
            to(registry, 1)
            served(1)
        for failures, (spoil, said) in enumerate(TROUBLES, len(DAMAGED)):
            mend = spoil(registry, place)
            try:
                refused(2, said, failures)
            finally:
                mend()
            served(2)
            to(registry, 1)
            served(1)
        until(lambda: threads(service), lambda n: n <= before + 4)  # what failed to load has left none
    assert clients.wrong == []


def test_a_version_waits_for_its_index(registry: Registry, place: Path, words: list[Made], tmp_path: Path) -> None:
    other = shutil.copytree(words[1].bundle, tmp_path / "other")
    (other / "cards").mkdir()
    (other / "cards" / "card.md").write_text("another version")
    version = registry.add(other, "words")
    with serving(SPEC, place, tmp_path / "log", "--collection", COLLECTION) as service:
        to(registry, version.number)
        about = service.until(lambda about: about["trouble"])
        assert f"fastness index rebuild {COLLECTION} {version}" in about["trouble"] and about["version"] == "words@1"
        assert service.metric("fastness_behind") == 1
        made = rebuild(registry, str(version), collection=COLLECTION)
        about = service.until(lambda about: about["version"] == str(version))
        assert (about["index"], about["trouble"], about["items"]) == (str(made), None, 240)
        # Items that have come are another index of the very version that serves: it is taken up as well.
        more = tmp_path / "more.csv"
        more.write_text(words[1].data.read_text() + "\nred wine rose,red,999")
        newer = rebuild(registry, str(version), more, collection=COLLECTION, **words[1].columns)
        about = service.until(lambda about: about["index"] == str(newer))
        assert about["version"] == str(version) and about["items"] == 241
        found = service.ask("/v1/search", {"input": "red wine rose", "k": 1, "where": "price > 900"}).json
        assert found["index"] == str(newer) and found["results"][0][0]["metadata"]["price"] == 999


def test_an_alias_that_is_removed_and_a_registry_that_is_away_serve_on(
    registry: Registry, place: Path, truth: Truth, tmp_path: Path
) -> None:
    with (
        serving(SPEC, place, tmp_path / "log", "--collection", COLLECTION) as service,
        Clients(service.port, truth, 1) as clients,
    ):
        registry.remove("words", "production", why=YES)
        about = service.until(lambda about: about["trouble"])
        assert about["trouble"] == "words@production: names nothing" and about["version"] == "words@1"
        assert service.metric("fastness_behind") == 1
        to(registry, 1)
        service.until(lambda about: about["trouble"] is None)
        registry.close()
        spoil = {path: path.read_bytes() for path in place.glob("registry.db*")}
        with sqlite3.connect(place / "registry.db") as connection:
            connection.execute("drop table aliases")
        about = service.until(lambda about: about["trouble"])
        assert "no such table" in about["trouble"] and about["version"] == "words@1"
        clients.progress()
        connection.close()
        _restore(place, spoil)
        service.until(lambda about: about["trouble"] is None)
    assert clients.wrong == [] and set(clients.answered) == {"words@1"}


def _restore(place: Path, kept: dict[Path, bytes]) -> None:
    """Bring a SQLite registry back while others have it open: by SQLite's own backup."""
    copy = place.parent / "copy"
    copy.mkdir()
    for path, content in kept.items():
        (copy / path.name).write_bytes(content)
    source, target = sqlite3.connect(copy / "registry.db"), sqlite3.connect(place / "registry.db")
    source.backup(target)
    source.close()
    target.close()


def test_a_postgresql_that_stops_is_waited_for(words: list[Made], tmp_path: Path) -> None:
    import pgserver

    data = tmp_path / "pg"
    running = pgserver.get_server(data, cleanup_mode="stop")
    address = database(running.get_uri())
    with Registry(address, str(tmp_path / "kept")) as registry:
        for one in words[:2]:
            version = registry.add(one.bundle, "words")
            options = {"collection": COLLECTION, "to": tmp_path / "indexes"}
            rebuild(registry, str(version), one.data, **options, **one.columns)
        to(registry, 1)
        truth = Truth.of(registry, "words", sentences(4, seed=6))
    with (
        serving(SPEC, address, tmp_path / "log", "--collection", COLLECTION) as service,
        Clients(service.port, truth, 1) as clients,
    ):
        with Registry(address) as registry:
            to(registry, 2)
        service.until(lambda about: about["version"] == "words@2")
        running.cleanup()
        about = service.until(lambda about: about["trouble"])
        assert about["version"] == "words@2" and "\n" not in about["trouble"]
        clients.progress(20)
        running = pgserver.get_server(data, cleanup_mode="stop")
        service.until(lambda about: about["trouble"] is None)
        with Registry(address) as registry:
            to(registry, 1)
        service.until(lambda about: about["version"] == "words@1")
    running.cleanup()
    assert clients.wrong == [] and set(clients.answered) == {"words@1", "words@2"}


def test_a_killed_service_serves_what_the_alias_names_when_it_comes_back(
    registry: Registry, truth: Truth, tmp_path: Path
) -> None:
    done = killed_services(registry, truth, tmp_path / "log", KILLS)
    assert done.wrong == [] and done.broken == []


def test_a_killed_rebuild_disturbs_nothing_that_serves(
    registry: Registry, words: list[Made], truth: Truth, tmp_path: Path
) -> None:
    done = killed_rebuilds(registry, words[0], truth, tmp_path / "log", KILLS)
    assert done.wrong == [] and done.broken == [] and set(done.answered) == {"words@1"}


def test_a_killed_writer_loses_nothing_and_leaves_the_alias_at_what_loads(
    registry: Registry, words: list[Made], tmp_path: Path
) -> None:
    done = killed_writers(registry, words[0], tmp_path / "log", KILLS)
    assert done.broken == [] and done.times["acknowledged"] > 0


def test_a_service_on_postgresql_follows_its_alias(words: list[Made], server: str, tmp_path: Path) -> None:
    address = database(server)
    with Registry(address, str(tmp_path / "kept")) as registry:
        for one in words[:2]:
            version = registry.add(one.bundle, "words")
            to_server = f"{address}&table=shop" if "?" in address else f"{address}?table=shop"
            rebuild(registry, str(version), one.data, collection=COLLECTION, to=to_server, **one.columns)
        to(registry, 1)
        truth = Truth.of(registry, "words", sentences(6, seed=7))
        with (
            serving(SPEC, address, tmp_path / "log", "--collection", COLLECTION) as service,
            Clients(service.port, truth, 2) as clients,
        ):
            for turn in range(6):
                to(registry, 2 - turn % 2)
                service.until(lambda about, turn=turn: about["version"] == f"words@{2 - turn % 2}")
                clients.progress()
    assert clients.wrong == [] and set(clients.answered) == set(truth.vectors)


def test_what_nothing_can_be_served_of_is_one_line(made: Path, tmp_path: Path, fastness: Any) -> None:
    for spec, words, said in (
        ("words@nowhere", (), "words@nowhere: names nothing"),
        ("none@production", (), "none@production: names nothing"),
        ("words@1", (), "a service follows an alias"),
        ("words", (), "a service follows an alias"),
        (SPEC, ("--collection", "nothing"), "collection nothing has no index by it yet"),
        (SPEC, ("--form", "openvino"), "--form openvino: this version has onnx"),
    ):
        ended = fastness("serve", spec, "--registry", made, "--port", 0, *words)
        assert ended.status in (1, 2) and ended.out == "" and said in ended.err, ended
        last = [line for line in ended.err.splitlines() if not line.startswith("{")]
        assert len(last) == 1 and last[0].startswith("fastness: "), ended
    assert fastness("serve", SPEC, "--registry", tmp_path / "nowhere").err.count("\n") == 1
    assert np.all([path.exists() for path in (made,)]) and not (tmp_path / "nowhere").exists()
