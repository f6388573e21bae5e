"""Several processes with a part of the batch each are one process with the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import distributed_worker as worker
import fastness as fs
from fastness.core import distributed

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
    *("--steps", "8", "--precision", "float32", "--seed", "1"),
]


def test_a_run_started_by_torchrun_is_the_run_of_one_process(tmp_path):
    """The first loss is the same; later ones part as float32 sums in another order do."""
    done = torchrun(2, "-m", "fastness", "train", *COMMAND, "--out", str(tmp_path / "2"), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 1 and json.loads(done.stdout)["steps"] == 8
    fs.train("digits", width=4, size=16, batch_size=12, steps=8, precision="float32", seed=1, out=tmp_path / "1")
    one, two = ([json.loads(x) for x in (tmp_path / n / "events.jsonl").read_text().splitlines()] for n in "12")
    assert [e["event"] for e in two] == [e["event"] for e in one]
    losses = [[e["loss"] for e in events if e["event"] == "step"] for events in (one, two)]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02)
    assert two[-1]["bundle"] == fs.load(tmp_path / "2").id


def test_resume_with_another_number_of_processes(tmp_path):
    """Three steps by two processes and the rest by one are the run of one, but for the rounding of float32."""
    done = torchrun(2, str(HERE / "distributed_worker.py"), str(tmp_path), "3")
    assert done.returncode == 0, done.stderr[-3000:]
    rest = worker.loop(tmp_path)
    rest.resume()
    assert rest.step == 3
    whole = worker.loop(tmp_path / "whole")
    whole.fix_length()
    start = flat(whole)
    for loop in (rest, whole):
        loop.run_silently()
    assert (flat(rest) - flat(whole)).norm() < 0.5 * (flat(whole) - start).norm()


def flat(loop):
    return torch.cat([p.detach().flatten().clone() for p in loop.method.encoder.parameters()])


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
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    done = torchrun(2, "-m", "fastness", "train", *COMMAND, "--batch-size", "13", "--out", str(tmp_path / "x"))
    assert done.returncode != 0 and "cannot be shared equally by 2 processes" in done.stderr
