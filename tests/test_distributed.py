"""Several processes with a part of the batch each are one process with the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import distributed_worker as worker
import fastness as fs
from fastness.core import distributed
from fastness.training import checkpoint

HERE = Path(__file__).parent


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([*launcher, *command], capture_output=True, text=True, cwd=HERE)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for processes in (2, 3):
        done = torchrun(processes, str(HERE / "distributed_worker.py"), str(folder))
        assert done.returncode == 0, done.stderr[-3000:]
    several = {
        (size, rank): torch.load(folder / f"{size}-{rank}.pt", weights_only=True)
        for size in (2, 3)
        for rank in range(size)
    }
    return worker.everything(), several


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "gradient cache"])
@pytest.mark.parametrize("case", range(len(worker.CASES)), ids=[f"{n}-{o}" for n, o in worker.CASES])
@pytest.mark.parametrize("processes", [2, 3])
def test_loss_gradients_and_statistics_are_those_of_one_process(processes, case, cached, results):
    one, several = results
    mine = [name for name in one if name.startswith(f"{case}/{cached}/")]
    assert len(mine) > 20
    for rank in range(processes):
        theirs = several[processes, rank]
        assert sorted(mine) == sorted(name for name in theirs if name.startswith(f"{case}/{cached}/"))
        for name in mine:
            torch.testing.assert_close(theirs[name], one[name], rtol=1e-6, atol=1e-10, msg=f"{name}, rank {rank}")


COMMAND = [
    *("digits", "--method", "simclr", "--width", "4", "--size", "16", "--batch-size", "12"),
    *("--steps", "1", "--precision", "float32", "--seed", "1"),
]


def test_a_run_started_by_torchrun_is_the_run_of_one_process(tmp_path):
    """Its first loss is the same; later ones part as float32 sums in another order do."""
    done = torchrun(2, "-m", "fastness", "train", *COMMAND, "--out", str(tmp_path / "2"), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 1 and json.loads(done.stdout)["steps"] == 1
    fs.train("digits", width=4, size=16, batch_size=12, steps=1, precision="float32", seed=1, out=tmp_path / "1")
    one, two = ([json.loads(x) for x in (tmp_path / n / "events.jsonl").read_text().splitlines()] for n in "12")
    assert [e["event"] for e in two] == [e["event"] for e in one]
    losses = [[e["loss"] for e in events if e["event"] == "step"] for events in (one, two)]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)
    assert two[-1]["bundle"] == fs.load(tmp_path / "2").id


def test_resume_with_another_number_of_processes(tmp_path):
    """What two processes saved at step 3 goes on, by one process, to what the two saved at step 4."""
    states = {}
    for steps in (3, 4):
        done = torchrun(2, str(HERE / "distributed_worker.py"), str(tmp_path / f"{steps}"), f"{steps}")
        assert done.returncode == 0, done.stderr[-3000:]
        states[steps] = load_file(tmp_path / f"{steps}" / checkpoint.NAME)
    run = worker.loop(tmp_path / "3")
    run.resume()
    assert run.step == 3
    run.update(run.source(3, 4), 3, run.total)
    run.step = 4
    run.folder = tmp_path / "one"
    run.save()
    found = load_file(run.checkpoint_path)
    assert sorted(found) == sorted(states[4])
    moved = sum((states[4][n].double() - states[3][n].double()).square().sum() for n in found) ** 0.5
    apart = sum((states[4][n].double() - found[n].double()).square().sum() for n in found) ** 0.5
    assert apart < 0.05 * moved


@pytest.mark.parametrize("processes", [2, 3])
def test_parts_of_a_batch_have_the_views_of_the_whole(processes, monkeypatch):
    batches = worker.loop(Path()).batches
    whole = batches.make(5)
    monkeypatch.setattr(distributed, "size", lambda: processes)
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(batches.make(5))
    for view, pieces in zip(whole.views, zip(*(part.views for part in parts), strict=True), strict=True):
        assert torch.equal(torch.cat(pieces), view)
    assert torch.equal(torch.cat([part.known.labels for part in parts]), whole.known.labels)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    done = torchrun(2, "-m", "fastness", "train", *COMMAND, "--batch-size", "13", "--out", str(tmp_path / "x"))
    assert done.returncode != 0 and "cannot be shared equally by 2 processes" in done.stderr
