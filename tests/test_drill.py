"""A drill notices what a policy watches, misses what it does not, reaches nobody and leaves what serves as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import fastness as fs
from conftest import EXECUTABLE, picture, png
from fastness.core.errors import BadInput, GateRefused
from fastness.monitoring.drill.drill import Drilled, Rehearsed, drill
from fastness.monitoring.drill.rehearsed import happened, sent
from fastness.monitoring.drill.scratch import Scratch
from fastness.monitoring.policy import Policy
from fastness.registry import Registry
from fastness.registry.incidents import incidents
from served import YES, Made, release
from watched import Receiver

SPEC = "words@production"


def policy(*actions: dict[str, Any], **signals: Any) -> Policy:
    """Return a policy that looks at little traffic."""
    return Policy.model_validate(
        {"signals": signals or {"errors": {}}, "least": 60, "healthy": 1, "actions": [*actions]}
    )


@pytest.fixture(scope="module")
def registry(words: list[Made], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with two versions with sketches, the second of which serves."""
    copies = []
    for number, one in enumerate(words[:2]):
        copy = Path(shutil.copytree(one.bundle, tmp_path_factory.mktemp("drilled") / str(number)))
        fs.sketch(copy, one.data, form="onnx", **one.columns)
        copies.append(Made(copy, one.data, one.columns))
    with Registry(tmp_path_factory.mktemp("drill") / "registry") as opened:
        release(opened, copies, "words", index=False)
        opened.promote("words@2", "production", why=YES, override=True)
        yield opened


def test_a_broken_index_is_noticed_rolled_back_and_nobody_is_told(
    registry: Registry, words: list[Made], tmp_path: Path
) -> None:
    moves, file = registry.log(), tmp_path / "watch.yaml"
    with Receiver() as people:
        told = {"do": "notify", "to": "alertmanager", "url": people.url}
        trains = {"do": "retrain", "plan": "no-such-plan.yaml", "on": ["errors"], "cooldown": 1000}
        back = {"do": "rollback", "on": ["errors"], "budget": {"times": 1, "days": 1000}}
        stated = policy(told, trains, back, errors={}).model_dump(mode="json", exclude_none=True)
        file.write_text(yaml.safe_dump(stated))
        options = [
            "--data",
            words[0].data,
            "--policy",
            file,
            "--registry",
            registry.address,
            "--out",
            tmp_path / "copy",
        ]
        options += ["--text", "text", "--label", "kind", "--accidents", "errors", "--json"]
        command = [EXECUTABLE, "drill", SPEC, *map(str, options)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert people.got == []
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["missed"] == [] and found["versions"] == ["words@1", "words@2"]
    (errors,) = found["accidents"]
    assert (errors["signal"], errors["mended_by"]) == ("errors", "rollback")
    assert set(errors["done"]) == {"notify/alertmanager", "retrain", "rollback"} and None not in errors["done"].values()
    assert errors["answers"]["200"] and errors["answers"]["500"]
    assert errors["told"] and errors["recovered"] is not None and errors["windows"] > 0
    assert registry.log() == moves and incidents(registry) == []


def test_what_was_not_detected_is_refused() -> None:
    seen, missed = Rehearsed("drift", 3.0, 1, {200: 9}), Rehearsed("latency", None, 4, {200: 9})
    Drilled(SPEC, ["words@2"], 5.0, 1, [seen], Path("copy")).enforce()
    with pytest.raises(GateRefused, match="not detected: latency"):
        Drilled(SPEC, ["words@2"], 5.0, 1, [seen, missed], Path("copy")).enforce()


def test_the_copy_is_broken_and_whole_again(registry: Registry, words: list[Made], tmp_path: Path) -> None:
    from fastness.index import Index
    from fastness.registry.indexes import indexed

    scratch = Scratch(registry, "words", "production", tmp_path / "copy", lambda line: None)
    try:
        scratch.index(words[0].data, None, dict(words[0].columns))
        index = indexed(scratch.registry, "words", 2, "drill")
        assert index is not None
        with Index.open(index.address) as opened:
            before = opened.show()
            with scratch.broken_index(), pytest.raises(TypeError):
                opened.show()
            assert opened.show()["items"] == before["items"]
        assert scratch.registry.now_at("words", "production") == 2 and not scratch.back()
        scratch.registry.rollback("words", "production", why=YES)
        assert scratch.back() and scratch.registry.now_at("words", "production") == 2
    finally:
        scratch.close()
    assert [version.note for version in Registry(tmp_path / "copy" / "registry").versions()] == ["words@1", "words@2"]


def test_what_happens_to_items_is_seeded_and_can_be_sent() -> None:
    items = {
        "image": [png(picture(1)), picture(2)],
        "text": ["a red rose by the sea", "wine"],
        "table": [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}],
    }
    for modality, usual in items.items():
        strange = [sent(item) for item in happened(usual, modality, 0)]
        assert strange == [sent(item) for item in happened(usual, modality, 0)]
        assert strange != [sent(item) for item in usual]
        json.dumps(strange)
    with pytest.raises(BadInput, match="--drift"):
        happened([b""], "sides", 0)


def test_only_another_drill_s_folder_is_emptied(registry: Registry, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="holds other things"):
        Scratch(registry, "words", "production", mine, lambda line: None)
    with pytest.raises(BadInput, match="canary"):
        Scratch(registry, "words", "canary", tmp_path / "copy", lambda line: None)
    for _ in range(2):
        Scratch(registry, "words", "production", tmp_path / "copy", lambda line: None).close()
        (tmp_path / "copy" / "old").touch()
    assert (mine / "thesis.txt").read_text() == "years of work"
    Scratch(registry, "words", "production", tmp_path / "copy", lambda line: None).close()
    assert not (tmp_path / "copy" / "old").exists()


def test_what_cannot_be_rehearsed_is_said(registry: Registry, words: list[Made], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="can be rehearsed: drift, errors, latency"):
        drill(registry, SPEC, words[0].data, policy(), tmp_path / "copy", accidents=["fire"])
    with pytest.raises(BadInput, match="canary"):
        drill(registry, "words@canary", words[0].data, policy(), tmp_path / "copy", **words[0].columns)
