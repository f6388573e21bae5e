"""What runs in a process of its own: limits first, then the imports, then the calls that are timed.

Run as ``python -P worker.py JOB STARTED``: the job is a JSON file, the start a reading of the monotonic clock. It says
what it finds line by line in the job's ``out``, so that what was measured before it is stopped is not lost. Of an
export it imports ``fastness_runtime`` alone, so that memory and start-up are those of the runtime.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Embed = Callable[[list[Any], int], Any]
_WARM = 3  # calls before those that are timed
_RAPL = Path("/sys/class/powercap")


def main() -> None:
    """Do one job."""
    entered = time.monotonic()
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    begun = float(sys.argv[2])
    _enforce(job)
    items = _items(Path(job["items"]), job["most"])
    with Path(job["out"]).open("a", encoding="utf-8") as out:

        def say(**found: Any) -> None:
            out.write(json.dumps(found) + "\n")
            out.flush()

        read = time.monotonic()
        load = {"export": _export, "torch": _torch}[job["kind"]](job)
        imported = time.monotonic()
        embed = load()
        loaded = time.monotonic()
        embed(items[:1], 1)
        answered = time.monotonic()
        # Reading the items that are handed over is no part of a start.
        parts = {"python": entered - begun, "imports": imported - read, "load": loaded - imported}
        parts["first_answer"] = answered - loaded
        say(event="started", parts=parts, memory=_peak(), cores=_cores())
        for batch in job["batches"]:
            say(event="batch", batch=batch, **_timed(embed, items, batch, job["calls"], job["seconds"]), memory=_peak())


def _enforce(job: dict[str, Any]) -> None:
    """Bind this process to its cores, and refuse it memory far beyond its limit; before anything large is imported.

    Memory that is reserved and never touched costs a device nothing, and libraries reserve up to as much again as they
    touch: what is resident is watched from outside, and this limit is twice that one.
    """
    if job["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cores"])
    if job["memory"] is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (2 * job["memory"], 2 * job["memory"]))


def _items(folder: Path, most: int) -> list[Any]:
    """Return what `handed.write` wrote, up to so many items."""
    told: dict[str, Any] = json.loads((folder / "items.json").read_text(encoding="utf-8"))
    if "items" in told:
        return list(told["items"][:most])
    with (folder / "items.bin").open("rb") as handle:
        return [handle.read(length) for length in told["lengths"][:most]]


def _export(job: dict[str, Any]) -> Callable[[], Embed]:
    """Import the runtime and return what loads an export."""
    import fastness_runtime

    def load() -> Embed:
        encoder = fastness_runtime.load(job["folder"], threads=job["threads"], key=())
        return lambda items, size: encoder.embed(items, batch_size=size)

    return load


def _torch(job: dict[str, Any]) -> Callable[[], Embed]:
    """Import torch and return what loads a bundle."""
    import torch

    from fastness.bundle import load as load_bundle

    def load() -> Embed:
        torch.set_num_threads(job["threads"])
        bundle = load_bundle(job["folder"], key=())
        bundle = bundle if job["side"] is None else bundle.of_side(job["side"])
        return lambda items, size: bundle.embed(items, batch_size=size)

    return load


def _timed(embed: Embed, items: list[Any], batch: int, calls: int, seconds: float) -> dict[str, Any]:
    """Return the latency of each call, and what they all took of the processor.

    Two calls at least, and then no more than so many, nor any that would begin later than so many seconds.
    """
    place = 0

    def call() -> float:
        nonlocal place
        chosen = [items[(place + i) % len(items)] for i in range(batch)]
        place += batch
        start = time.perf_counter()
        embed(chosen, batch)
        return time.perf_counter() - start

    until = time.perf_counter() + seconds
    for _ in range(_WARM):
        call()
        if time.perf_counter() > until:
            break
    place = 0
    found: list[float] = []
    until, used, joules = time.perf_counter() + seconds, time.process_time(), rapl(_RAPL)
    while len(found) < 2 or (len(found) < calls and time.perf_counter() < until):
        found.append(call())
    return {"seconds": found, "cpu": time.process_time() - used, "joules": used_since(joules, rapl(_RAPL))}


def rapl(root: Path) -> dict[str, tuple[int, int]]:
    """Return each processor package's counter of used energy, and where it begins anew, in microjoules.

    Intel's running average power limit, which AMD has too; empty where the system does not let it be read.
    """
    found = {}
    for zone in sorted(root.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:
            continue  # a part of a package, which is counted with it
        try:
            found[zone.name] = (
                int((zone / "energy_uj").read_text(encoding="ascii")),
                int((zone / "max_energy_range_uj").read_text(encoding="ascii")),
            )
        except OSError:
            return {}  # most systems show them to root alone
    return found


def used_since(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float | None:
    """Return the joules between two readings of `rapl`; ``None`` where there are none."""
    if not before or before.keys() != after.keys():
        return None
    used = (after[zone][0] - start + (span if after[zone][0] < start else 0) for zone, (start, span) in before.items())
    return sum(used) / 1e6


def _peak() -> int | None:
    """Return the most bytes that were ever resident, as the kernel counted them."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


if __name__ == "__main__":
    main()
