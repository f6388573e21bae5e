"""Retraining: a pipeline that an incident started is carried to its end, whoever is killed, and releases once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastness.registry import Registry, incidents, outbox
from watched import killed_retrainings, served, settle, until, watching, write_policy

KILLS = int(os.environ.get("FASTNESS_KILLS", "2"))
GATE = "rules: [{measure: knn.accuracy, drop: 0.6}, {measure: geometry.effective_rank, floor: 1.2}]"


def plan(place: Path, labelled: Path, bundle: Path) -> dict[str, Any]:
    """Return a plan that releases a bundle if the gate says yes."""
    (place / "gate.yaml").write_text(GATE)
    measured = {"data": str(labelled), "checks": ["knn", "geometry"]}
    gate = {"gate": str(place / "gate.yaml"), "alias": "production"}
    return {"name": "photos", "bundle": str(bundle), "evaluate": measured, **gate}


def test_killed_anywhere_it_releases_once(tmp_path: Path, labelled: Path, make: Callable[[str], Path]) -> None:
    stated = plan(tmp_path, labelled, make("new"))
    assert killed_retrainings(tmp_path, make("old"), stated, KILLS, span=6.0) == []


@pytest.mark.parametrize("broken", [False, True])
def test_what_the_gate_refuses_and_what_cannot_run_is_said(
    tmp_path: Path, labelled: Path, worse: Path, make: Callable[[str], Path], broken: bool
) -> None:
    stated = {"name": "no name"} if broken else plan(tmp_path, labelled, worse)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(stated))
    retrain = {"do": "retrain", "plan": str(tmp_path / "plan.yaml"), "out": str(tmp_path / "out"), "timeout": 0.1}
    policy = write_policy(tmp_path / "policy.yaml", retrain | {"attempts": 1, "pause": 0.01})
    served(tmp_path / "watch", [0.2])
    with Registry(tmp_path / "registry") as registry:
        registry.add(make("old"), "photos")
        registry.promote("photos@1", "production", override=True, why="it is a test")
        settle(watching(registry, tmp_path / "watch", policy))
        (row,) = outbox.actions_of(registry, 1)
        assert row.state == "failed" and registry.now_at("photos", "production") == 1
        assert ("plan.yaml: nothing to release" if broken else "the gate says no: rule 2") in row.said
        assert [entry.what for entry in incidents.timeline(registry, 1)][-1] == "failed"


def test_a_plan_that_cannot_run_is_given_up_also_by_monitors_that_look_once(
    tmp_path: Path, make: Callable[[str], Path]
) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"name": "no name"}))
    retrain = {"do": "retrain", "plan": str(tmp_path / "plan.yaml"), "out": str(tmp_path / "out"), "timeout": 1}
    policy = write_policy(tmp_path / "policy.yaml", retrain | {"attempts": 2, "pause": 0.01})
    served(tmp_path / "watch", [0.2])
    with Registry(tmp_path / "registry") as registry:
        registry.add(make("old"), "photos")
        registry.promote("photos@1", "production", override=True, why="it is a test")
        watching(registry, tmp_path / "watch", policy).look()

        def looked() -> bool:
            watching(registry, tmp_path / "watch", policy).act()
            return not outbox.actions_of(registry, 1)[0].open

        until(looked)
        (row,) = outbox.actions_of(registry, 1)
        assert row.state == "failed" and row.said.startswith("given up after 2 attempts: ") and "nothing to" in row.said
        (log,) = (tmp_path / "out").glob("photos-production-incident-1-*.log")
        assert log.read_text().count("nothing to release") == 2
