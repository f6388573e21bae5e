"""Traffic: windows that are judged together, as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastness.evaluation.slices import said
from fastness.monitoring.kept.windows import SECONDS, Kept
from fastness.monitoring.window import Array, Window


@dataclass(frozen=True)
class Traffic:
    """What was asked and answered in some windows of one version.

    Attributes:
        version: that answered.
        start, end: when, in microseconds since 1970 (UTC).
        counts: see `Kept`.
        latency: int64, requests by the time that they took; see `windows.SECONDS`.
        parts: the windows.
    """

    version: str
    start: int
    end: int
    counts: dict[str, float]
    latency: Array
    parts: Sequence[Kept]

    @classmethod
    def of(cls, parts: Sequence[Kept]) -> Traffic:
        """Return windows of one version as one."""
        counts: dict[str, float] = defaultdict(float)
        for part in parts:
            for name, count in part.counts.items():
                counts[name] += count
        latency = np.sum([part.latency for part in parts], axis=0)
        start, end = min(part.start for part in parts), max(part.end for part in parts)
        return cls(parts[0].version, start, end, dict(counts), latency, parts)

    @cached_property
    def window(self) -> Window:
        """The items that were kept of all of them; read from their files."""
        return joined([part.window for part in self.parts])

    def slower(self, seconds: float) -> int:
        """Return how many requests took longer, as well as the counts tell: those of the step that it lies in not."""
        return int(self.latency[int(np.searchsorted(SECONDS, seconds)) + 1 :].sum())


def joined(windows: Sequence[Window]) -> Window:
    """Return the items of several windows in one; what one of them knows nothing of is missing there."""
    windows = [window for window in windows if len(window)] or windows[:1]
    if len(windows) == 1:
        return windows[0]
    columns: dict[str, Array] = {}
    for name in dict.fromkeys(name for window in windows for name in window.columns):
        numbers = all(w.columns[name].dtype.kind == "f" for w in windows if name in w.columns)
        columns[name] = np.concatenate([_column(window, name, numbers) for window in windows])
    ids = [i for window in windows for i in (window.ids if len(window.ids) else [""] * len(window))]
    at = np.concatenate([w.at if len(w.at) else np.zeros(len(w), np.int64) for w in windows])
    return Window(np.concatenate([window.vectors for window in windows]), columns, ids, at)


def _column(window: Window, name: str, numbers: bool) -> Array:
    found = window.columns.get(name)
    if found is None:
        return np.full(len(window), np.nan) if numbers else np.full(len(window), "", object)
    if numbers or found.dtype.kind != "f":
        return found
    return np.array(["" if np.isnan(value) else said(float(value)) for value in found], object)
