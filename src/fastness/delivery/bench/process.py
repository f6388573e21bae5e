"""A worker's process: started afresh, watched, and stopped when it takes more than its profile allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastness.core.files import write_json
from fastness.delivery.bench import worker
from fastness.delivery.bench.profiles import Profile, allowed, shown_bytes

_EVERY = 0.005  # seconds between looks at its memory
_REFUSED = (  # what libraries say that were refused memory
    "MemoryError",
    "bad_alloc",
    "Cannot allocate memory",
    "Failed to allocate",
    "failed to map segment",
    "can't start new thread",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a worker.

    Attributes:
        started: what it said of its start; ``None`` if it did not get so far.
        batches: what it said of each batch size.
        trouble: why it ended early, in a line.
    """

    started: dict[str, Any] | None
    batches: list[dict[str, Any]]
    trouble: str | None


def work(job: dict[str, Any], profile: Profile, threads: int) -> Outcome:
    """Let a fresh process do a job (see `worker`), with so many threads on as many cores and the profile's memory."""
    with tempfile.TemporaryDirectory(prefix="fastness-bench-") as name:
        folder = Path(name)
        whole = {"threads": threads, "cores": allowed(threads), "memory": profile.memory, "out": str(folder / "out")}
        write_json(folder / "job.json", job | whole)
        (folder / "out").touch()
        command = [sys.executable, "-P", worker.__file__, str(folder / "job.json"), repr(time.monotonic())]
        with (folder / "said").open("wb") as said:
            ended, killed = watched(command, profile.memory, said, _environment(threads))
        found = [json.loads(line) for line in (folder / "out").read_text(encoding="utf-8").splitlines()]
        error = (folder / "said").read_text(encoding="utf-8", errors="replace")
    fits = [line for line in found if profile.memory is None or (line["memory"] or 0) <= profile.memory]
    over = killed or len(fits) < len(found)
    started = next((line for line in fits if line["event"] == "started"), None)
    batches = [line for line in fits if line["event"] == "batch"]
    return Outcome(started, batches, _trouble(over, ended, error, profile))


def watched(command: list[str], memory: int | None, said: Any, environment: dict[str, str]) -> tuple[int, bool]:
    """Run a command; kill it when more than so many bytes of it are resident.

    Args:
        said: an open file for what it writes.

    Returns:
        its exit status, and whether it was killed for its memory.
    """
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment)
    try:
        while memory is not None and process.poll() is None:
            if resident(process.pid) > memory:
                process.kill()
                return process.wait(), True
            time.sleep(_EVERY)
        return process.wait(), False
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def resident(pid: int) -> int:
    """Return how many bytes of a process are in memory or were moved out of it; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("VmRSS:", "VmSwap:")))


def _environment(threads: int) -> dict[str, str]:
    """Return the environment, with as many threads for each library as were asked for."""
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(counts, str(threads))}


def _trouble(over: bool, ended: int, error: str, profile: Profile) -> str | None:
    """Return why a worker ended early."""
    refused = any(word in error for word in _REFUSED)
    if profile.memory is not None and (over or (ended and refused)):
        return f"does not fit: needed more than {shown_bytes(profile.memory)}"
    if ended:
        last = (error.strip().splitlines() or [f"ended with status {ended}"])[-1]
        return f"failed: {' '.join(last.split())[:200]}"
    return None
