"""A registry while others write, and after harm: nothing that a row speaks of is removed, and what is lost is named.

All of it on SQLite and on a real PostgreSQL.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import fastness as fs
from conftest import content
from fastness.core import files
from fastness.registry import Registry
from fastness.registry.backup import Backup, backup, restore
from fastness.registry.collect import collect
from fastness.registry.moves import Judged
from fastness.registry.store import Lost
from fastness_runtime import signature

YES = "it is a test"


def kept(registry: Registry, digest: str) -> Path:
    """Return where a store in a folder keeps a file."""
    return next(Path(registry.store.url).rglob(digest))


def flipped(path: Path) -> None:
    """Change the last byte of a file and leave its size as it is."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def test_what_is_added_while_it_is_collected_stays(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("one", "two"):
        registry.add(make(text), "photos")
    digests = registry.store.digests

    def slow() -> Iterator[tuple[str, int]]:
        """List the store while others add: a new version, one that was given up just now, and what a gate saw."""
        monkeypatch.undo()
        registry.add(make("three"), "words")
        assert registry.add(tmp_path / "bundle-one", "photos").number == 1
        seen = Judged(True, "fine", registry.find("photos@2").manifest, None, {}, {"numbers.json": b"[1]"})
        registry.promote("photos@2", "production", why=YES, gate=seen)
        yield from digests()

    monkeypatch.setattr(registry.store, "digests", slow)
    found = collect(registry, newest=1, days=0)
    assert ([str(version) for version in found.versions], found.files, found.left) == (["photos@1"], 0, 0)
    for spec, text in (("photos@1", "one"), ("photos@2", "two"), ("words@1", "three")):
        assert content(registry.pull(spec, tmp_path / spec)) == content(tmp_path / f"bundle-{text}")
    gate = registry.log()[0].gate
    assert gate is not None and registry.store.read(gate["evidence"]["numbers.json"]) == b"[1]"


def test_a_bundle_under_two_names_is_needed_by_either(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path
) -> None:
    for text, name in (("one", "photos"), ("two", "photos"), ("one", "words")):
        registry.add(tmp_path / "bundle-one" if name == "words" else make(text), name)
    dry = collect(registry, newest=1, days=0, dry=True)
    found = collect(registry, newest=1, days=0)
    assert [str(version) for version in found.versions] == ["photos@1"] and dry.files == found.files == 0
    assert content(registry.pull("words@1", tmp_path / "out")) == content(tmp_path / "bundle-one")


def test_a_store_that_holds_versions_is_not_moved(make: Callable[[str], Path], tmp_path: Path) -> None:
    place, own = tmp_path / "registry", str(tmp_path / "registry" / "store")
    with Registry(place):
        pass
    with Registry(place) as registry:
        registry.add(make("one"), "photos")
    for elsewhere in (str(tmp_path / "elsewhere"), "memory://elsewhere"):
        with pytest.raises(fs.BadInput, match=f"keeps its files in {own}, not in .*elsewhere; leave --store out"):
            Registry(place, elsewhere)
    for said in (None, own, None):
        with Registry(place, said) as registry:
            assert registry.store.url == own
            registry.pull("photos@1", tmp_path / uuid.uuid4().hex)
    with Registry(tmp_path / "empty"):
        pass
    with Registry(tmp_path / "empty", str(tmp_path / "told")) as registry:  # nothing lies anywhere yet
        assert registry.store.url == str(tmp_path / "told")


def test_a_name_that_means_something_else_elsewhere_is_not_taken(
    registry: Registry, make: Callable[[str], Path]
) -> None:
    folder = make("one")
    for name in ("a:b.json", "a\\b.json", "a\nb.json", "a\x07.json", "\udcff.json"):
        odd = folder / "cards" / name
        odd.write_text("{}")
        with pytest.raises(fs.BadInput, match="means something else elsewhere; rename the file") as told:
            registry.add(folder, "photos")
        assert str(told.value).isprintable() and repr(f"cards/{name}") in str(told.value)
        odd.unlink()
    assert registry.versions() == [] and not list(registry.store.digests())
    assert registry.add(folder, "photos").number == 1


def test_a_name_that_was_taken_once_stops_neither_collecting_nor_a_backup(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("one")
    (folder / "cards" / "a:b.json").write_text("{}")
    with monkeypatch.context() as patch:
        patch.setattr(signature, "plain", lambda name: True)  # as an earlier fastness
        registry.add(folder, "photos")
    for text in ("two", "three"):
        registry.add(make(text), "words")
    with pytest.raises(fs.Failure, match="photos@1: its"):
        registry.pull("photos@1")
    everything = dict(registry.store.digests())
    found = collect(registry, newest=1, days=0)
    assert [str(version) for version in found.versions] == ["words@1"] and (found.files, found.unread) == (2, [])
    assert backup(registry, tmp_path / "backup").files == len(everything) - 2
    with Registry(tmp_path / "other", str(tmp_path / "others")) as other:
        assert restore(other, tmp_path / "backup").versions == 3
        assert dict(other.store.digests()) == dict(registry.store.digests())


@pytest.mark.parametrize("harm", [Path.unlink, flipped])
def test_a_list_of_files_that_is_lost_is_named_and_no_file_is_removed(
    registry: Registry,
    make: Callable[[str], Path],
    tmp_path: Path,
    harm: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for text in ("one", "two", "three"):
        registry.add(make(text), "photos")
    harm(kept(registry, registry.find("photos@2").manifest))
    before = dict(registry.store.digests())
    for dry in (True, False):
        caplog.clear()
        found = collect(registry, newest=2, days=0, dry=dry)
        assert [str(version) for version in found.versions] == ["photos@1"]
        assert (found.files, found.left, found.unread) == (0, 0, ["photos@2"])
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(said) == 1 and "list of files of photos@2 is lost" in said[0] and "add its bundle again" in said[0]
    assert dict(registry.store.digests()) == before

    with pytest.raises(fs.Failure, match=r"all is kept but what is lost of photos@2: .*add its bundle again") as told:
        backup(registry, tmp_path / "backup")
    assert "\n" not in str(told.value)
    with Registry(tmp_path / "other", str(tmp_path / "others")) as other:
        assert restore(other, tmp_path / "backup").versions == 3
        assert content(other.pull("photos@3", tmp_path / "out")) == content(tmp_path / "bundle-three")
        with pytest.raises(Lost, match="missing from the store"):
            other.pull("photos@2", tmp_path / "never")

    assert registry.add(tmp_path / "bundle-two", "photos").number == 2  # which mends it
    assert collect(registry, newest=2, days=0).files == 2
    assert content(registry.pull("photos@2", tmp_path / "mended")) == content(tmp_path / "bundle-two")
    assert backup(registry, tmp_path / "backup").versions == 3


def test_a_file_that_is_lost_is_named_by_the_backup_which_keeps_the_rest(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path
) -> None:
    versions = [registry.add(make(text), "photos") for text in ("one", "two")]
    flipped(kept(registry, registry.files(versions[0])["cards/card.md"][0]))
    with pytest.raises(fs.Failure, match=r"lost of photos@1: .* was changed in the store"):
        backup(registry, tmp_path / "backup")
    with Registry(tmp_path / "other", str(tmp_path / "others")) as other:
        restore(other, tmp_path / "backup")
        assert content(other.pull("photos@2", tmp_path / "out")) == content(tmp_path / "bundle-two")
        with pytest.raises(Lost):
            other.pull("photos@1", tmp_path / "never")


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_what_was_changed_in_the_store_is_mended_by_adding_it_again(
    make: Callable[[str], Path], tmp_path: Path, place: str
) -> None:
    whole = make("one")
    store = None if place == "folder" else f"memory://mended-{uuid.uuid4().hex}"
    with Registry(tmp_path / "registry", store) as registry:
        version = registry.add(whole, "photos")
        for digest in (version.manifest, *(digest for digest, _ in registry.files(version).values())):
            at = registry.store._place(digest)
            held = registry.store._fs.cat_file(at)
            registry.store._fs.pipe_file(at, held[:-1] + bytes([held[-1] ^ 1]))
            with pytest.raises(Lost, match="was changed in the store"):
                registry.pull("photos@1", tmp_path / "out")
            assert registry.add(whole, "photos") == version
            assert registry.store.read(digest) == held
        assert content(registry.pull("photos@1", tmp_path / "out")) == content(whole)


def test_what_was_damaged_in_the_cache_is_written_anew(registry: Registry, make: Callable[[str], Path]) -> None:
    whole = make("one")
    registry.add(whole, "photos")
    cached = registry.pull("photos@1")
    stated = cached.with_name(f"{cached.name}.json")
    weights = cached / "weights.safetensors"
    untouched = weights.stat().st_ino
    assert registry.pull("photos@1") == cached and weights.stat().st_ino == untouched
    harms: list[Callable[[], Any]] = [
        lambda: weights.write_bytes(b""),
        lambda: flipped(weights),
        lambda: (cached / "cards" / "card.md").unlink(),
        lambda: stated.write_text("{}"),
    ]
    for harm in harms:
        harm()
        assert content(registry.pull("photos@1")) == content(whole)
    Path(registry.store.url).rename(Path(registry.store.url).with_name("away"))
    assert content(registry.pull("photos@1")) == content(whole)  # nothing is wanted of the store
    flipped(weights)
    with pytest.raises(Lost, match="missing from the store"):
        registry.pull("photos@1")


def test_a_folder_is_on_the_disk_before_it_has_its_name(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(make("one"), "photos")
    flushed, fsync = set[int](), os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        flushed.add(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    folder = registry.pull("photos@1", tmp_path / "out")
    assert {path.stat().st_ino for path in folder.rglob("*") if path.is_file()} <= flushed


def test_a_backup_that_is_killed_leaves_the_earlier_one(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "backup"
    registry.add(make("one"), "photos")
    first = backup(registry, place)
    registry.add(make("two"), "photos")
    registry.promote("photos@2", "production", override=True, why=YES)
    tables = len(list(place.glob("*.jsonl")))

    def restored(name: str) -> tuple[Backup, int]:
        with Registry(tmp_path / name, str(tmp_path / f"{name}-store")) as other:
            found = restore(other, place)
            for version in other.versions():
                other.pull(str(version), tmp_path / f"{name}-{version}")
            return found, len(other.log())

    write, counted = files.atomic_path, 0

    def killed(path: Path) -> AbstractContextManager[Path]:
        nonlocal counted
        counted += 1
        if counted > after:
            raise KeyboardInterrupt
        return write(path)

    for after in (0, 1, tables):
        counted = 0
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(files, "atomic_path", killed)
            backup(registry, place)
        found, moved = restored(f"after-{after}")
        assert (found.versions, found.moves, moved) == (first.versions, 0, 0)
    assert backup(registry, place).moves == 1
    assert restored("whole")[0].versions == 2
    about = json.loads((place / "backup.json").read_text())
    meant = {f"{name}-{digest}.jsonl" for name, digest in about["tables"].items()}
    assert {path.name for path in place.iterdir()} == {"backup.json", "files", *meant}  # the earlier ones are gone
