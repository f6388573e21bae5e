"""Keys: a token is told once, only its hash is kept, and what was revoked stays so. On SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

import fastness as fs
from conftest import database
from fastness.registry import Registry
from fastness.registry.backup import backup, restore
from fastness.registry.keys import SCOPES, digests, issue, keys, revoke
from fastness.registry.tables import keys as table
from fastness.registry.tables import metadata

TOKEN = re.compile("fst_([0-9a-f]{16})_([0-9a-f]{64})")


def everything(registry: Registry) -> str:
    """Return all that the database says, as text."""
    with registry.database.reading() as connection:
        return repr([connection.execute(sa.select(t)).all() for t in metadata.sorted_tables])


def test_a_token_is_told_once_and_kept_nowhere(registry: Registry, tmp_path: Path) -> None:
    told = {}
    for who, more in (("shop", {}), ("studio", {"scopes": ("search", "embed"), "rate": 2.5, "by": "ann"})):
        key, token = issue(registry, who, **more)
        found = TOKEN.fullmatch(token)
        assert found is not None and found[1] == key.id
        told[key.id] = (key, found[2])
    first, second = (key for key, _ in told.values())
    assert (first.who, first.scopes, first.rate, first.revoked) == ("shop", SCOPES, None, None)
    assert (second.scopes, second.rate, second.by) == (("embed", "search"), 2.5, "ann")
    assert keys(registry) == [first, second]
    assert digests(registry) == {i: (key, hashlib.sha256(s.encode()).digest()) for i, (key, s) in told.items()}

    backup(registry, tmp_path / "backup")
    places = [tmp_path / "backup", *([registry.folder] if registry.folder else [])]
    files = b"".join(path.read_bytes() for place in places for path in place.rglob("*") if path.is_file())
    for identity, (_, secret) in told.items():
        assert identity in everything(registry) and identity.encode() in files
        assert secret not in everything(registry) and secret.encode() not in files


def test_a_revoked_key_is_gone_and_stays_so(registry: Registry) -> None:
    (one, _), (two, _) = issue(registry, "one"), issue(registry, "two")
    gone = revoke(registry, one.id, by="ann")
    assert gone.revoked is not None and gone.revoked_by == "ann" and gone.at == one.at
    assert revoke(registry, one.id, by="bob") == gone and keys(registry) == [gone, two]
    assert set(digests(registry)) == {two.id}
    with pytest.raises(fs.BadInput, match="no key 'nobody' here"):
        revoke(registry, "nobody")
    forbidden = [table.delete(), table.update().where(table.c.id == one.id).values(revoked=None)]
    changes = {"id": "x", "who": "x", "scopes": "x", "rate": 1.0, "sha256": "x", "by": "x", "at": 1}
    forbidden += [table.update().where(table.c.id == two.id).values(**{name: x}) for name, x in changes.items()]
    for statement in forbidden:
        with pytest.raises(fs.Failure, match="keys are never changed"), registry.database.writing() as connection:
            connection.execute(statement)
    assert keys(registry) == [gone, two]


@pytest.mark.parametrize(
    ("who", "more", "said"),
    [
        (" ", {}, "say whose"),
        ("shop", {"scopes": ("embed", "all")}, "no scope 'all'; known: embed, search, classify, metrics"),
        ("shop", {"scopes": ()}, "without a scope"),
        ("shop", {"rate": 0.0}, "more than 0"),
        ("shop", {"rate": float("nan")}, "more than 0"),
        ("shop", {"rate": float("inf")}, "more than 0"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_issued(tmp_path: Path, who: str, more: dict, said: str) -> None:
    with Registry(tmp_path / "registry") as registry:
        with pytest.raises(fs.BadInput, match=said):
            issue(registry, who, **more)
        assert keys(registry) == []


def test_a_backup_carries_keys(registry: Registry, tmp_path: Path, server: str) -> None:
    one, _ = issue(registry, "one", rate=0.1)
    revoke(registry, one.id)
    issue(registry, "two", scopes=("metrics",))
    made = backup(registry, tmp_path / "backup")
    assert (made.keys, made.indexes) == (2, 0)
    for address in (str(tmp_path / "other"), database(server)):
        with Registry(address, str(tmp_path / f"store-{len(address)}")) as other:
            assert restore(other, tmp_path / "backup") == made
            assert keys(other) == keys(registry) and digests(other) == digests(registry)
            with pytest.raises(fs.BadInput, match="is not empty"):
                restore(other, tmp_path / "backup")


def test_the_command_line(fastness, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry"):
        pass
    assert "no key here" in fastness("registry", "key", "list").out
    made = fastness("registry", "key", "issue", "shop", "--scope", "embed,search", "--rate", "100")
    token = TOKEN.fullmatch(made.out.strip())  # alone on stdout, to be piped
    assert made.status == 0 and token is not None and "shop: embed, search, 100 items a second" in made.err
    other = json.loads(fastness("registry", "key", "issue", "studio", "--scope", "metrics", "--json").out)
    assert TOKEN.fullmatch(other["token"]) and other["scopes"] == ["metrics"] and other["rate"] is None
    assert fastness("registry", "key", "issue", "x", "--scope", "everything").status == 2
    assert fastness("registry", "key", "revoke", token[1]).status == 0
    assert fastness("registry", "key", "revoke", "nobody").status == 2
    listed = fastness("registry", "key", "list")
    assert f"{token[1]}  shop" in listed.out and listed.out.count("revoked at") == 1 and token[2] not in listed.out
    told = json.loads(fastness("registry", "key", "list", "--json").out)["keys"]
    assert [(key["who"], key["revoked"] is None) for key in told] == [("shop", False), ("studio", True)]
    assert all("token" not in key and "sha256" not in key for key in told)
