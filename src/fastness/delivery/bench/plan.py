"""How a bench is measured: profiles, batch sizes, threads, and how many calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastness.core.errors import BadInput
from fastness.delivery.bench.profiles import Profile, cloud, edge


@dataclass(frozen=True)
class Plan:
    """What is measured of each form.

    Attributes:
        profiles: in which.
        batches: items at once, rising.
        threads: wanted in each profile; ``None`` for one and for as many as its cores.
        calls: timed of each form, threads and batch, over all repeats.
        seconds: after which, in each repeat, no further call begins.
        repeats: processes of each form and threads, in turns with the others.
        watts: of a busy core, where energy is estimated.
    """

    profiles: tuple[Profile, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...] | None
    calls: int
    seconds: float
    repeats: int
    watts: float

    def threads_of(self, profile: Profile) -> tuple[int, ...]:
        """Return the numbers of threads to measure in a profile."""
        return self.threads or tuple(sorted({1, profile.cores}))


def plan(
    edge_asked: str | None,
    in_cloud: bool,
    batches: Sequence[int],
    threads: Sequence[int] | None,
    calls: int,
    seconds: float,
    repeats: int,
    watts: float,
) -> Plan:
    """Check what was asked for; without a profile it is the cloud's, all of this machine.

    Raises:
        BadInput: a number is out of range.
    """
    profiles = [edge(edge_asked)] if edge_asked is not None else []
    profiles += [cloud()] if in_cloud or not profiles else []
    for name, values in (("--batch", batches), ("--threads", threads or ()), ("--repeats", [repeats])):
        if any(value < 1 for value in values):
            raise BadInput(f"{name} {min(values)}: give 1 or more")
    if not batches:
        raise BadInput("--batch: give one size at least")
    if calls < 2:
        raise BadInput(f"--calls {calls}: give 2 or more; a 95th percentile wants 20, a 99th 100")
    for name, number in (("--seconds", seconds), ("--watts", watts)):
        if not (math.isfinite(number) and number > 0):
            raise BadInput(f"{name} {number}: give more than 0")
    for profile in profiles:
        if max(threads or [1]) > profile.cores:
            raise BadInput(f"--threads {max(threads or [1])}: the {profile.name} profile has {profile.cores} cores")
    asked = tuple(sorted(set(threads))) if threads else None
    return Plan(tuple(profiles), tuple(sorted(set(batches))), asked, calls, seconds, repeats, watts)
