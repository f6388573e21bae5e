"""A pipeline in one command: released once, refused without a trace in production, resumed wherever it was killed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import fastness as fs
from conftest import content, database, fork
from fastness.bundle import write
from fastness.ci import Job, Plan
from fastness.cli.main import app
from fastness.delivery.signing import new_key
from fastness.registry.target import target

DOCS = Path(__file__).parents[1] / "docs"
POLICY = "rules: [{measure: knn.accuracy, drop: 0.6}, {measure: geometry.effective_rank, floor: 1.2}]"
RECIPE = {"steps": 2, "width": 4, "size": 12, "batch_size": 8, "precision": "float32"}


@pytest.fixture
def place(tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which pipelines run, with a policy, a key and nothing else."""
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY)
    new_key("owner")
    return tmp_path


def planned(labelled: Path, **changes: Any) -> dict[str, Any]:
    """Return a plan; ``None`` leaves a field out."""
    whole = {
        "name": "photos",
        "data": str(labelled),
        "train": RECIPE,
        "evaluate": {"data": str(labelled), "checks": ["knn", "geometry"]},
        "sign": "owner",
        "gate": "policy.yaml",
        "alias": "production",
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


def write_plan(plan: dict[str, Any], name: str = "ci.yaml") -> Path:
    """Write a plan and return where."""
    Path(name).write_text(yaml.safe_dump(plan))
    return Path(name)


def states(record: dict[str, Any]) -> dict[str, str]:
    """Return the state of each step."""
    return {step["step"]: step["state"] for step in record["steps"]}


def test_a_release_a_refusal_an_override_and_a_way_back(
    fastness: Callable[..., Any], place: Path, labelled: Path, worse: Path
) -> None:
    data, zeros = content(labelled), content(worse)
    further = {
        "head": {"data": str(labelled), "abstain": 0.0},
        "export": ["onnx"],
        "collection": {"name": "shop", "data": str(labelled), "form": "onnx"},
    }
    write_plan(planned(labelled, **further))
    first = fastness("ci", "ci.yaml", "--json", "--by", "ann")
    assert first.status == 0, first.err
    record = json.loads(first.out)
    every = ["train", "evaluate", "head", "export", "sign", "add", "gate", "index", "promote"]
    assert states(record) == dict.fromkeys(every, "done") and record["state"] == "done"
    assert {**json.loads(Path("runs/ci-photos/ci.json").read_text()), "earlier": []} == {**record, "earlier": []}
    results = {step["step"]: step["result"] for step in record["steps"]}
    assert (
        0 <= results["evaluate"]["measured"]["knn.accuracy"][0] <= 1 and Path(results["evaluate"]["report"]).is_file()
    )
    for line in ("train     …", "promote   …", "photos@production -> photos@1"):
        assert line in first.err
    with fs.Registry(create=False) as registry:
        serves = target(registry, "photos", "production", "shop")
        assert serves is not None and serves.index is not None
        assert (str(serves.version), serves.version.bundle, serves.version.by) == ("photos@1", record["bundle"], "ann")
        assert (serves.move, str(serves.index), serves.index.items) == (record["move"], record["index"], 24)
        assert serves.index.at < serves.since  # the index was there before the alias moved
        released = registry.pull("photos@1", "released")
    assert fs.verify(released, "owner.pub").id == record["bundle"]
    assert {path.name for path in released.iterdir()} >= {"evidence", "heads", "exports", "signature.json"}

    again = fastness("ci", "ci.yaml", "--json")
    assert again.status == 0 and json.loads(again.out)["version"] == "photos@1"
    assert list(states(json.loads(again.out)).values()) == ["kept"] * 5 + ["done"] * 4

    write_plan(planned(labelled, name="photos", data=None, train=None, bundle=str(worse)), "worse.yaml")
    other = ("ci", "worse.yaml", "--out", "other")
    refused = fastness(*other, "--json")
    assert refused.status == 3 and "photos@2 stays out of production: the gate says no: rule 2" in refused.err
    assert len(refused.err.splitlines()[-1]) < 400
    told = json.loads(refused.out)
    assert told["state"] == states(told)["gate"] == "refused" and "promote" not in states(told)
    judged = Path("other/gate/judged.json").stat().st_ino
    with fs.Registry() as registry:
        assert registry.now_at("photos", "production") == 1 and len(registry.versions("photos")) == 2
        assert [move.what for move in registry.log()] == ["refuse", "promote"]

    assert fastness(*other, "--override").status == 2
    forced = fastness(*other, "--override", "--why", "it hurries")
    assert forced.status == 0 and "photos@production -> photos@2 (before: 1), OVERRIDE" in forced.out
    assert Path("other/gate/judged.json").stat().st_ino == judged  # not measured anew
    with fs.Registry() as registry:
        move = registry.log()[0]
        assert (move.number, move.override, move.why) == (2, True, "it hurries") and not (move.gate or {})["passed"]
        registry.rollback("photos", "production", why="it sees nothing", by="bob")
    returned = fastness(*other)
    assert returned.status == 3 and "photos@2 was taken out of production by bob" in returned.err
    with fs.Registry() as registry:
        assert registry.now_at("photos", "production") == 1 and len(registry.log()) == 4

    assert content(labelled) == data and content(worse) == zeros
    ours = {"ci.yaml", "worse.yaml", "policy.yaml", "owner", "owner.pub", "runs", "other", "registry", "released"}
    assert {path.name for path in place.iterdir()} == ours


def _run(folder: str) -> None:
    os.chdir(folder)
    Job(Plan.load("ci.yaml")).run()


def test_killed_at_every_step_and_run_again_it_is_released_once(place: Path, labelled: Path) -> None:
    collection = {"name": "shop", "data": str(labelled)}
    sketch = {"data": str(labelled), "most": 10}
    write_plan(planned(labelled, head={"data": str(labelled), "abstain": 0.4}, sketch=sketch, collection=collection))
    record = Path("runs/ci-photos/ci.json")
    for step in ("train", "evaluate", "head", "sketch", "sign", "add", "gate", "index", "promote"):
        process = fork(_run, str(place))
        while not record.exists() or step not in states(json.loads(record.read_text())):
            assert process.is_alive()
            time.sleep(0.002)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found = json.loads(record.read_text())
        assert states(found)[step] in ("running", "done")
    done = Job(Plan.load("ci.yaml")).run()
    assert states(done) | {"add": "kept", "gate": "kept", "index": "kept", "promote": "kept"} == dict.fromkeys(
        states(done), "kept"
    )
    with fs.Registry(create=False) as registry:
        assert [str(version) for version in registry.versions()] == ["photos@1"]
        assert [move.what for move in registry.log()] == ["promote"]
        serves = target(registry, "photos", "production", "shop")
        assert serves is not None and serves.index is not None and serves.index.items == 24
        fs.verify(registry.pull("photos@1"), "owner.pub")
        names = set(registry.files(serves.version))
    assert len([name for name in names if name.endswith("evidence.json")]) == 1
    assert not [name for name in names if "tmp" in name]
    assert {"sketch/reference.json", "sketch/reference.npz"} <= names
    assert len(list(Path("runs/ci-photos").glob("train-*"))) == 1


def test_a_dry_run_judges_and_writes_nothing(place: Path, labelled: Path, bundle: Path, worse: Path) -> None:
    plan = Plan.load(write_plan(planned(labelled, data=None, train=None, bundle=str(bundle), sign=None)))
    with pytest.raises(fs.BadInput, match="no registry here"):
        Job(plan, dry=True).run()
    found = Job(plan, until="evaluate").run()
    assert states(found) == {"bundle": "done", "evaluate": "done"} and not Path("registry").exists()
    with pytest.raises(fs.BadInput, match="--until sign: is no step of this run; there are: bundle, evaluate, add"):
        Job(plan, until="sign")
    assert states(Job(plan, until="gate").run())["evaluate"] == "kept"
    with fs.Registry() as registry:
        assert registry.now_at("photos", "production") is None and len(registry.versions()) == 1
    Job(plan).run()
    before = content(Path("registry"))
    assert states(Job(plan, "dry", dry=True).run()) == {"bundle": "done", "evaluate": "done", "gate": "done"}
    other = Plan.load(write_plan(planned(labelled, data=None, train=None, bundle=str(worse), sign="no key here")))
    job = Job(other, "other", dry=True)
    with pytest.raises(fs.GateRefused, match="photos: the gate says no: rule 2, geometry"):
        job.run()
    told = json.loads(job.path.read_text())
    assert states(told)["gate"] == told["state"] == "refused" and "says no" in told["steps"][-1]["error"]
    assert Path("other/gate/compare.md").is_file()
    assert content(Path("registry")).keys() == before.keys()
    with fs.Registry() as registry:
        assert len(registry.versions()) == len(registry.log()) == 1


def test_to_judge_a_pull_request_is_to_read_alone(place: Path, labelled: Path, bundle: Path, server: str) -> None:
    import psycopg

    address = database(server)
    given = {"data": None, "train": None, "bundle": str(bundle), "sign": None}
    items = {"name": "shop", "data": str(labelled)}
    with pytest.raises(fs.BadInput, match="collection: say where its index is kept"):
        Job(Plan.load(write_plan(planned(labelled, **given, collection=items))), registry=address, store="kept").run()
    plan = Plan.load(write_plan(planned(labelled, **given, collection={**items, "to": "indexes"})))
    Job(plan, registry=address).run()
    role = f"reader_{os.getpid()}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"create role {role} login")
        connection.execute(f"grant select on about, versions, aliases, alembic_version to {role}")
    reading = address.replace("postgres:@", f"{role}:@")
    assert states(Job(plan, "dry", registry=reading, dry=True).run())["gate"] == "done"
    with pytest.raises(fs.Failure, match="permission denied"):
        Job(plan, registry=reading).run()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"drop owned by {role}")
        connection.execute(f"drop role {role}")


def released(labelled: Path, bundle: Path) -> Plan:
    """Return a plan that releases a bundle whatever it is, and measures little."""
    Path("floor.yaml").write_text("rules: [{measure: geometry.effective_rank, floor: 0.0}]")
    little = {"evaluate": {"data": str(labelled), "checks": ["geometry"]}, "gate": "floor.yaml", "sign": None}
    return Plan.load(write_plan(planned(labelled, data=None, train=None, bundle=str(bundle), **little)))


def test_what_was_returned_stays_so_whatever_came_since(
    place: Path, labelled: Path, bundle: Path, make: Callable[[str], Path]
) -> None:
    """Until it is let in again by hand."""
    with fs.Registry() as registry:
        registry.add(make("first"), "photos")
        registry.promote("photos@1", "production", override=True, why="the first")
        plan = released(labelled, bundle)
        assert Job(plan).run()["version"] == "photos@2"
        registry.add(make("third"), "photos")

        def refused(by: str) -> None:
            before = registry.log()
            with pytest.raises(fs.GateRefused, match=f"photos@2 was taken out of production by {by}"):
                Job(plan).run()
            assert registry.log() == before

        registry.rollback("photos", "production", why="it sees nothing", by="bob")
        refused("bob")
        registry.promote("photos@3", "production", override=True, why="another")
        refused("bob")
        registry.rollback("photos", "production", why="no better", by="eve")
        refused("bob")
        registry.remove("photos", "production", why="over", by="eve")
        refused("bob")
        registry.rollback("photos", "production", to=2, why="it was well")
        registry.remove("photos", "production", why="over", by="ann")
        refused("ann")
        registry.promote("photos@2", "production", override=True, why="it was well")
        registry.promote("photos@3", "production", override=True, why="another")  # which nobody had returned
        assert Job(plan).run()["version"] == "photos@2" and registry.now_at("photos", "production") == 2


def test_a_gate_is_asked_anew_in_another_registry(
    place: Path, labelled: Path, bundle: Path, worse: Path, make: Callable[[str], Path], tmp_path: Path
) -> None:
    """Where the same number is another version."""
    ids = {}
    for name, first in (("here", worse), ("there", make("other"))):
        with fs.Registry(name) as registry:
            registry.add(first, "photos")
            registry.promote("photos@1", "production", override=True, why="the first")
        ids[name] = fs.load(first).id
    blurred = tmp_path / "blurred"
    loaded = fs.load(bundle)
    for parameter in loaded.encoder.parameters():
        parameter.data.mul_(0.5)
    write(blurred, loaded.encoder, loaded.recipe, loaded)
    plan = released(labelled, blurred)
    for name in ("here", "there"):
        Job(plan, registry=name, until="gate").run()
        compared = json.loads(Path("runs/ci-photos/gate/compare.json").read_text())["comparisons"][0]
        assert compared["before"]["bundle"] == ids[name]
    judged = Path("runs/ci-photos/gate/judged.json").stat().st_ino
    Job(plan, registry="there").run()
    assert Path("runs/ci-photos/gate/judged.json").stat().st_ino == judged  # not measured anew
    with fs.Registry("there") as registry:
        assert registry.now_at("photos", "production") == 2


def test_what_changed_is_done_again_and_nothing_else(place: Path, labelled: Path, bundle: Path) -> None:
    mine, items = place / "mine", place / "items"
    shutil.copytree(bundle, mine)
    (mine / "heads" / "default").mkdir(parents=True)
    (mine / "heads" / "default" / "note").write_text("a head of the bundle's own")
    shutil.copytree(labelled, items)
    given, head = content(mine), {"data": str(labelled), "abstain": 0.4}
    own = {"data": None, "train": None, "bundle": str(mine), "gate": None, "alias": None}

    def run(**changes: Any) -> dict[str, str]:
        plan = planned(labelled, evaluate={"data": str(items), "checks": ["knn"]}, **{**own, **changes})
        return states(Job(Plan.load(write_plan(plan))).run())

    once = {"bundle": "done", "evaluate": "done", "head": "done", "sign": "done", "add": "done"}
    assert run(head=head) == once
    assert run(head=head) == {**dict.fromkeys(once, "kept"), "add": "done"}
    assert run(head={**head, "abstain": 0.5}) == {**once, "bundle": "kept", "evaluate": "kept"}
    Path("runs/ci-photos/bundle/heads/default/head.json").write_text("{")  # somebody was there
    assert run(head={**head, "abstain": 0.5})["sign"] == "done"
    shutil.copy(items / "a" / "00.png", items / "b" / "zz.png")
    found = run(head=head)
    assert (found["bundle"], found["evaluate"], found["sign"]) == ("kept", "done", "done")
    assert len(list(Path("runs/ci-photos/bundle/evidence").iterdir())) == 1
    assert run() == {"bundle": "kept", "evaluate": "kept", "sign": "done", "add": "done"}
    made = content(Path("runs/ci-photos/bundle"))
    assert {name: value for name, value in made.items() if not name.startswith(("evidence", "signature"))} == given
    assert content(mine) == given
    (mine / "card.md").write_text("of what it was made")
    assert run()["bundle"] == "done" and Path("runs/ci-photos/bundle/card.md").exists()


def test_only_what_is_signed_is_released_where_keys_are_trusted(
    place: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTNESS_TRUSTED_KEYS", "owner.pub")
    plan = planned(labelled, evaluate={"data": str(labelled), "checks": ["geometry"]}, gate="floor.yaml")
    Path("floor.yaml").write_text("rules: [{measure: geometry.effective_rank, floor: 1.0}]")
    unsigned = {name: value for name, value in plan.items() if name != "sign"}
    with pytest.raises(fs.GateRefused, match="is not signed"):
        Job(Plan.load(write_plan(unsigned))).run()
    done = Job(Plan.load(write_plan(plan))).run()
    assert done["version"] == "photos@1" and states(done)["train"] == "kept"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Photos"}, "name: 'Photos' is no name"),
        ({"name": 2024}, "name = 2024: Input should be a valid string"),
        ({"data": None}, "nothing to release"),
        ({"bundle": "x"}, "'train' and 'bundle' contradict each other"),
        ({"colour": "red"}, "colour = red: unknown field; known: name, data"),
        ({"train": {"lr": "fast"}}, "train: lr = 'fast'"),
        ({"train": {"stepz": 2}}, "train: stepz = 2: unknown field"),
        ({"evaluate": {"data": "x", "chekcs": []}}, "evaluate.chekcs: unknown field; known: data, columns, checks"),
        ({"evaluate": {"data": "x", "checks": ["knm"]}}, "evaluate.checks: unknown check 'knm'; did you mean 'knn'"),
        ({"evaluate": None}, "a 'gate' judges by what 'evaluate' measures"),
        ({"evaluate": {"checks": ["knn"]}}, "evaluate.data: Field required"),
        ({"head": {"data": "x", "abstain": 2}}, "head.abstain = 2: Input should be less than 1"),
        ({"export": "onnx"}, "export = onnx: Input should be a valid list"),
        ({"export": ["onx"]}, "export: unknown form 'onx'"),
        ({"collection": {"name": "shop", "data": "x", "kind": "tree"}}, "collection: unknown kind of index 'tree'"),
        ({"collection": {"name": "shop", "data": "x", "form": "onnx"}}, "'export' does not make"),
        ({"columns": {"lable": "x"}}, "columns.lable = lable: Input should be 'image', 'text'"),
        ({"gate": None}, "'gate' and 'alias' belong together"),
        ({"gate": "none.yaml"}, "gate: none.yaml: No such file"),
        ({"alias": "3"}, "alias: '3' is no alias"),
    ],
)
def test_a_bad_plan_is_told_in_a_line(place: Path, changes: dict[str, Any], said: str) -> None:
    plan = write_plan(planned(Path("photos"), **changes))
    with pytest.raises(fs.BadInput) as error:
        Plan.load(plan)
    assert str(error.value).startswith("ci.yaml: ") and said in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_plan_and_what_is_not_there_is_told_before_anything_is_done(
    fastness: Callable[..., Any], place: Path, labelled: Path
) -> None:
    for text, said in (("[1]", "field: value"), ("", "field: value"), ("name: [", "no YAML")):
        Path("ci.yaml").write_text(text)
        with pytest.raises(fs.BadInput, match=said):
            Plan.load("ci.yaml")
    write_plan(planned(labelled, evaluate={"data": "labeled"}))
    ended = fastness("ci", "ci.yaml", "--json")
    assert (ended.status, ended.out) == (2, "") and "labeled: no such file or folder" in ended.err
    with pytest.raises(fs.BadInput, match="other: no private key can be read"):
        Job(Plan.load(write_plan(planned(labelled, sign="other")))).run()
    with pytest.raises(fs.BadInput, match="No such file"):
        Plan.load("none.yaml")
    unmeasured = planned(labelled, evaluate={"data": str(labelled), "checks": ["knn"]}, sign=None)
    with pytest.raises(fs.BadInput, match=r"policy\.yaml: rule 2: 'geometry\.effective_rank' is not measured"):
        Job(Plan.load(write_plan(unmeasured)), "early").run()
    with fs.Registry() as registry:
        assert registry.versions() == []
    assert not list(Path("runs").glob("*/*.json"))
    Path("runs/ci-photos/ci.json").write_text("{}")
    with pytest.raises(fs.BadInput, match=r"ci\.json: is no record of a pipeline"):
        Job(Plan.load(write_plan(planned(labelled)))).run()


def _commands(text: str) -> list[list[str]]:
    """Return the command lines of ``fastness`` in a text."""
    lines = (line.partition("  #")[0] for line in text.splitlines())
    return [shlex.split(line)[1:] for line in lines if re.match(r"fastness [a-z]", line)]


def _scripts(value: Any) -> list[str]:
    """Return the lines that a workflow runs."""
    if isinstance(value, dict):
        return [line for name, part in value.items() for line in _lines(name, part)]
    return [line for part in value for line in _scripts(part)] if isinstance(value, list) else []


def _lines(name: str, part: Any) -> list[str]:
    if name not in ("run", "script", "before_script", "after_script"):
        return _scripts(part)
    return (part if isinstance(part, str) else "\n".join(part)).splitlines()


def test_the_examples_are_accepted_by_the_command_and_the_plan(place: Path) -> None:
    text = (DOCS / "ci.md").read_text()
    lines = _commands(text)
    for name in ("github-actions.yml", "gitlab-ci.yml"):
        workflow = yaml.safe_load((DOCS / "workflows" / name).read_text())
        found = _commands("\n".join(_scripts(workflow)))
        assert {tuple(line[:2]) for line in found} == {("ci", "ci.yaml")} and len(found) == 2
        assert any("--dry-run" in line for line in found)
        lines += found
    group = typer.main.get_command(app)
    for verb, *words in lines:
        command = group.commands[verb]  # type: ignore[attr-defined]
        command.make_context(verb, words)  # raises for what the command does not know
    examples = re.findall(r"```yaml\n(# ci\.yaml.*?)```", text, re.DOTALL)
    assert len(examples) == 1
    Path("ci.yaml").write_text(examples[0])
    plan = Plan.load("ci.yaml")
    steps = [step.name for step in Job(plan).steps]
    assert steps == ["train", "evaluate", "head", "export", "sketch", "sign", "add", "gate", "index", "promote"]
    for field in Plan.model_fields:
        assert f"`{field}`" in text
