"""Profiles: how much of this machine a measured process may use."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass

from fastness.core.errors import BadInput
from fastness.core.hardware import cores

_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(cores?|KB|MB|GB)", re.IGNORECASE)


@dataclass(frozen=True)
class Profile:
    """What a process may use.

    Attributes:
        name: ``edge`` or ``cloud``.
        cores: how many.
        memory: most bytes that may be resident; ``None`` for no limit.
    """

    name: str
    cores: int
    memory: int | None = None

    @property
    def called(self) -> str:
        """Its name with its limits, fit for a folder: ``edge-1core-512MB``."""
        if self.name == "cloud":
            return self.name
        memory = [] if self.memory is None else [shown_bytes(self.memory).replace(" ", "")]
        return "-".join([self.name, f"{self.cores}core{'s' * (self.cores > 1)}", *memory])

    @property
    def enforced(self) -> str:
        """How the limits are kept, in a sentence."""
        held = f"bound to as many cores as threads, {self.cores} at most (sched_setaffinity), at this machine's speed"
        if self.memory is None:
            return f"{held}; memory is not limited"
        return (
            f"{held}; killed when more than {shown_bytes(self.memory)} are resident (looked at every 5 ms), refused if "
            f"the kernel's own peak was above it, and RLIMIT_DATA at twice that, set before anything is imported"
        )


def cloud() -> Profile:
    """Return all of this machine that this process may use."""
    return Profile("cloud", cores())


def edge(asked: str) -> Profile:
    """Read a profile such as ``1core,512MB``: cores, and optionally memory in KB, MB or GB (powers of 1,000).

    Raises:
        BadInput: it is none, wants more cores than there are, or this system cannot enforce it.
    """
    if sys.platform != "linux":
        raise BadInput("--edge: limits are enforced on Linux alone; measure there, or leave it out")
    found: dict[str, float] = {}
    for part in asked.split(","):
        match = _PART.fullmatch(part.strip())
        kind = "cores" if match and match[2].lower().startswith("core") else "memory"
        if match is None or kind in found:
            raise BadInput(f"--edge {asked}: '{part.strip()}' is not understood; say it as 1core,512MB")
        found[kind] = float(match[1]) * _BYTES.get(match[2].upper(), 1)
    return Profile("edge", _cores(asked, found.get("cores")), _memory(asked, found.get("memory")))


def _cores(asked: str, wanted: float | None) -> int:
    if wanted is None or wanted < 1 or wanted != int(wanted):
        raise BadInput(f"--edge {asked}: say how many whole cores, 1 at least: 1core,512MB")
    if wanted > cores():
        raise BadInput(f"--edge {asked}: this process may use {cores()} cores; ask for no more")
    return int(wanted)


def _memory(asked: str, wanted: float | None) -> int | None:
    if wanted is not None and wanted < 1:
        raise BadInput(f"--edge {asked}: nothing runs without memory; say it as 1core,512MB")
    return None if wanted is None else int(wanted)


def allowed(count: int) -> list[int]:
    """Return the numbers of this many cores of those that this process may use; empty where they cannot be chosen."""
    return sorted(os.sched_getaffinity(0))[:count] if hasattr(os, "sched_getaffinity") else []


def shown_bytes(count: float) -> str:
    """Return bytes as people say them, in powers of 1,000."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{figure(count / size)} {unit}"
    return f"{count:.0f} bytes"


def figure(value: float) -> str:
    """Return a number with three digits, or all of them before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
