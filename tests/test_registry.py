"""The registry: what was acknowledged is kept, an alias names whole versions alone, and history is not rewritten.

All of it on SQLite and on a real PostgreSQL.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

import fastness as fs
from conftest import content, database, fork
from fastness.registry import Registry, promotion
from fastness.registry.backup import backup, restore
from fastness.registry.collect import collect
from fastness.registry.mlflow import Sent, from_mlflow, to_mlflow
from fastness.registry.moves import Judged
from fastness.registry.says import moment, now, parsed_moment
from fastness.registry.tables import REVISION, metadata, moves, uploads, versions

YES = "it is a test"
POLICY = "rules: [{measure: knn.accuracy, drop: 0.3}, {measure: geometry.effective_rank, floor: 1.5}]"


def release(registry: Registry, make: Callable[[str], Path], number: int) -> None:
    """Add so many versions of ``photos``."""
    for text in range(number):
        registry.add(make(f"v{text}"), "photos")


def test_a_version_is_what_was_added(registry: Registry, make: Callable[[str], Path], tmp_path: Path) -> None:
    one, two = make("one"), make("two")
    first, second = registry.add(one, "photos", by="ann", note="the first"), registry.add(two, "photos")
    assert (first.number, first.by, first.note, second.number) == (1, "ann", "the first", 2)
    assert registry.add(one, "photos") == first and registry.add(one, "words").number == 1
    assert first.bundle == fs.load(one).id and first.bytes == sum(map(len, content(one).values()))
    assert content(registry.pull("photos@1", tmp_path / "out")) == content(one)
    assert registry.pull("photos@1") == registry.pull("photos@1") and content(registry.pull("photos@2")) == content(two)
    distinct = {*content(one).values(), *content(two).values()}
    assert sum(1 for _ in registry.store.digests()) == len(distinct) + 2  # and two lists of files
    with pytest.raises(fs.BadInput, match="no photos@3 here"):
        registry.find("photos@3")
    with pytest.raises(fs.BadInput, match="names: photos, words"):
        registry.find("phots@1")
    for spec in ("photos", "@1", "photos@", "photos@0", "photos@99999999999999999999", "photos@nowhere"):
        with pytest.raises(fs.BadInput, match=r"say which version|here; names: photos, words"):
            registry.find(spec)
    with pytest.raises(fs.BadInput, match="is there already"):
        registry.pull("photos@1", tmp_path / "out")


def test_what_was_changed_in_the_store_is_not_handed_out(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path
) -> None:
    version = registry.add(make("one"), "photos")
    digest, _ = registry.files(version)["cards/card.md"]
    path = next(Path(registry.store.url).rglob(digest))
    path.write_bytes(b"two")
    with pytest.raises(fs.Failure, match=f"{digest}: was changed in the store"):
        registry.pull("photos@1", tmp_path / "out")
    path.unlink()
    with pytest.raises(fs.Failure, match=f"{digest}: is missing from the store"):
        registry.pull("photos@1", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    registry.add(make("1"), "photos")  # mends nothing of another
    assert registry.add(tmp_path / "bundle-one", "photos") == version
    assert content(registry.pull("photos@1", tmp_path / "out")) == content(tmp_path / "bundle-one")


def test_half_a_bundle_or_a_name_that_is_none_is_not_taken(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = make("one")
    for name in ("", "Photos", "a b", "../x", "x" * 65, "-x"):
        with pytest.raises(fs.BadInput, match="is no name"):
            registry.add(whole, name)
    (whole / "leak").symlink_to("/etc/passwd")
    with pytest.raises(fs.BadInput, match="leak: is a link"):
        registry.add(whole, "photos")
    (whole / "leak").unlink()
    weights = whole / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(fs.BadInput, match=r"weights.safetensors: was changed"):
        registry.add(whole, "photos")
    with pytest.raises(fs.BadInput, match="no bundle here"):
        registry.add(tmp_path, "photos")
    registry.add(make("two"), "photos")
    for alias in ("", "3", "Prod", "a/b"):
        with pytest.raises(fs.BadInput, match="is no alias"):
            registry.promote("photos@1", alias, override=True, why=YES)
    assert len(registry.versions()) == 1 and registry.log() == []


def judged(registry: Registry, spec: str, passed: bool, against: int | None) -> Judged:
    """Return what a gate might have said."""
    manifest = registry.find(spec).manifest
    return Judged(passed, f"the gate says {passed}", manifest, against, {"rules": 1}, {"numbers.json": b"[1, 2]"})


@pytest.mark.parametrize("passed", [True, False])
def test_a_trial_ends_at_both_aliases_or_at_none(registry: Registry, make: Callable[[str], Path], passed: bool) -> None:
    release(registry, make, 3)
    registry.promote("photos@1", "production", override=True, why=YES)
    registry.promote("photos@3", "canary", override=True, why=YES)

    def end() -> None:
        said = judged(registry, "photos@2", passed, 1)
        registry.promote("photos@2", "production", why="tried", gate=said, leaving="canary")

    moves = registry.log()
    with pytest.raises(fs.Failure, match="photos@canary: is version 3 now"):
        end()
    assert registry.log() == moves
    registry.promote("photos@2", "canary", override=True, why=YES)
    with contextlib.nullcontext() if passed else pytest.raises(fs.GateRefused):
        end()
    assert (registry.now_at("photos", "production"), registry.now_at("photos", "canary")) == (1 + passed, None)
    left, move = registry.log(limit=2)
    assert move.what == ("promote" if passed else "refuse")
    assert (left.what, left.alias, left.why) == ("remove", "canary", "tried")


def test_nothing_serves_without_a_gates_yes_or_a_reason(registry: Registry, make: Callable[[str], Path]) -> None:
    release(registry, make, 3)
    with pytest.raises(fs.GateRefused, match="no gate has judged it"):
        registry.promote("photos@1", "production", why=YES)
    with pytest.raises(fs.BadInput, match="say why"):
        registry.promote("photos@1", "production", why=" ", override=True)
    assert registry.log() == [] and registry.serving("photos") == {}

    first = registry.promote(
        "photos@1", "production", why="go", by="ann", gate=judged(registry, "photos@1", True, None)
    )
    assert (first.what, first.number, first.before, first.override, first.by) == ("promote", 1, None, False, "ann")
    assert first.gate is not None and registry.store.read(first.gate["evidence"]["numbers.json"]) == b"[1, 2]"

    with pytest.raises(fs.GateRefused, match="the gate says False"):
        registry.promote("photos@2", "production", why="try", gate=judged(registry, "photos@2", False, 1))
    assert registry.find("photos@production").number == 1
    refused = registry.log("photos", "production")[0]
    assert (refused.what, refused.before, refused.number) == ("refuse", 1, 1)

    forced = registry.promote(
        "photos@2", "production", why="it hurries", gate=judged(registry, "photos@2", False, 1), override=True
    )
    assert forced.override and forced.gate is not None and not forced.gate["passed"]
    with pytest.raises(fs.BadInput, match="judged another version"):
        registry.promote("photos@3", "production", why="x", gate=judged(registry, "photos@1", True, 2))
    with pytest.raises(fs.Failure, match=r"is version 2 now, moved by .* not version 1 any more"):
        registry.promote("photos@3", "production", why="x", gate=judged(registry, "photos@3", True, 1))
    back = registry.rollback("photos", "production", why="it was bad")
    assert (back.what, back.number, back.before, back.override) == ("rollback", 1, 2, False)
    assert back.gate == {"earlier": first.id}
    with pytest.raises(fs.BadInput, match="an earlier version has not served there"):
        registry.rollback("photos", "production", why="further")
    with pytest.raises(fs.BadInput, match="number 3 has not served there"):
        registry.rollback("photos", "production", to=3, why="further")
    assert registry.rollback("photos", "production", to=2, why="forth").override
    registry.remove("photos", "production", why="over")
    assert registry.serving("photos") == {} and registry.now_at("photos", "production") is None
    assert registry.rollback("photos", "production", why="again").number == 2
    assert [move.what for move in registry.log("photos")][::-1] == [
        "promote", "refuse", "promote", "rollback", "rollback", "remove", "rollback"
    ]  # fmt: skip


STEPS = st.lists(st.one_of(st.integers(1, 4), st.just(0)), max_size=12)


@settings(max_examples=25)
@given(steps=STEPS)
def test_a_rollback_undoes_the_last_promotion_that_stands(steps: list[int], tmp_path_factory, bundle: Path) -> None:
    """0 is a rollback, another number a promotion; the naive model is a stack."""
    folder = tmp_path_factory.mktemp("model")
    stack: list[int] = []
    with Registry(folder / "registry") as registry:
        row = {"name": "a", "bundle": "b", "files": 0, "bytes": 0, "by": "", "note": "", "at": 0}
        with registry.database.writing() as connection:
            listed = [{**row, "number": number, "manifest": str(number)} for number in range(1, 5)]
            connection.execute(versions.insert(), listed)
        history = []
        for step in steps:
            if step:
                registry.promote(f"a@{step}", "x", override=True, why=YES)
                stack = [number for number in stack if number != step] + [step]
            elif len(stack) < 2:
                with pytest.raises(fs.BadInput, match="has not served there"):
                    registry.rollback("a", "x", why=YES)
                continue
            else:
                registry.rollback("a", "x", why=YES)
                stack.pop()
            assert registry.now_at("a", "x") == stack[-1]
            history.append((registry.log()[0].at, stack[-1]))
        for at, number in history:
            assert registry.serving("a", at)["x"].number == number
        if history:
            assert registry.serving("a", history[0][0] - 1) == {}
        assert [at for at, _ in history] == sorted({at for at, _ in history})


def test_history_is_not_rewritten(registry: Registry, make: Callable[[str], Path]) -> None:
    release(registry, make, 1)
    registry.promote("photos@1", "production", override=True, why=YES)
    forbidden = (
        moves.update().values(by="nobody"),
        moves.delete(),
        versions.delete(),
        versions.update().values(bundle="0" * 64),
    )
    for statement in forbidden:
        with pytest.raises(fs.Failure, match="are never changed"), registry.database.writing() as connection:
            connection.execute(statement)
    assert registry.log()[0].by != "nobody"


def test_moments_are_read_as_they_are_said(registry: Registry, make: Callable[[str], Path]) -> None:
    release(registry, make, 2)
    for number in (1, 2):
        registry.promote(f"photos@{number}", "production", override=True, why=YES)
    for move in registry.log():
        assert parsed_moment(moment(move.at)) == move.at
        assert registry.serving("photos", parsed_moment(moment(move.at)))["production"] == move
    assert parsed_moment("2026-05-01T02:00:00+02:00") == parsed_moment("2026-05-01")
    with pytest.raises(fs.BadInput, match="is no moment"):
        parsed_moment("last Tuesday")


def _race(address: str, number: int, folder: str) -> None:
    with Registry(address) as registry:
        (Path(folder) / f"ready-{number}").touch()
        while not (Path(folder) / "go").exists():
            time.sleep(0.001)
        try:
            registry.promote(f"photos@{number}", "production", override=True, why=YES, by=f"{number}", expected=None)
        except fs.Failure as error:
            (Path(folder) / f"lost-{number}").write_text(str(error))


def test_of_promoters_at_once_one_wins_and_the_others_are_told(
    address: str, make: Callable[[str], Path], tmp_path: Path
) -> None:
    with Registry(address, str(tmp_path / "kept") if "://" in address else None) as registry:
        release(registry, make, 4)
    folder = tmp_path / "race"
    folder.mkdir()
    running = [fork(_race, address, number, str(folder)) for number in range(1, 5)]
    while len(list(folder.glob("ready-*"))) < 4:
        time.sleep(0.01)
    (folder / "go").touch()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * 4
    with Registry(address) as registry:
        winner = registry.now_at("photos", "production")
        assert len(registry.log()) == 1
    told = sorted(folder.glob("lost-*"))
    assert len(told) == 3 and f"lost-{winner}" not in {path.name for path in told}
    assert all(f"is version {winner} now, moved by {winner} at" in path.read_text() for path in told)


def _write(address: str, folder: str, acknowledged: str) -> None:
    """Add and promote for ever; say what was acknowledged."""
    with Registry(address) as registry, Path(acknowledged).open("a") as said:
        for number in range(10_000):
            card = Path(folder) / "cards" / "card.md"
            card.write_text(f"{os.getpid()} {number}")
            version = registry.add(folder, "photos")
            print("add", version.number, version.manifest, file=said, flush=True)
            move = registry.promote(str(version), "production", override=True, why=YES)
            print("move", move.id, move.number, file=said, flush=True)


def test_a_writer_that_is_killed_loses_nothing_acknowledged(
    address: str, make: Callable[[str], Path], tmp_path: Path
) -> None:
    lots = np.random.default_rng(0)
    with Registry(address, str(tmp_path / "kept") if "://" in address else None):
        pass
    acknowledged = tmp_path / "said"
    for attempt in range(6):
        before = acknowledged.read_text() if acknowledged.exists() else ""
        process = fork(_write, address, str(make(f"{attempt}")), str(acknowledged))
        while not acknowledged.exists() or acknowledged.read_text() == before:
            time.sleep(0.002)
        time.sleep(float(lots.uniform(0, 0.15)))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with Registry(address) as registry:
            known = {version.number: version.manifest for version in registry.versions("photos")}
            past = {move.id: move.number for move in registry.log()}
            for line in acknowledged.read_text().splitlines():
                what, first, second = line.split()
                assert known[int(first)] == second if what == "add" else past[int(first)] == int(second)
            current = registry.find("photos@production")
            assert current.number == past[max(past)]
            folder = registry.pull("photos@production", tmp_path / f"pulled-{attempt}")
            assert fs.load(folder).id == current.bundle
    with Registry(address) as registry, registry.database.writing() as connection:
        connection.execute(uploads.update().values(at=0))  # as if the killed ones had begun long ago
    with Registry(address) as registry:
        collect(registry, newest=10**6)  # takes what no row speaks of
        for version in registry.versions():
            registry.pull(str(version))


def test_what_serves_or_did_lately_is_not_collected(
    registry: Registry, make: Callable[[str], Path], tmp_path: Path
) -> None:
    release(registry, make, 6)
    for number, alias in ((1, "canary"), (2, "production"), (3, "production"), (1, "production")):
        registry.promote(f"photos@{number}", alias, override=True, why=YES)
    everything = sum(1 for _ in registry.store.digests())
    dry = collect(registry, newest=1, days=0, dry=True)
    assert [v.number for v in dry.versions] == [5, 4, 3, 2] and sum(1 for _ in registry.store.digests()) == everything
    assert [v.number for v in collect(registry, newest=1, days=1, dry=True).versions] == [5, 4]

    with registry.uploading():  # somebody may count on any file that is there
        busy = collect(registry, newest=1, days=0)
    assert [v.number for v in busy.versions] == [5, 4, 3, 2] and (busy.files, busy.left) == (0, dry.files)
    found = collect(registry, newest=1, days=0)
    assert (found.versions, found.files, found.left) == ([], dry.files, 0) and found.bytes == dry.bytes > 0
    assert sum(1 for _ in registry.store.digests()) == everything - found.files
    for number in (1, 6):
        registry.pull(f"photos@{number}")
    with pytest.raises(fs.BadInput, match="photos@2: its files were given up"):
        registry.pull("photos@2", "never")
    with pytest.raises(fs.BadInput, match="photos@3: its files were given up"):
        registry.rollback("photos", "production", to=3, why=YES)
    with pytest.raises(fs.BadInput, match="photos@4: its files were given up"):
        registry.promote("photos@4", "production", why=YES, override=True)
    again = registry.add(tmp_path / "bundle-v1", "photos", note="again")
    assert again.number == 2 and again.collected is None and again.note == ""


def test_an_upload_that_was_given_up_is_told(
    registry: Registry, make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = registry.store.add

    def slow(file: Path | bytes) -> tuple[str, int]:
        if isinstance(file, bytes):  # the list, which is the last
            with registry.database.writing() as connection:
                connection.execute(uploads.update().values(at=0))
            collect(registry)
        return add(file)

    monkeypatch.setattr(registry.store, "add", slow)
    with pytest.raises(fs.Failure, match="add it again"):
        registry.add(make("one"), "photos")
    monkeypatch.undo()
    registry.pull(str(registry.add(Path(str(make("two"))), "photos")))


def test_a_backup_is_the_registry(registry: Registry, make: Callable[[str], Path], tmp_path: Path, server: str) -> None:
    release(registry, make, 3)
    for number in (1, 2):
        gate = judged(registry, f"photos@{number}", True, registry.now_at("photos", "production"))
        registry.promote(f"photos@{number}", "production", why=YES, gate=gate)
    registry.rollback("photos", "production", why=YES)
    kept = tmp_path / "backup"
    first = backup(registry, kept)
    assert (first.versions, first.moves) == (3, 3) and backup(registry, kept) == first
    for address in (str(tmp_path / "other"), database(server)):
        with Registry(address, str(tmp_path / f"store-{len(address)}")) as other:
            assert restore(other, kept) == first
            assert other.log() == registry.log() and other.versions() == registry.versions()
            assert sorted(other.store.digests()) == sorted(registry.store.digests())
            assert content(other.pull("photos@3", tmp_path / f"{len(address)}")) == content(registry.pull("photos@3"))
            move = other.promote("photos@3", "canary", why=YES, override=True)
            assert move.id > max(m.id for m in registry.log()) and other.rollback("photos", "production", to=2, why=YES)
            assert other.add(make(f"new{len(address)}"), "photos").number == 4
            with pytest.raises(fs.BadInput, match="is not empty"):
                restore(other, kept)
    (table,) = kept.glob("moves-*.jsonl")
    with table.open("a") as file:
        file.write("{}\n")
    with (
        pytest.raises(fs.BadInput, match=rf"{table.name}: was changed"),
        Registry(tmp_path / "third") as third,
    ):
        restore(third, kept)
    with pytest.raises(fs.BadInput, match="holds something else"):
        backup(registry, tmp_path)


def test_the_migrations_make_the_tables_that_the_code_speaks_of(registry: Registry) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with registry.database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.execute(sa.text("select version_num from alembic_version")).scalar() == REVISION


def test_tables_of_another_version_are_refused(registry: Registry, address: str) -> None:
    for found, said in (("9999", "later version"), ("0000", "fastness registry upgrade")):
        with registry.database.writing() as connection:
            connection.execute(sa.text(f"update alembic_version set version_num = '{found}'"))
        with pytest.raises(fs.BadInput, match=said):
            Registry(address)


def test_files_may_be_anywhere_that_fsspec_reaches(make: Callable[[str], Path], tmp_path: Path) -> None:
    with Registry(tmp_path / "registry", f"memory://kept-{uuid.uuid4().hex}") as registry:
        version = registry.add(make("one"), "photos")
        assert content(registry.pull("photos@1", tmp_path / "out")) == content(tmp_path / "bundle-one")
        registry.add(make("two"), "photos")
        assert {digest for digest, _ in registry.files(version).values()} <= {d for d, _ in registry.store.digests()}
        assert collect(registry, newest=1, days=0).files == 2
        store = registry.store.url
    with Registry(tmp_path / "registry") as registry:
        assert registry.store.url == store
    with pytest.raises(fs.BadInput, match=f"keeps its files in {store}"):
        Registry(tmp_path / "registry", "memory://elsewhere")
    with pytest.raises(fs.BadInput, match="cannot keep files there"):
        Registry(tmp_path / "new", "nothing://here")


def test_what_cannot_be_a_registry_is_one_line(tmp_path: Path, server: str) -> None:
    with pytest.raises(fs.BadInput, match="say where files are kept"):
        Registry(database(server))
    for address in (str(tmp_path / "none"), database(server)):
        with pytest.raises(fs.BadInput, match="no registry here"):
            Registry(address, create=False)
    assert not (tmp_path / "none").exists()
    with pytest.raises(fs.BadInput, match="no database by this address"):
        Registry("ftp://host/database")
    with pytest.raises(fs.Failure, match="does not exist") as told:
        Registry(server.replace("/postgres?", "/nowhere?").replace("postgres:@", "postgres:secret@"))
    assert "secret" not in str(told.value) and "\n" not in str(told.value)
    (tmp_path / "registry.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(fs.Failure, match="not a database"):
        Registry(tmp_path)


def test_versions_go_to_mlflow_and_come_back(
    fastness, make: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)  # MLflow keeps artifacts where it is
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with Registry(tmp_path / "registry") as registry, Registry(tmp_path / "other") as other:
        release(registry, make, 2)
        registry.promote("photos@2", "production", override=True, why=YES)
        assert to_mlflow(registry, "photos@1", uri) == to_mlflow(registry, "photos@1", uri) == Sent("photos", "1")
        assert to_mlflow(registry, "photos@production", uri).version == "2"
        assert from_mlflow(other, "photos@production", uri).manifest == registry.find("photos@2").manifest
        assert from_mlflow(other, "photos/1", uri, "shops").note == "MLflow photos/1"
        assert content(other.pull("shops@1")) == content(registry.pull("photos@1"))
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        assert client.get_model_version("photos", "1").tags["fastness.bundle"] == registry.find("photos@1").bundle
        with pytest.raises(fs.BadInput, match="say which version"):
            from_mlflow(other, "photos", uri)
        with pytest.raises(fs.Failure, match="not found"):
            from_mlflow(other, "photos/7", uri)
    place = ("--uri", uri, "--registry", tmp_path / "registry", "--json")
    sent = fastness("registry", "to-mlflow", "photos@2", "--model", "Shops", *place).out
    assert json.loads(sent) == {"model": "Shops", "version": "1"}
    assert json.loads(fastness("registry", "from-mlflow", "Shops@production", *place).out)["name"] == "shops"


def test_what_sentence_transformers_saved_comes_from_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sentence_transformers
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    texts = [
        f"the {colour} {thing}" for colour in ("red", "blue", "green") for thing in ("cat", "dog", "house", "tree")
    ]
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    run = fs.train(tmp_path / "lines.txt", encoder="static", steps=2, batch_size=4, out=tmp_path / "run", quiet=True)
    sentence_transformers.SentenceTransformer(str(run.bundle), device="cpu").save(str(tmp_path / "theirs"))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "model.pkl").write_bytes(b"pickled")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("Words")
    experiment = client.create_experiment("words")
    for folder in ("theirs", "nothing"):
        started = client.create_run(experiment).info
        client.log_artifacts(started.run_id, str(tmp_path / folder), "model")
        client.create_model_version("Words", f"{started.artifact_uri}/model", started.run_id)
    with Registry(tmp_path / "registry") as registry:
        version = from_mlflow(registry, "Words/1", uri)
        ours = fs.load(registry.pull(str(version))).embed(texts)
        assert version.name == "words" and np.allclose(ours, fs.load(run.bundle).embed(texts), atol=1e-5)
        with pytest.raises(fs.BadInput, match=r"Words/2: holds no bundle and no safetensors"):
            from_mlflow(registry, "Words/2", uri)


def test_a_gate_measures_both_and_what_it_saw_is_kept(
    registry: Registry, bundle: Path, worse: Path, labelled: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    registry.add(bundle, "photos"), registry.add(worse, "photos")
    asked = {"policy": policy, "data": str(labelled), "checks": ["knn", "geometry"], "why": YES}
    first = promotion.promote(registry, "photos@1", "production", **asked)
    assert first.gate is not None and first.gate["passed"] and first.gate["against"] is None
    assert len(first.gate["judgements"]) == 1  # nothing to drop from
    with pytest.raises(fs.GateRefused, match=r"photos@2 stays out of production: .* says no: rule 2, geometry"):
        promotion.promote(registry, "photos@2", "production", **asked)
    refused = registry.log()[0]
    assert refused.what == "refuse" and refused.gate is not None and refused.gate["against"] == 1
    numbers = json.loads(registry.store.read(refused.gate["evidence"]["compare.json"]))
    compared = numbers["comparisons"][0]
    assert compared["before"]["bundle"] == fs.load(bundle).id and compared["after"]["bundle"] == fs.load(worse).id
    collect(registry, newest=1, days=0)
    assert registry.store.read(refused.gate["evidence"]["compare.md"])


def test_the_command_line_tells_the_whole_story(
    fastness, bundle: Path, worse: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTNESS_REGISTRY", str(tmp_path / "registry"))
    (tmp_path / "policy.yaml").write_text(POLICY)
    gate = ("--gate", "policy.yaml", "--data", labelled, "--checks", "knn,geometry")
    for verb in ("show", "log", "gc", "upgrade"):
        assert "no registry here" in fastness("registry", verb).err and not (tmp_path / "registry").exists()
    assert fastness("registry", "add", bundle, "photos", "--note", "the first").out.startswith("photos@1")
    added = json.loads(fastness("registry", "add", worse, "photos", "--json").out)
    assert (added["name"], added["number"]) == ("photos", 2)
    assert fastness("registry", "promote", "photos@1", "production", *gate, "--why", "release").status == 0
    began = moment(now())
    refused = fastness("registry", "promote", "photos@2", "production", *gate)
    assert refused.status == 3 and "photos@2 stays out of production" in refused.err
    assert fastness("registry", "promote", "photos@2", "production", "--override").status == 2
    assert fastness("registry", "promote", "photos@2", "production", "--gate", "policy.yaml").status == 2
    assert fastness("registry", "promote", "photos@2", "production", "--override", "--why", "now").status == 0
    assert "OVERRIDE" in fastness("registry", "log", "photos", "production", "--limit", "1").out
    assert fastness("registry", "rollback", "photos", "production", "--why", "it was bad").status == 0
    told = json.loads(fastness("registry", "log", "--json").out)["moves"]
    assert [(m["what"], m["before"], m["number"]) for m in reversed(told)] == [
        ("promote", None, 1), ("refuse", 1, 1), ("promote", 1, 2), ("rollback", 2, 1)
    ]  # fmt: skip
    at = json.loads(fastness("registry", "log", "photos", "--at", began, "--json").out)["moves"]
    assert [m["number"] for m in at] == [1]
    assert fastness("registry", "log", "--at", began).status == 2
    assert "production" in fastness("registry", "show").out
    assert fastness("registry", "pull", "photos@production", "out").status == 0
    assert content(tmp_path / "out") == content(bundle)
    assert "would be removed" in fastness("registry", "gc", "--dry-run").out
    assert "4 moves" in fastness("registry", "backup", "kept").out
    assert "4 moves" in fastness("registry", "restore", "kept", "--registry", "other").out
    assert fastness("registry", "remove", "photos", "production", "--why", "over").out.count("-> nothing") == 1
    assert fastness("registry", "upgrade").out.strip().endswith(f"revision {REVISION}")
