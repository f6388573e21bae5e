"""A monitor's policy: what it cannot mean is refused by name, and incidents are what a naive reading of it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import fastness as fs
from fastness.monitoring.decide import BY, decided
from fastness.monitoring.policy import Policy
from fastness.registry import Registry, incidents, outbox
from fastness.registry.watched import Watched

HOOK = {"do": "notify", "to": "webhook", "url": "http://127.0.0.1:1/x"}


def policy(*actions: dict[str, Any], persist: str = "1 of 1", healthy: int = 2, **more: Any) -> Policy:
    """Return a policy about errors."""
    return Policy.model_validate(
        {"signals": {"errors": {"persist": persist}}, "healthy": healthy, "actions": list(actions), **more}
    )


def window(number: int, alarm: bool | None, version: str = "photos@1", signal: str = "errors") -> Watched:
    """Return a judged window."""
    verdict = {} if alarm is None else {signal: {"alarm": alarm, "said": f"{number} is so"}}
    return Watched("photos", "production", [f"w{number}"], version, 100 * number, 100 * number + 100, 7, verdict)


def seen(registry: Registry, by: Policy, windows: list[Watched]) -> None:
    """Let windows be judged one after the other."""
    for found in windows:
        with registry.database.writing() as connection:
            assert decided(connection, by, found) is not None
            assert decided(connection, by, found) is None  # a window is judged once


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("", "policy: Input should be"),
        ("[1", "no YAML"),
        ({"signals": {}}, "watches nothing; give some of drift, errors"),
        ({"signals": {"erors": {}}}, "signals.erors: unknown field"),
        ({"signals": {"errors": {"ceiling": 2}}}, "signals.errors.ceiling: "),
        ({"signals": {"errors": {"persist": "3 of 2"}}}, "signals.errors.persist: say how many windows"),
        ({"signals": {"errors": {"persist": "often"}}}, "'2 of 3' say"),
        ({"signals": {"labels": {}}}, "says no limit; give drop or floor"),
        ({"signals": {"errors": {}}, "actions": [{"do": "panic"}]}, "actions.1: "),
        ({"signals": {"errors": {}}, "actions": [{"do": "rollback", "on": ["drift"]}]}, "on 'drift', which is not"),
        ({"signals": {"errors": {}}, "actions": [{"do": "notify", "to": "mail"}]}, "needs server and sender and"),
        ({"signals": {"errors": {}}, "actions": [HOOK, HOOK]}, "two actions are called notify/webhook"),
        ({"signals": {"errors": {}}, "actions": [{"do": "retrain"}]}, "actions.1.retrain.plan: Field required"),
        ({"signals": {"errors": {}}, "actions": [{"do": "abstain", "budget": {"times": 1}}]}, "budget.days"),
    ],
)
def test_what_it_cannot_mean_is_refused_by_name(tmp_path: Path, stated: Any, said: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(stated if isinstance(stated, str) else yaml.safe_dump(stated))
    with pytest.raises(fs.BadInput) as refused:
        Policy.load(path)
    assert said in str(refused.value) and str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
    with pytest.raises(fs.BadInput, match="give a monitor's policy"):
        Policy.load(tmp_path / "none.yaml")


def test_what_it_says_is_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    mail = {"do": "notify", "to": "mail", "server": "mail:25", "sender": "a@b", "receivers": ["c@d"], "name": "ops"}
    named = [HOOK, mail, {"do": "retrain", "plan": "ci.yaml"}]
    path.write_text(yaml.safe_dump({"signals": {"drift": {"persist": 2}, "errors": {}}, "actions": named}))
    found = Policy.load(path)
    assert found.signals.drift is not None and found.signals.drift.persist == (2, 2)
    assert [action.called for action in found.actions] == ["notify/webhook", "notify/ops", "retrain"]
    assert found.action("retrain") is found.actions[2] and found.action("rollback") is None
    assert Policy.model_validate(found.model_dump()) == found and list(found.signals.named()) == ["drift", "errors"]


def naive(windows: list[Watched], of: tuple[int, int], healthy: int, serves: str) -> list[tuple[str, int, int, bool]]:
    """Return version, window that opened it, times and whether it is over of each incident, by reading the past."""
    found: list[dict[str, Any]] = []
    for number, judged in enumerate(windows):
        alarm, past = judged.alarmed("errors"), windows[: number + 1]
        own = found[-1] if found and not found[-1]["over"] else None
        if alarm:
            last = [w.alarmed("errors") for w in past if w.version == judged.version]
            lasting = sum([a for a in last if a is not None][-of[1] :]) >= of[0]
            if own is not None and own["version"] == judged.version:
                own |= {"times": own["times"] + 1, "seen": number}
            elif lasting and (own is None or judged.version == serves):
                if own is not None:
                    own["over"] = True
                found.append({"version": judged.version, "opened": number, "times": 1, "seen": number, "over": False})
        elif own is not None:
            since = [a for w in past[own["seen"] + 1 :] if (a := w.alarmed("errors")) is not None]
            own["over"] = len(since) >= healthy and not any(since[-healthy:])
    return [(one["version"], one["opened"], one["times"], one["over"]) for one in found]


@given(
    st.lists(st.tuples(st.sampled_from([True, True, False, False, None]), st.sampled_from([1, 1, 2])), max_size=14),
    st.sampled_from([(1, 1), (1, 2), (2, 2), (2, 3)]),
    st.integers(1, 3),
)
def test_incidents_are_what_a_naive_reading_says(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[bool | None, int]], of: tuple[int, int], healthy: int
) -> None:
    windows = [window(i, alarm, f"photos@{number}") for i, (alarm, number) in enumerate(said)]
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        seen(registry, policy(HOOK, persist=f"{of[0]} of {of[1]}", healthy=healthy), windows)
        found = incidents.incidents(registry)[::-1]
        told = [(one.version, one.opened // 100 - 1, one.times, one.state == "closed") for one in found]
        assert told == naive(windows, of, healthy, "photos@0")
        for one in found:
            phases = [action.phase for action in outbox.actions_of(registry, one.id)]
            assert phases == ["begin", "end"][: 1 + (one.state == "closed")]
            story = [entry.what for entry in incidents.timeline(registry, one.id)]
            assert story == ["opened", "planned", "closed"][: 2 + (one.state == "closed")]


def test_a_version_that_serves_no_more_gives_way_to_the_next(tmp_path: Path, make) -> None:
    with Registry(tmp_path / "registry") as registry:
        for text in ("one", "two"):
            registry.add(make(text), "photos")
        registry.promote("photos@2", "production", override=True, why="it is a test")
        windows = [window(0, True), window(1, True, "photos@2"), window(2, True), window(3, True, "photos@2")]
        seen(registry, policy(HOOK), windows)
        second, first = incidents.incidents(registry)
        assert (first.state, first.times, second.state, second.times) == ("closed", 1, "open", 2)
        assert incidents.timeline(registry, first.id)[-1].said == "photos@1 serves no more, and photos@2 alarms too"


def planned(registry: Registry) -> list[tuple[int, str]]:
    """Return which action was planned about which incident."""
    found = incidents.incidents(registry)[::-1]
    return [(one.id, action.action) for one in found for action in outbox.actions_of(registry, one.id)]


def test_actions_wait_until_it_lasts_and_within_their_budget(tmp_path: Path) -> None:
    retrain = {"do": "retrain", "plan": "ci.yaml", "after": "3 of 4", "budget": {"times": 1, "days": 7}}
    rollback = {"do": "rollback", "after": "2 of 2", "cooldown": 24}
    with Registry(tmp_path / "registry") as registry:
        by = policy(rollback, retrain, healthy=1)
        alarms = [True, False, True, True, True, True]
        seen(registry, by, [window(i, alarm) for i, alarm in enumerate(alarms)])
        assert planned(registry) == [(2, "rollback"), (2, "retrain")]  # the first was over before it lasted
        seen(registry, by, [window(6 + i, alarm) for i, alarm in enumerate([False, True, True, True, True])])
        assert planned(registry) == [(2, "rollback"), (2, "retrain")]
        held = [entry.said for entry in incidents.timeline(registry, 3) if entry.what == "held"]
        assert sorted(said.partition(":")[0] for said in held) == ["retrain", "rollback cools down"]


def test_only_a_training_that_is_over_is_followed_by_another(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        by = policy({"do": "retrain", "plan": "ci.yaml"}, {"do": "rollback"}, HOOK)
        seen(registry, by, [window(0, True), window(1, True)])
        assert planned(registry) == [(1, "retrain"), (1, "rollback"), (1, "notify/webhook")]
        taken = outbox.claimed(registry, "photos", "production", lambda called: 60)
        assert taken is not None and taken.action == "retrain"
        with registry.database.writing() as connection:
            assert outbox.settled(connection, taken, "failed", "the gate said no")
        seen(registry, by, [window(2, True), window(3, True)])
        assert planned(registry)[3:] == [(1, "retrain")]


def test_the_policy_of_the_page_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As people write it: ``on`` without quotes, which YAML 1.1 takes for a truth value."""
    page = (Path(__file__).parents[1] / "docs" / "watching.md").read_text()
    (tmp_path / "watch.yaml").write_text(page.split("```yaml")[1].split("```")[0])
    monkeypatch.setenv("SLACK_URL", "http://localhost:1")
    policy = Policy.load(tmp_path / "watch.yaml")
    assert [action.on for action in policy.actions if action.do == "rollback"] == [["errors", "latency"]]


def test_of_what_was_long_ago_is_told_and_no_more_is_done(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        by = policy({"do": "rollback"}, HOOK)
        with registry.database.writing() as connection:
            decided(connection, by, window(0, True), late=True)
        assert planned(registry) == [(1, "notify/webhook")]
        seen(registry, by, [window(1, True)])
        assert planned(registry) == [(1, "notify/webhook"), (1, "rollback")]


def test_processes_whose_windows_end_together_are_one_window(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        by = policy(persist="2 of 3", healthy=2)
        alarms = enumerate((True, False, True))
        together = [replace(window(5, alarm), windows=[f"of process {n}"]) for n, alarm in alarms]
        seen(registry, by, together)
        assert incidents.incidents(registry) == []
        seen(registry, by, [window(6, True)])
        assert len(incidents.incidents(registry)) == 1
        seen(registry, by, [replace(window(7, False), windows=[f"later, of process {n}"]) for n in range(3)])
        assert incidents.incident(registry, 1).state == "open"  # one moment at which all was well, not three
        seen(registry, by, [window(8, False)])
        assert incidents.incident(registry, 1).state == "closed"


def test_an_incident_of_a_signal_that_is_watched_no_more_is_closed(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        seen(registry, policy(HOOK), [window(0, True)])
        other = Policy.model_validate({"signals": {"latency": {}}, "actions": [HOOK]})
        seen(registry, other, [window(1, False, signal="latency")])
        assert incidents.incident(registry, 1).state == "closed"
        assert incidents.timeline(registry, 1)[-1].said == "the policy watches errors no more"


def test_no_training_begins_while_the_last_one_s_is_on_trial(tmp_path: Path, make) -> None:
    with Registry(tmp_path / "registry") as registry:
        for text in ("one", "two"):
            registry.add(make(text), "photos")
        registry.promote("photos@1", "production", override=True, why="it is a test")
        registry.promote("photos@2", "canary", override=True, why="incident 1: retrained", by=BY)
        for number in (2, 1):
            registry.promote(f"photos@{number}", "eu", override=True, why="it is a test")
        registry.rollback("photos", "eu", why="incident 1: elsewhere the older one is better", by=BY)
        registry.promote("photos@2", "us", override=True, why="incident 7: of another alias", by=BY)
        by = policy({"do": "retrain", "plan": "ci.yaml"})
        seen(registry, by, [window(0, True)])
        assert planned(registry) == []
        held = "retrain: photos@2, which the last one made, is on trial at canary"
        assert [entry.said for entry in incidents.timeline(registry, 1) if entry.what == "held"] == [held]
        registry.remove("photos", "canary", why="it was worse")
        seen(registry, by, [window(1, True)])
        assert planned(registry) == [(1, "retrain")]
