"""How good is an encoder after ten minutes of one processor core? fastness against lightly.

Every job runs alone on one core with one thread and is given a number of *CPU* seconds, all its processes
together, so that a noisy machine changes how long it takes but not what it may do. A job's number of steps is
fixed from the CPU time of a short trial, then it runs its whole schedule; what it really used is reported. A run that
used a tenth more or less than it might, since the machine changed its speed, is made again with as many steps as that
speed allows.
Start-up, decoding and the final embedding are not counted; fastness's online kNN is.

Jobs are resumable: each leaves a file in ``.bench/time_to_accuracy``. Two run at a time.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np

import common
from fastness.core.files import write_json
from fastness.metrics.intervals import student
from fastness.metrics.knn import knn_predict

FOLDER = common.WORK / "time_to_accuracy"
MINUTES = 10.0
OFF, ATTEMPTS = 0.1, 3  # the share of its budget by which a run may be off, and how often it is tried
ASK_POINTS = 18.0


@dataclass(frozen=True)
class Job:
    """One training run: who, with which options, for how many CPU minutes."""

    row: str
    side: str
    seed: int
    minutes: float
    options: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """File name of its result."""
        return f"{self.row.replace(' ', '-')}-{self.minutes:g}m-seed{self.seed}"


def jobs(quick: bool) -> list[Job]:
    """Return all jobs, those that the asks need first."""
    minutes, seeds = (1.0, 1) if quick else (MINUTES, 3)
    todo = [Job("lightly", "lightly", s, minutes) for s in range(seeds)]
    todo += [Job("fastness defaults", "fastness", s, minutes) for s in range(seeds)]
    todo += [Job("lightly", "lightly", 0, 6 * minutes)]
    return todo


def run(job: Job, core: int) -> dict[str, Any]:
    """Run a job unless its result is there; return its row."""
    path = FOLDER / f"{job.name}.json"
    if not path.exists():
        row = (_lightly if job.side == "lightly" else _fastness)(job, core)
        write_json(path, row)
        print(f"{job.name}: kNN {row['knn']:.4f} after {row['cpu_seconds']:.0f} CPU seconds", flush=True)
    return dict(json.loads(path.read_text()))


def _lightly(job: Job, core: int) -> dict[str, Any]:
    python = common.peer_python("lightly")
    base = [
        str(python),
        str(common.PEERS / "lightly_simclr.py"),
        "--data",
        str(common.cifar10_npz()),
        "--net",
        str(common.NET),
        "--width",
        "16",
        "--batch-size",
        "128",
        "--threads",
        "1",
        "--seed",
        str(job.seed),
    ]
    out = FOLDER / f"{job.name}.npz"
    seconds = {steps: _cpu([*base, "--steps", str(steps)], core)[0] for steps in (4, 16)}
    steps = int(60 * job.minutes / ((seconds[16] - seconds[4]) / 12))
    # The long run makes the steps that float32 would make in its time, but makes them in bfloat16, which is
    # three times as fast: its figure is wanted, not its time.
    precision = "float32" if job.minutes <= MINUTES else "bf16"

    def train(steps: int) -> float:
        cpu, output = _cpu([*base, "--steps", str(steps), "--precision", precision, "--out", str(out)], core)
        return cpu - float(json.loads(output.splitlines()[-1])["cpu_seconds_outside_training"])

    steps, cpu = _in_budget(train, steps, job.minutes) if precision == "float32" else (steps, train(steps))
    with np.load(out) as features:
        knn = _knn(features["train_features"], features["test_features"])
    out.unlink()
    return {
        "precision": precision,
        "row": job.row,
        "seed": job.seed,
        "minutes": job.minutes,
        "knn": knn,
        "steps": steps,
        "batch_size": 128,
        "cpu_seconds": cpu,
        "views": 256 * steps,
    }


def _fastness(job: Job, core: int) -> dict[str, Any]:
    folder = FOLDER / job.name
    base = [
        str(Path(sys.executable).with_name("fastness")),
        "train",
        str(common.cifar10_npz()),
        "--method",
        "simclr",
        "--width",
        "16",
        "--label",
        "none",
        "--json",
        "--seed",
        str(job.seed),
        *job.options,
    ]

    said: dict[str, Any] = {}

    def train(steps: int) -> float:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        _, output = _cpu([*base, "--steps", str(steps), "--out", str(folder)], core)
        said.update(json.loads(output.splitlines()[-1]))
        events = (folder / "events.jsonl").read_text().splitlines()
        return float(json.loads(events[-1])["cpu_seconds"])

    short, long = train(10), train(40)
    steps, cpu = _in_budget(train, int(60 * job.minutes / ((long - short) / 30)), job.minutes)
    code = (
        "import sys, numpy as np, fastness as fs; d = np.load(sys.argv[2]); b = fs.load(sys.argv[1]); "
        "np.savez(sys.argv[3], train=b.embed(d['images']), test=b.embed(d['test_images']))"
    )
    out = FOLDER / f"{job.name}.npz"
    _cpu([sys.executable, "-c", code, said["bundle"], str(common.cifar10_npz()), str(out)], core)
    with np.load(out) as features:
        knn = _knn(features["train"], features["test"])
    out.unlink()
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    return {
        "row": job.row,
        "seed": job.seed,
        "minutes": job.minutes,
        "knn": knn,
        "steps": steps,
        "batch_size": said["recipe"]["batch_size"],
        "cpu_seconds": cpu,
        "options": list(job.options),
    }


def _in_budget(train: Callable[[int], float], steps: int, minutes: float) -> tuple[int, float]:
    """Train for so many steps, and again if that was off the budget; return the steps and the CPU seconds used."""
    budget = 60 * minutes
    used = train(steps)
    for _ in range(ATTEMPTS - 1):
        if abs(used / budget - 1) <= OFF:
            break
        print(f"{steps} steps took {used:.0f} CPU seconds of {budget:.0f}; again", flush=True)
        steps = int(steps * budget / used)
        used = train(steps)
    return steps, used


def _cpu(command: list[str], core: int) -> tuple[float, str]:
    """Run a command on one core; return the CPU seconds of it and its children, and its output."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = ["taskset", "-c", str(core), *command]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return usage.ru_utime + usage.ru_stime, output


def _knn(bank: np.ndarray, queries: np.ndarray) -> float:
    """kNN on the test set: cosine, k = 20, temperature 0.07, bank of all 50,000 training images."""
    with np.load(common.cifar10_npz()) as data:
        labels, wanted = data["labels"], data["test_labels"]
    return float((knn_predict(bank, labels, queries) == wanted).mean())


def main() -> None:
    """Run what is missing and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    common.cifar10_npz()
    common.peer_python("lightly")
    cores: Queue[int] = Queue()
    available = sorted(os.sched_getaffinity(0))[:2]
    for core in available:
        cores.put(core)

    def work(job: Job) -> dict[str, Any]:
        core = cores.get()
        try:
            return run(job, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(len(available)) as pool:
        rows = list(pool.map(work, jobs(quick)))
    common.save("time_to_accuracy" + ("_quick" if quick else ""), rows, _asks(rows, quick), protocol=_protocol())


def _asks(rows: list[dict[str, Any]], quick: bool) -> list[dict[str, Any]]:
    minutes = min(row["minutes"] for row in rows)

    def values(name: str, length: float) -> list[float]:
        return [100 * row["knn"] for row in rows if row["row"] == name and row["minutes"] == length]

    ours, theirs = values("fastness defaults", minutes), values("lightly", minutes)
    longer = values("lightly", 6 * minutes)
    paired = np.array(ours) - np.array(theirs)
    mean, low, high = student(paired)
    gap = f"{mean:.1f} points [{low:.1f}, {high:.1f}] over {len(paired)} seeds"
    return [
        common.ask(
            "defaults ahead of lightly in equal CPU time",
            f">= {ASK_POINTS:g} points",
            gap,
            bool(mean >= ASK_POINTS) and not quick,
        ),
        common.ask(
            f"lightly's {6 * minutes:g}-minute figure within {minutes:g} minutes",
            f">= {longer[0]:.1f}",
            f"{np.mean(ours):.1f}",
            bool(np.mean(ours) >= longer[0]),
        ),
        common.ask("SimCLR 200 epochs batch 512 on a GPU against lightly", "to be stated", "-", None),
    ]


def _protocol() -> str:
    return (
        f"{common.cifar10_kind()}, ResNet-18 of width 16, small stem, one core and thread each, budget in CPU time; "
        "kNN on the 10,000 test images, cosine, k=20, temperature 0.07, bank of 50,000, last step"
    )


if __name__ == "__main__":
    began = time.time()
    main()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{time.time() - began:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU seconds")
