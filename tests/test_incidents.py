"""Incidents: one a signal, opened, told and closed once, whoever writes; what happened is not rewritten.

All of it on SQLite and on a real PostgreSQL.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import fastness as fs
from conftest import database
from fastness.registry import Registry, incidents, outbox, watched
from fastness.registry.backup import backup, restore
from fastness.registry.controls import ABSTAIN, controlled, controls
from fastness.registry.incidents import Incident
from fastness.registry.outbox import BEGIN, DONE, DUE, END, FAILED
from fastness.registry.says import now
from fastness.registry.tables import actions, happenings, metadata, windows
from fastness.registry.tables import incidents as table
from fastness.registry.watched import Watched


def opened(registry: Registry, key: str = "drift", alias: str = "production") -> Incident:
    """Open an incident, and plan that it is told."""
    row = {"name": "photos", "alias": alias, "kind": key, "key": key, "version": "photos@1"}
    with registry.database.writing() as connection:
        found = incidents.opened(connection, {**row, "opened": 5, "title": "colours drifted"}, {"p": 0.001}, "monitor")
        outbox.plan(connection, found.id, "notify/webhook", ends=True)
    return found


def window(number: int, **verdict: bool) -> Watched:
    """Return a judged window."""
    said = {name: {"alarm": alarm, "said": "it is so"} for name, alarm in verdict.items()}
    at = 100 * number
    return Watched("photos", "production", [f"w{number}"], "photos@1", at, at + 100, 7, said)


def test_an_incident_has_a_story_that_only_grows(registry: Registry) -> None:
    one = opened(registry)
    assert incidents.incident(registry, one.id) == one and str(one) == f"incident {one.id}"
    assert (one.state, one.times, one.seen, one.closed) == ("open", 1, 5, None)
    incidents.note(registry, one.id, "looks like the new camera", by="ann")
    assert incidents.acknowledge(registry, one.id, "I look", by="ann").state == "acknowledged"
    gone = incidents.close(registry, one.id, "camera mended", by="bob")
    assert gone.state == "closed" and gone.closed is not None
    assert incidents.close(registry, one.id, "again") == gone
    incidents.note(registry, one.id, "it was the camera", by="ann")
    story = incidents.timeline(registry, one.id)
    assert [entry.what for entry in story] == ["opened", "note", "acknowledged", "closed", "note"]
    assert [entry.by for entry in story] == ["monitor", "ann", "ann", "bob", "ann"]
    assert [entry.at for entry in story] == sorted(entry.at for entry in story) and story[0].detail == {"p": 0.001}
    two = opened(registry)
    assert incidents.incidents(registry) == [two, gone] and incidents.incidents(registry, closed=False) == [two]
    assert incidents.incidents(registry, "words") == [] == incidents.incidents(registry, "photos", "canary")


@pytest.mark.parametrize("call", ["note", "acknowledge", "close"])
def test_what_makes_no_sense_is_refused(tmp_path: Path, call: str) -> None:
    with Registry(tmp_path / "registry") as registry:
        with pytest.raises(fs.BadInput, match="no incident 7 here"):
            getattr(incidents, call)(registry, 7, "why")
        one = opened(registry)
        incidents.close(registry, one.id, "over")
        if call == "acknowledge":
            with pytest.raises(fs.BadInput, match="is closed"):
                incidents.acknowledge(registry, one.id)
        else:
            with pytest.raises(fs.BadInput, match=r"give its text|say why"):
                getattr(incidents, call)(registry, one.id, " ")


def test_the_database_refuses_to_change_what_happened(registry: Registry) -> None:
    one = opened(registry)
    with registry.database.writing() as connection:
        assert watched.entered(connection, window(1, drift=True))
    never = [happenings.update().values(said="x"), happenings.delete(), windows.update().values(items=1)]
    never += [windows.delete(), table.delete(), actions.delete(), actions.update().values(action="x")]
    fixed: dict[str, Any] = {"name": "x", "alias": "x", "kind": "x", "key": "x", "version": "x", "opened": 1}
    never += [table.update().values(**{name: value}) for name, value in fixed.items()]
    for statement in never:
        with pytest.raises(fs.Failure, match="are never changed"), registry.database.writing() as connection:
            connection.execute(statement)
    with pytest.raises(fs.Failure, match=r"(?i)unique"):
        opened(registry)  # one that is not closed is there
    assert opened(registry, alias="canary").id > one.id and opened(registry, "errors").id > one.id
    incidents.close(registry, one.id, "over")
    with pytest.raises(fs.Failure, match="stays so"), registry.database.writing() as connection:
        connection.execute(table.update().where(table.c.id == one.id).values(state="open"))
    assert [entry.what for entry in incidents.timeline(registry, one.id)] == ["opened", "closed"]


def test_a_window_is_judged_once(registry: Registry) -> None:
    together = Watched("photos", "production", ["w1", "w2"], "photos@1", 100, 300, 9, {"drift": {"alarm": True}})
    with registry.database.writing() as connection:
        assert watched.entered(connection, together)
        assert not watched.entered(connection, window(2, drift=False))
        assert watched.entered(connection, window(3, drift=False))
    assert watched.judged(registry, "photos", "production") == {"w1", "w2", "w3"}
    assert watched.judged(registry, "photos", "production", 301) == {"w3"}
    assert watched.judged(registry, "photos", "canary") == set() and watched.judged_until(registry, "x", "y", 400) == 0
    assert [watched.judged_until(registry, "photos", "production", most) for most in (500, 399)] == [400, 300]
    assert watched.history(registry, "photos", "production") == [window(3, drift=False), together]
    assert watched.history(registry, "photos", "production", 1) == [window(3, drift=False)]


def test_windows_of_long_ago_are_forgotten_but_the_last_of_each_signal(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    month = 30 * 86_400_000_000
    with registry.database.writing() as connection:
        for number in range(40):
            with monkeypatch.context() as patch:
                patch.setattr(watched, "now", lambda age=2 * (40 - number) + 1: now() - age * month // 40)
                found = window(number, drift=False)
                rare = {"labels": {"alarm": False}} if number in (1, 2, 3) else {}
                assert watched.entered(connection, replace(found, verdict={**found.verdict, **rare}))
    with registry.database.writing() as connection:
        gone = watched.forgotten(
            connection, "photos", "production", now() - month, 1500, ["drift", "labels", "errors"], 2
        )
        left = watched.newest(connection, "photos", "production", 100)
    assert gone == 14 - 2 and [w.windows[0] for w in left] == [f"w{n}" for n in (*range(39, 13, -1), 3, 2)]
    with pytest.raises(fs.Failure, match="are never changed"), registry.database.writing() as connection:
        watched.forgotten(connection, "photos", "production", now(), 10_000, [], 0)
    assert len(watched.judged(registry, "photos", "production")) == 28


def test_what_is_due_is_claimed_by_one_and_settled_by_the_last(registry: Registry) -> None:
    one, taken, lock = opened(registry), [], threading.Lock()

    def claim() -> None:
        found = outbox.claimed(registry, "photos", "production", lambda called: 60)
        with lock:
            taken.append(found)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    (first,) = [found for found in taken if found is not None]
    assert (first.incident, first.number, first.phase, first.attempts, first.state) == (one.id, 1, BEGIN, 1, "running")
    assert outbox.claimed(registry, "photos", "canary", lambda called: 60) is None
    with registry.database.writing() as connection:  # as if the while were over
        connection.execute(actions.update().values(due=now()))
    second = outbox.claimed(registry, "photos", "production", lambda called: 60)
    assert second is not None and (second.id, second.claims, second.attempts) == (first.id, 2, 2)
    with registry.database.writing() as connection:
        assert not outbox.settled(connection, first, DONE, "late")
        assert outbox.settled(connection, second, DUE, "no answer", due=now(), counted=False)
        assert not outbox.settled(connection, second, DONE, "twice")
    third = outbox.claimed(registry, "photos", "production", lambda called: 60)
    assert third is not None and (third.claims, third.attempts, third.said) == (3, 2, "no answer")
    with registry.database.writing() as connection:
        assert outbox.settled(connection, third, FAILED, "given up")
    (row,) = outbox.actions_of(registry, one.id)
    assert (row.state, row.said, row.done is None, row.open) == (FAILED, "given up", False, False)
    assert outbox.claimed(registry, "photos", "production", lambda called: 60) is None


def test_the_same_is_done_in_turn_and_its_end_is_told_last(registry: Registry) -> None:
    one = opened(registry)
    with registry.database.writing() as connection:
        outbox.plan(connection, one.id, "rollback", ends=False)
    claimed = [outbox.claimed(registry, "photos", "production", lambda called: 60) for _ in range(3)]
    assert [found and found.action for found in claimed] == ["notify/webhook", "rollback", None]
    with registry.database.writing() as connection:
        assert claimed[0] is not None and outbox.settled(connection, claimed[0], DUE, "no answer", due=now() + 10**9)
    incidents.close(registry, one.id, "over")
    told = {(row.action, row.number): row for row in outbox.actions_of(registry, one.id)}
    assert told["notify/webhook", 1].open and told["rollback", 1].open  # begun, so they go on
    assert told["notify/webhook", 2].phase == END and ("rollback", 2) not in told
    # The end is not told before the beginning.
    assert outbox.claimed(registry, "photos", "production", lambda called: 60) is None
    with registry.database.writing() as connection:
        connection.execute(actions.update().where(actions.c.action == "notify/webhook").values(due=now()))
    for number in (1, 2):
        found = outbox.claimed(registry, "photos", "production", lambda called: 60)
        assert found is not None and (found.action, found.number) == ("notify/webhook", number)
        with registry.database.writing() as connection:
            assert outbox.settled(connection, found, DONE, "told")


def test_what_was_not_begun_is_withdrawn_but_the_alarm_is_told(registry: Registry) -> None:
    one = opened(registry)
    with registry.database.writing() as connection:
        outbox.plan(connection, one.id, "retrain", ends=False)
    incidents.close(registry, one.id, "over")
    rows = [(row.action, row.phase, row.state) for row in outbox.actions_of(registry, one.id)]
    assert rows == [
        ("notify/webhook", "begin", "due"),
        ("retrain", "begin", "done"),
        ("notify/webhook", "end", "due"),
    ]


def test_controls_are_set_and_taken_back(registry: Registry) -> None:
    for value in ("incident 1", "incident 2"):
        with registry.database.writing() as connection:
            controlled(connection, "photos", "production", ABSTAIN, value, "ann")
        found = controls(registry, "photos", "production")
        assert set(found) == {ABSTAIN} and (found[ABSTAIN].value, found[ABSTAIN].by) == (value, "ann")
    assert controls(registry, "photos", "canary") == {}
    with registry.database.writing() as connection:
        controlled(connection, "photos", "production", ABSTAIN, None, "ann")
    assert controls(registry, "photos", "production") == {}


def everything(registry: Registry) -> dict[str, list[Any]]:
    with registry.database.reading() as connection:
        rows = {t.name: connection.execute(sa.select(t)).all() for t in metadata.sorted_tables if t.name != "about"}
    return {name: sorted(map(repr, listed)) for name, listed in rows.items()}


def test_a_backup_carries_incidents_and_an_earlier_one_has_none(
    registry: Registry, tmp_path: Path, server: str
) -> None:
    one = opened(registry)
    with registry.database.writing() as connection:
        watched.entered(connection, window(1, drift=True))
        controlled(connection, "photos", "production", ABSTAIN, "incident 1", "ann")
    kept = tmp_path / "backup"
    assert backup(registry, kept).incidents == 1
    for number, address in enumerate((str(tmp_path / "other"), database(server))):
        with Registry(address, str(tmp_path / f"store-{number}")) as other:
            assert restore(other, kept).incidents == 1
            assert everything(other) == everything(registry)
            assert opened(other, "errors").id == one.id + 1  # it counts on
            incidents.close(other, one.id, "over")
    about = json.loads((kept / "backup.json").read_text())
    later = ("windows", "incidents", "happenings", "actions", "controls")
    for name in later:
        (written,) = kept.glob(f"{name}-*.jsonl")
        written.unlink()
        del about["tables"][name]
    (kept / "backup.json").write_text(json.dumps({**about, "revision": "0002"}))
    with Registry(tmp_path / "older") as older:
        assert restore(older, kept).incidents == 0
        assert opened(older).id == 1


def test_the_tables_before_are_brought_up_to_date(address: str, tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    from fastness.registry import migrations
    from fastness.registry.keys import issue, keys

    store = str(tmp_path / "store")
    with Registry(address, store):
        pass
    url = address.replace("postgresql:", "postgresql+psycopg:") if "://" in address else None
    if url is None:
        (Path(address) / "registry.db").unlink()
    engine = sa.create_engine(url or f"sqlite:///{address}/registry.db")
    with engine.begin() as connection:
        if url is not None:
            connection.execute(sa.text("drop schema public cascade"))
            connection.execute(sa.text("create schema public"))
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        command.upgrade(config, "0002")
        assert not sa.inspect(connection).has_table("incidents")
    engine.dispose()
    with pytest.raises(fs.BadInput, match="first run: fastness registry upgrade"):
        Registry(address, store)
    with Registry(address, store, upgrade=True) as registry:
        key, _ = issue(registry, "shop")
        assert keys(registry) == [key] and opened(registry).id == 1


def test_the_command_line_tells_an_incident_s_story(tmp_path: Path, fastness) -> None:
    with Registry(tmp_path / "registry") as registry:
        one = opened(registry)
        opened(registry, "errors", "canary")
    where = ("--registry", "registry")
    listed = fastness("incident", "list", "photos@production", *where)
    assert listed.status == 0 and listed.out.count("\n") == 1 and "colours drifted" in listed.out
    assert fastness("incident", "note", one.id, "a new camera", "--by", "ann", *where).status == 0
    assert json.loads(fastness("incident", "ack", one.id, *where, "--json").out)["state"] == "acknowledged"
    assert fastness("incident", "close", one.id, *where).status == 2
    assert fastness("incident", "close", one.id, "--why", "mended", *where).status == 0
    told = fastness("incident", "show", one.id, *where).out
    assert [line.split()[2] for line in told.splitlines()[1:]] == [
        "opened",
        "note",
        "acknowledged",
        "closed",
        "due",
        "due",
    ]
    shown = json.loads(fastness("incident", "show", one.id, *where, "--json").out)
    assert shown["state"] == "closed" and [entry["what"] for entry in shown["timeline"]][-1] == "closed"
    assert json.loads(fastness("incident", "list", *where, "--json").out)["incidents"][0]["alias"] == "canary"
    assert fastness("incident", "list", "--all", *where).out.count("\n") == 2
    assert fastness("incident", "show", 99, *where).err.endswith("see: fastness incident list\n")
