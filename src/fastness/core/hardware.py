"""What this machine is, and what its arithmetic units are good at."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from pathlib import Path


@functools.cache
def _cpu_info() -> tuple[str, frozenset[str]]:
    """Return the processor's model name and its feature flags (empty where the system hides them)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    fields = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
        if key.strip() in {"model name", "flags"}
    }
    return fields.get("model name", platform.machine()), frozenset(fields.get("flags", "").split())


def cpu_has_fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AMX tiles)."""
    return {"amx_bf16", "amx_tile"} <= _cpu_info()[1]


def fast_bf16(device: str) -> bool:
    """Whether a kind of device (``cpu``, ``cuda``) computes faster in bfloat16 here."""
    if device == "cpu":
        return cpu_has_fast_bf16()
    import torch

    return device == "cuda" and torch.cuda.is_bf16_supported()


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def describe() -> dict[str, str | int | bool]:
    """Return the machine in a few words for evidence and benchmark files."""
    import torch

    facts: dict[str, str | int | bool] = {
        "cpu": _cpu_info()[0],
        "cores": cores(),
        "amx_bf16": cpu_has_fast_bf16(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of ``packages``; those not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
