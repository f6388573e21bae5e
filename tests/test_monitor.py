"""The monitor: every window is judged once and every alarm told, wherever it is killed and however many look.

The traffic is written by the journal of the service, receivers listen on real sockets, the Alertmanager is Prometheus'
own. ``FASTNESS_KILLS`` says how often it is killed; ``benchmarks/incidents.py`` does it in the published number.
"""

from __future__ import annotations

import email
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastness.core.errors import BadInput, Failure
from fastness.monitoring import monitor
from fastness.monitoring.decide import decided
from fastness.monitoring.kept.journal import Journal
from fastness.monitoring.monitor import Monitor
from fastness.monitoring.policy import Policy
from fastness.monitoring.signals import Reading
from fastness.registry import Registry, incidents, outbox, watched
from fastness.registry.controls import ABSTAIN, controls
from fastness.registry.store import Lost
from fastness.registry.watched import Watched
from watched import (
    REQUESTS,
    SPEC,
    WHOLE,
    Mailbox,
    Receiver,
    alarms_told,
    alertmanager,
    killed_monitors,
    served,
    settle,
    story,
    watching,
    write_policy,
)

KILLS = int(os.environ.get("FASTNESS_KILLS", "4"))
ROLLBACK = {"do": "rollback"}
YES = "it is a test"


@pytest.fixture
def watch(tmp_path: Path) -> Path:
    """Return the folder of the journals."""
    return tmp_path / "watch"


@pytest.fixture
def two(tmp_path: Path, make: Callable[[str], Path]) -> Registry:
    """Return a registry with two versions, of which the second serves."""
    registry = Registry(tmp_path / "registry")
    for number, text in enumerate(("one", "two"), 1):
        registry.add(make(text), "photos")
        registry.promote(f"photos@{number}", "production", override=True, why=YES)
    return registry


def test_a_spell_of_errors_is_one_incident_that_is_told_and_over(registry: Registry, watch: Path, tmp_path: Path):
    end = served(watch, WHOLE)
    with Receiver() as hook:
        policy = write_policy(tmp_path / "policy.yaml", {"do": "notify", "to": "webhook", "url": hook.url})
        settle(watching(registry, watch, policy))
        (one,) = incidents.incidents(registry)
        assert (one.kind, one.version, one.times, one.state) == ("errors", "photos@1", 2, "closed")
        assert one.seen == end - 2 * 60_000_000 and "that ended in an error: 60 of 300 (20.0%" in one.title
        assert [w.alarmed("errors") for w in watched.history(registry, "photos", "production")][::-1] == [
            share > 0 for share in WHOLE
        ]
        assert [e.what for e in incidents.timeline(registry, one.id)] == [
            "opened",
            "planned",
            "closed",
            "notify/webhook",
            "notify/webhook",
        ]
        first, last = (body for _, _, body in hook.got)
        assert first["text"].startswith(one.title) and last["text"].startswith("Over: ")
        assert first["incident"]["id"] == one.id and len({key for _, key, _ in hook.got}) == 2
        settle(watching(registry, watch, policy))  # another monitor, later: nothing is left to do
        assert len(hook.got) == 2 and incidents.incidents(registry) == [one]


def test_windows_with_too_little_wait_for_the_next(tmp_path: Path, watch: Path) -> None:
    policy = write_policy(tmp_path / "policy.yaml", least=2 * REQUESTS)
    end = served(watch, [0.0, 0.2, 0.0])
    with Registry(tmp_path / "registry") as registry:
        looking = watching(registry, watch, policy)
        (found,) = looking.look()
        assert len(found.windows) == 2 and "60 of 600 (10.0%" in found.verdict["errors"]["said"]
        assert looking.look() == []
        served(watch, [0.0], begin=end)
        (later,) = looking.look()
        assert len(later.windows) == 2 and not later.verdict["errors"]["alarm"]
        assert len(watched.judged(registry, "photos", "production")) == 4


def test_slow_requests_alarm(tmp_path: Path, watch: Path) -> None:
    journal = Journal(watch, "photos", "production", window=60)
    for number in range(200):
        journal.count("/v1/search", 200, 0.7 if number % 4 == 0 else 0.02, 1, version="photos@1")
    journal.close()
    signals = {"latency": {"seconds": 0.5, "ceiling": 0.1}, "refused": {}}
    policy = write_policy(tmp_path / "policy.yaml", signals=signals)
    with Registry(tmp_path / "registry") as registry:
        (found,) = watching(registry, watch, policy).look()
        assert found.verdict["latency"]["alarm"] and not found.verdict["refused"]["alarm"]
        assert (
            "requests that took more than 0.5 s: 50 of 200 (25.0%; allowed 10.0%)" in found.verdict["latency"]["said"]
        )


def test_what_is_not_delivered_is_tried_again_and_given_up(tmp_path: Path, watch: Path) -> None:
    served(watch, [0.2])
    gone = {"do": "notify", "to": "webhook", "url": "http://127.0.0.1:1/", "name": "gone", "attempts": 3}
    with Registry(tmp_path / "registry") as registry, Receiver(failing=2) as hook:
        there = {"do": "notify", "to": "webhook", "url": "$HOOK_OF_A_TEST", "name": "there", "pause": 0.01}
        policy = write_policy(tmp_path / "policy.yaml", {**gone, "pause": 0.01}, there, {"do": "rollback"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOOK_OF_A_TEST", hook.url)
            settle(watching(registry, watch, policy))
        lost, told, back = outbox.actions_of(registry, 1)
        assert (lost.state, lost.attempts, told.state, told.attempts) == ("failed", 3, "done", 3)
        assert lost.said.startswith("given up after 3 attempts: notify/gone: URLError")
        assert (back.state, back.said) == ("failed", "photos@production names nothing by now")
        assert len(hook.got) == 1 and hook.url not in json.dumps(story(registry))
        whats = [entry.what for entry in incidents.timeline(registry, 1)]
        assert whats.count("trying") == 2 and whats.count("failed") == 2


def test_mails_are_a_thread(tmp_path: Path, watch: Path) -> None:
    served(watch, WHOLE)
    with Registry(tmp_path / "registry") as registry, Mailbox() as box:
        mail = {
            "do": "notify",
            "to": "mail",
            "server": box.address,
            "sender": "fastness@x",
            "receivers": ["a@x", "b@x"],
        }
        settle(watching(registry, watch, write_policy(tmp_path / "policy.yaml", mail)))
        first, last = map(email.message_from_string, box.mails)
        assert first["To"] == "a@x, b@x" and first["Subject"] == "errors at photos@production, incident 1"
        assert last["Subject"].startswith("Over: ") and last["In-Reply-To"] == first["Message-ID"] != last["Message-ID"]


def test_the_alias_goes_back_once(two: Registry, tmp_path: Path, watch: Path) -> None:
    end = served(watch, [0.2, 0.2], "photos@2")
    policy = write_policy(tmp_path / "policy.yaml", ROLLBACK)
    settle(watching(two, watch, policy))
    move = two.log("photos", "production")[0]
    assert (move.what, move.number, move.before, move.by) == ("rollback", 1, 2, "fastness monitor")
    assert move.why.startswith("incident 1: errors at photos@production (photos@2)")
    end = served(watch, [0.0, 0.0, 0.0], "photos@1", end)
    settle(watching(two, watch, policy))
    assert incidents.incident(two, 1).state == "closed" and len(two.log("photos", "production")) == 3
    two.promote("photos@2", "production", override=True, why=YES)
    two.promote("photos@1", "production", override=True, why=YES)
    served(watch, [0.2], "photos@2", end)  # an alarm about what serves no more
    settle(watching(two, watch, policy))
    (action,) = outbox.actions_of(two, 2)
    assert (action.state, action.said) == ("done", "photos@production is version 1 by now, not photos@2")
    assert two.now_at("photos", "production") == 1
    two.close()


def test_a_rollback_whose_doer_was_killed_is_not_done_again(two: Registry, tmp_path: Path, watch: Path) -> None:
    served(watch, [0.2], "photos@2")
    looking = watching(two, watch, write_policy(tmp_path / "policy.yaml", {**ROLLBACK, "timeout": 0.1}))
    looking.look()
    taken = outbox.claimed(two, "photos", "production", lambda called: 0.1)
    assert taken is not None
    two.rollback("photos", "production", why=f"incident 1: {incidents.incident(two, 1).title}")
    settle(looking)  # the claim ends by itself
    (row,) = outbox.actions_of(two, 1)
    assert (row.state, row.claims) == ("done", 2) and len(two.log("photos", "production")) == 3
    two.close()


def test_heads_abstain_until_every_incident_is_over(tmp_path: Path, watch: Path) -> None:
    served(watch, [0.2])
    policy = write_policy(tmp_path / "policy.yaml", {"do": "abstain"}, signals={"errors": {}, "latency": {}})
    with Registry(tmp_path / "registry") as registry:
        looking = watching(registry, watch, policy)
        settle(looking)
        assert controls(registry, "photos", "production")[ABSTAIN].value.startswith("incident 1: errors at")
        journal = Journal(watch, "photos", "production", window=60)
        for _ in range(REQUESTS):
            journal.count("/v1/search", 200, 9.0, 1, version="photos@1")
        journal.close()
        settle(looking)
        assert len(incidents.incidents(registry, closed=False)) == 2
        for id in (1, 2):
            assert ABSTAIN in controls(registry, "photos", "production")
            incidents.close(registry, id, "over")
            settle(looking)
        assert controls(registry, "photos", "production") == {}


def test_several_monitors_at_once_do_what_one_does(address: str, tmp_path: Path, watch: Path, server: str) -> None:
    rounds = (0.0, 0.2, 0.0, 0.0) * 3
    served(watch, rounds)
    with Receiver() as hook:
        policy = write_policy(tmp_path / "policy.yaml", {"do": "notify", "to": "webhook", "url": hook.url})
        kept = str(tmp_path / "kept") if "://" in address else None
        with Registry(tmp_path / "alone") as registry:
            settle(watching(registry, watch, policy))
            alone, messages = story(registry), len(hook.got)
        Registry(address, kept).close()

        def look() -> None:
            with Registry(address, kept) as own:
                settle(watching(own, watch, policy))

        threads = [threading.Thread(target=look) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        with Registry(address, kept) as registry:
            together = story(registry)
        assert together["windows"] == alone["windows"] and together["incidents"] == alone["incidents"]
        assert together["done"] == alone["done"] and len(hook.got) == 2 * messages == 12


def test_killed_anywhere_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    assert killed_monitors(tmp_path, KILLS) == []


def test_a_real_alertmanager_tells_of_an_alarm_once(tmp_path: Path) -> None:
    program = alertmanager()
    if program is None:
        pytest.skip("no Alertmanager here; apt-get install prometheus-alertmanager (Debian's package)")
    assert alarms_told(tmp_path, program) == []


def test_whoever_takes_abstention_out_of_the_policy_gets_answers_again(tmp_path: Path, watch: Path) -> None:
    served(watch, [0.2])
    does = [{"do": "abstain", "name": "first"}, {"do": "abstain", "name": "second", "on": ["latency"]}]
    signals = {"errors": {}, "latency": {"seconds": 5}}
    with Registry(tmp_path / "registry") as registry:
        settle(watching(registry, watch, write_policy(tmp_path / "policy.yaml", *does, signals=signals)))
        journal = Journal(watch, "photos", "production", window=60)
        for _ in range(REQUESTS):
            journal.count("/v1/search", 200, 9.0, 1, version="photos@1")
        journal.close()
        settle(watching(registry, watch, write_policy(tmp_path / "policy.yaml", *does, signals=signals)))
        less = watching(registry, watch, write_policy(tmp_path / "less.yaml", signals=signals))
        incidents.close(registry, 1, "over")
        settle(less)
        assert ABSTAIN in controls(registry, "photos", "production")  # the other incident wants it, by another name
        incidents.close(registry, 2, "over")
        settle(less)
        assert controls(registry, "photos", "production") == {}


def test_a_damaged_window_is_told_once_and_the_others_are_judged(tmp_path: Path, watch: Path) -> None:
    served(watch, [0.2])
    (home,) = (watch / "photos@production").iterdir()
    (home / "1700000000000000-9.json").write_text("{")
    lines: list[str] = []
    with Registry(tmp_path / "registry") as registry:
        looking = Monitor(registry, SPEC, watch, Policy.load(write_policy(tmp_path / "policy.yaml")), say=lines.append)
        later = home / "9000000000000000-9.json"
        later.write_text("{")
        assert len(looking.look()) == 1 and looking.look() == []
        assert sum(str(later) in line and "move it away" in line for line in lines) == 1
        assert len(incidents.incidents(registry)) == 1


def test_labels_that_come_once_a_day_open_and_close_an_incident(tmp_path: Path, watch: Path) -> None:
    """Between two windows in which they are judged lie hundreds in which they are not."""
    policy = Policy.model_validate({"signals": {"labels": {"drop": 0.1, "persist": "2 of 3"}, "errors": {}}})
    with Registry(tmp_path / "registry") as registry:

        def day(number: int, wrong: bool) -> None:
            with registry.database.writing() as connection:
                for window in range(70):
                    at = 1_000 * number + window
                    verdict = {"errors": {"alarm": False, "said": "none", "p": 1.0}}
                    if window == 35:
                        verdict["labels"] = {"alarm": wrong, "said": "so many were wrong", "p": 0.5}
                    decided(
                        connection,
                        policy,
                        Watched("photos", "production", [f"{at}"], "photos@1", at, at + 1, 9, verdict),
                    )

        for number, wrong in enumerate((True, True)):
            assert incidents.incidents(registry) == []
            day(number, wrong)
        for number in range(2, 5):
            assert incidents.incident(registry, 1).state == "open"
            day(number, wrong=False)
        assert incidents.incident(registry, 1).state == "closed"


def test_a_window_of_a_clock_that_is_ahead_hides_nothing(tmp_path: Path, watch: Path) -> None:
    served(watch, [0.0], begin=time.time_ns() // 1000 + 86_400_000_000)
    with Registry(tmp_path / "registry") as registry:
        looking = watching(registry, watch, write_policy(tmp_path / "policy.yaml"))
        assert len(looking.look()) == 1
        served(watch, [0.2])
        assert len(looking.look()) == 1 and len(incidents.incidents(registry)) == 1


def test_a_message_that_is_sent_on_elsewhere_is_not_told(tmp_path: Path, watch: Path) -> None:
    served(watch, [0.2])
    with Receiver() as there, Receiver(moved=there.url) as hook, Registry(tmp_path / "registry") as registry:
        does = {"do": "notify", "to": "webhook", "url": hook.url, "attempts": 1}
        settle(watching(registry, watch, write_policy(tmp_path / "policy.yaml", does)))
        (row,) = outbox.actions_of(registry, 1)
        assert row.state == "failed" and "answered 302" in row.said and not there.got


def test_an_address_that_is_not_set_is_told_at_once(tmp_path: Path, watch: Path) -> None:
    does = {"do": "notify", "to": "webhook", "url": "$NOBODY_SETS_THIS/x"}
    with Registry(tmp_path / "registry") as registry, pytest.raises(BadInput, match="NOBODY_SETS_THIS is not set"):
        watching(registry, watch, write_policy(tmp_path / "policy.yaml", does))


def test_a_training_that_goes_on_is_not_withdrawn(tmp_path: Path, watch: Path) -> None:
    served(watch, [0.2])
    does = {"do": "notify", "to": "webhook", "url": "http://127.0.0.1:9"}
    with Registry(tmp_path / "registry") as registry:
        watching(registry, watch, write_policy(tmp_path / "policy.yaml", does)).look()
        with registry.database.writing() as connection:
            outbox.plan(connection, 1, "retrain", ends=False)
            outbox.plan(connection, 1, "rollback", ends=False)
        claims = [outbox.claimed(registry, "photos", "production", lambda called: 60) for _ in range(2)]
        (running,) = (claim for claim in claims if claim is not None and claim.action == "retrain")
        with registry.database.writing() as connection:
            outbox.settled(connection, running, "due", "goes on", due=2**60, counted=False)
        incidents.close(registry, 1, "over")
        states = {action.action: action.state for action in outbox.actions_of(registry, 1) if action.phase == "begin"}
        assert states["retrain"] == "due" and states["rollback"] == "done"


def test_after_hours_without_a_monitor_nothing_is_done_about_what_is_over(
    two: Registry, tmp_path: Path, watch: Path
) -> None:
    now = time.time_ns() // 1000
    end = served(watch, [0.2, 0.2, 0.0, 0.0], "photos@2", now - 6 * 3_600_000_000)
    served(watch, [0.0], "photos@2", now)
    with Receiver() as hook:
        does = {"do": "notify", "to": "webhook", "url": hook.url}
        settle(watching(two, watch, write_policy(tmp_path / "policy.yaml", ROLLBACK, does)))
        assert len(hook.got) == 2 and two.now_at("photos", "production") == 2 and end < now
    assert {action.action for action in outbox.actions_of(two, 1)} == {"notify/webhook"}
    two.close()


def test_nobody_who_listens_is_no_reason_to_stop(tmp_path: Path, watch: Path) -> None:
    def full(line: str) -> None:
        raise OSError(28, "No space left on device")

    served(watch, WHOLE)
    with Registry(tmp_path / "registry") as registry:
        policy = Policy.load(write_policy(tmp_path / "policy.yaml", {"do": "abstain"}))
        settle(Monitor(registry, SPEC, watch, policy, say=full))
        assert incidents.incident(registry, 1).state == "closed"


def test_a_version_whose_files_cannot_be_had_hides_nothing_of_others(
    two: Registry, tmp_path: Path, watch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = served(watch, [0.2], "photos@2")
    served(watch, [0.2], "photos@1", end)
    signals = {"drift": {}, "errors": {}}
    looking = watching(two, watch, write_policy(tmp_path / "policy.yaml", signals=signals))
    pull, problem = two.pull, Failure("the store cannot be reached")

    def lost(spec: str) -> Path:
        if spec == "photos@2":
            raise problem
        return pull(spec)

    monkeypatch.setattr(two, "pull", lost)
    with pytest.raises(Failure, match="cannot be reached"):
        looking.look()
    (other,) = watched.history(two, "photos", "production")
    assert other.version == "photos@1" and other.alarmed("errors")
    served(watch, [0.0], "photos@1", end + 3 * 3_600_000_000)  # nor do others hide that one, however far they are
    monkeypatch.setattr(monitor, "now", lambda: end + 4 * 3_600_000_000)
    with pytest.raises(Failure, match="cannot be reached"):
        looking.look()
    problem = Lost("a file is not in the store")  # for good: then requests are judged all the same
    (found,) = looking.look()
    assert found.version == "photos@2" and found.alarmed("errors") and found.alarmed("drift") is None
    two.close()


def test_what_another_monitor_s_policy_has_is_left_to_it(tmp_path: Path, watch: Path) -> None:
    served(watch, [0.2])
    with Registry(tmp_path / "registry") as registry, Receiver() as hook:
        new = write_policy(tmp_path / "new.yaml", {"do": "notify", "to": "webhook", "url": hook.url, "name": "pager"})
        watching(registry, watch, new).look()
        assert watching(registry, watch, write_policy(tmp_path / "old.yaml")).act() == 1
        (row,) = outbox.actions_of(registry, 1)
        assert row.open and row.attempts == 0 and "has no notify/pager" in row.said


def test_what_clients_call_their_items_cannot_stop_an_alarm(address: str, tmp_path: Path, server: str) -> None:
    """PostgreSQL keeps no NUL in a text."""
    said = Reading(True, "like a\0b", detail={"ids": ["\0"], "a\0": [{"b": "\0"}]}).to_dict()
    assert "\\u0000" not in json.dumps(said)
    policy = Policy.model_validate({"signals": {"errors": {}}})
    with Registry(address, str(tmp_path / "kept") if "://" in address else None) as registry:
        for number in range(2):
            found = Watched("photos", "production", [f"{number}"], "photos@1", number, number + 1, 9, {"errors": said})
            with registry.database.writing() as connection:
                assert decided(connection, policy, found) is not None
        assert incidents.incident(registry, 1).times == 2
