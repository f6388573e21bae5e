"""A registry of an earlier version, with all that is in it, is brought up to date; so is its backup."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import fastness as fs
from conftest import database
from fastness.registry import Registry, migrations
from fastness.registry.backup import backup, restore
from fastness.registry.indexes import indexed, recorded
from fastness.registry.keys import digests, issue, keys
from fastness.registry.moves import Judged
from fastness.registry.tables import REVISION, aliases, moves, versions
from fastness.registry.target import target

YES = "it is a test"
BUILT = {"kind": "flat", "items": 3, "data": "/data", "columns": {"label": "kind"}, "fingerprint": "f" * 64}


@pytest.fixture
def filled(make: Callable[[str], Path], tmp_path: Path) -> Iterator[Registry]:
    """Yield a registry of today with versions, moves of every kind, and what a gate saw."""
    opened = Registry(tmp_path / "today")
    for text in range(3):
        opened.add(make(f"v{text}"), "photos", note=f"note {text}")
    opened.add(tmp_path / "bundle-v0", "words")
    manifest = opened.find("photos@1").manifest
    gate = Judged(True, "fine", manifest, None, {"rules": 1}, {"numbers.json": b"[1, 2]"})
    opened.promote("photos@1", "production", why=YES, gate=gate)
    opened.promote("photos@2", "production", why=YES, override=True)
    refused = Judged(False, "worse", opened.find("photos@3").manifest, 2, {}, {})
    with pytest.raises(fs.GateRefused):
        opened.promote("photos@3", "production", why=YES, gate=refused)
    opened.rollback("photos", "production", why="back")
    opened.promote("words@1", "canary", why=YES, override=True)
    opened.remove("words", "canary", why="over")
    yield opened
    opened.close()


def raw(address: str) -> sa.Engine:
    """Return a registry's database without the registry."""
    if "://" in address:
        return sa.create_engine(address.replace("postgresql:", "postgresql+psycopg:"))
    return sa.create_engine(f"sqlite:///{address}/registry.db")


def first_revision(address: str, filled: Registry) -> None:
    """Make a database as the first migration leaves it, with the rows of a registry put in by hand."""
    from alembic import command
    from alembic.config import Config

    if "://" not in address:
        Path(address).mkdir()
    with filled.database.reading() as connection:
        rows = {t: [dict(row._mapping) for row in connection.execute(sa.select(t))] for t in (versions, moves, aliases)}
    engine = raw(address)
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        command.upgrade(config, "0001")
        there = set(sa.inspect(connection).get_table_names())
        assert there == {"about", "versions", "moves", "aliases", "uploads", "alembic_version"}
        connection.execute(sa.text("insert into about values ('store', :store)"), {"store": filled.store.url})
        for table, listed in rows.items():
            for number, row in enumerate(listed, 1):
                if "id" in row:  # numbered by the database itself, so that it goes on counting
                    assert row.pop("id") == number
                connection.execute(table.insert().values(**row))
    engine.dispose()


def test_what_the_first_migration_made_is_brought_up_to_date(
    address: str, filled: Registry, tmp_path: Path, fastness
) -> None:
    first_revision(address, filled)
    with pytest.raises(fs.BadInput, match="first run: fastness registry upgrade"):
        Registry(address)
    upgraded = fastness("registry", "upgrade", "--registry", address)
    assert upgraded.status == 0 and upgraded.out.strip().endswith(f"is at revision {REVISION}"), upgraded.err
    assert fastness("registry", "upgrade", "--registry", address).status == 0
    with Registry(address) as registry:
        assert registry.versions() == filled.versions() and registry.log() == filled.log()
        for name in ("photos", "words"):
            for at in (None, *(move.at for move in filled.log())):
                assert registry.serving(name, at) == filled.serving(name, at)
        assert registry.find("photos@production") == filled.find("photos@1")
        out = registry.pull("photos@production", tmp_path / "out")
        assert fs.load(out).id == filled.find("photos@1").bundle
        gate = registry.log()[-1].gate
        assert gate is not None and registry.store.read(gate["evidence"]["numbers.json"]) == b"[1, 2]"

        for statement in (moves.update().values(by="x"), moves.delete(), versions.delete()):
            with pytest.raises(fs.Failure, match="are never changed"), registry.database.writing() as connection:
                connection.execute(statement)
        move = registry.promote("photos@3", "production", why=YES, override=True)
        assert move.id == len(filled.log()) + 1
        key, _ = issue(registry, "shop")
        assert set(digests(registry)) == {key.id}
        row = recorded(registry, name="photos", number=3, collection="shop", address="/elsewhere/index", **BUILT)
        found = target(registry, "photos", "production", "shop")
        assert found is not None and (found.version.number, found.move, found.index) == (3, move.id, row)


def test_an_upgrade_that_fails_changes_nothing(address: str, filled: Registry) -> None:
    first_revision(address, filled)
    engine = raw(address)
    with engine.begin() as connection:
        connection.execute(sa.text("create table indexes (id integer)"))  # in the way of the second table
    with pytest.raises(fs.Failure, match="already exists"):
        Registry(address, upgrade=True)
    with engine.begin() as connection:
        assert not sa.inspect(connection).has_table("keys")
        assert connection.execute(sa.text("select version_num from alembic_version")).scalar() == "0001"
        connection.execute(sa.text("drop table indexes"))
    engine.dispose()
    with Registry(address, upgrade=True) as registry:
        assert registry.log() == filled.log() and keys(registry) == []


def test_indexes_are_written_down_once_and_stay(registry: Registry, tmp_path: Path) -> None:
    place = str((registry.folder or tmp_path) / "indexes" / "shop" / "x")
    first = recorded(registry, name="a", number=1, collection="shop", address=place, by="ann", **BUILT)
    assert str(first) == f"shop#{first.id}" and first.address == place and first.by == "ann" and first.form is None
    assert recorded(registry, name="a", number=1, collection="shop", address=place, **BUILT) == first
    more = {"name": "a", "collection": "shop", **BUILT}
    second = recorded(registry, number=1, address="postgresql://u@h/d?table=t", form="onnx", **more)
    third = recorded(registry, number=2, address=place, **more)
    other = recorded(registry, number=1, address=place, **{**more, "collection": "archive"})
    assert first.id < second.id < third.id < other.id
    assert indexed(registry, "a", 1, "shop") == second and indexed(registry, "a", 2, "shop") == third
    assert indexed(registry, "a", None, "shop") == third and indexed(registry, "b", None, "shop") is None
    from fastness.registry.tables import indexes

    for statement in (indexes.update().values(items=4), indexes.delete()):
        with pytest.raises(fs.Failure, match="indexes are never changed"), registry.database.writing() as connection:
            connection.execute(statement)
    backup(registry, tmp_path / "backup")
    with Registry(tmp_path / "other") as restored:
        assert restore(restored, tmp_path / "backup").indexes == 4
        assert indexed(restored, "a", 1, "shop") == second
        again = recorded(restored, number=3, address=place, **more)
        assert again.id == other.id + 1


def test_a_backup_of_the_first_revision_is_restored(filled: Registry, tmp_path: Path, server: str) -> None:
    kept = tmp_path / "backup"
    backup(filled, kept)
    about = json.loads((kept / "backup.json").read_text())
    for name, digest in about["tables"].items():  # as they were called once
        (kept / f"{name}-{digest}.jsonl").rename(kept / f"{name}.jsonl")
    for name in ("keys", "indexes"):
        (kept / f"{name}.jsonl").unlink()
        del about["tables"][name]
    (kept / "backup.json").write_text(json.dumps(about))
    with Registry(tmp_path / "none") as none, pytest.raises(fs.BadInput, match="is no whole backup"):
        restore(none, kept)
    (kept / "backup.json").write_text(json.dumps({**about, "revision": "9999"}))
    with Registry(tmp_path / "none") as none, pytest.raises(fs.BadInput, match="later version of fastness"):
        restore(none, kept)
    (kept / "backup.json").write_text(json.dumps({**about, "revision": "0001"}))
    for address in (str(tmp_path / "other"), database(server)):
        with Registry(address, str(tmp_path / f"store-{len(address)}")) as other:
            assert restore(other, kept).versions == 4
            assert other.versions() == filled.versions() and other.log() == filled.log() and keys(other) == []
            issue(other, "shop")
            row = recorded(other, name="photos", number=1, collection="shop", address="/elsewhere/index", **BUILT)
            found = target(other, "photos", "production", "shop")
            assert found is not None and found.index == row
