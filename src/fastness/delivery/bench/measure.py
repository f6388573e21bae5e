"""Forms take turns in processes of their own, and what came of each becomes rows."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastness.delivery.bench.candidates import Candidate
from fastness.delivery.bench.percentiles import percentile
from fastness.delivery.bench.plan import Plan
from fastness.delivery.bench.process import Outcome, work
from fastness.delivery.bench.profiles import Profile
from fastness.delivery.bench.row import Row

Turn = tuple[Profile, int, Candidate]


def measured(
    found: Sequence[Candidate], plan: Plan, items: Path, most: int, side: str | None, say: Callable[[str], None]
) -> list[Row]:
    """Measure every candidate in every profile.

    In each repeat every form has one turn, so that what slows the machine for a while slows all alike.

    Args:
        found: what to measure.
        plan: how.
        items: folder that `handed.write` wrote.
        most: items of it.
        side: of which side of things with several.
        say: called with a line of progress.
    """
    turns = [(p, threads, c) for p in plan.profiles for threads in plan.threads_of(p) for c in found]
    outcomes: dict[Turn, list[Outcome]] = defaultdict(list)
    each = math.ceil(plan.calls / plan.repeats)
    for repeat in range(plan.repeats):
        for turn in turns:
            profile, threads, candidate = turn
            batches = _still(plan.batches, outcomes[turn])
            if not batches:
                continue
            on = f"{profile.name}, {threads} thread{'s' * (threads > 1)}"
            say(f"{on}: {candidate.name} ({repeat + 1} of {plan.repeats}) …")
            job: dict[str, Any] = {
                "kind": candidate.kind,
                "folder": str(candidate.folder),
                "side": side,
                "items": str(items),
            }
            job |= {"most": most, "batches": batches, "calls": each, "seconds": plan.seconds}
            outcomes[turn].append(work(job, profile, threads))
    return [_row(*turn, batch, outcomes[turn], plan.watts) for turn in turns for batch in plan.batches]


def _still(batches: Sequence[int], before: Sequence[Outcome]) -> list[int]:
    """Return the batch sizes that all earlier turns came through."""
    return [b for b in batches if all(any(line["batch"] == b for line in one.batches) for one in before)]


def _row(
    profile: Profile, threads: int, candidate: Candidate, batch: int, outcomes: Sequence[Outcome], watts: float
) -> Row:
    start = Row(profile.name, candidate.name, threads, batch, candidate.size)
    lines: list[dict[str, Any]] = []
    for outcome in outcomes:
        line = next((line for line in outcome.batches if line["batch"] == batch), None)
        if line is None:  # it does not always fit, or fails at times: so it does not do
            return replace(start, trouble=outcome.trouble or "failed: ended without an answer")
        lines.append(line)
    seconds = [round(s, 7) for line in lines for s in line["seconds"]]
    peaks = [line["memory"] for line in lines if line["memory"] is not None]
    starts = [outcome.started for outcome in outcomes if outcome.started is not None]
    return replace(
        start,
        calls=len(seconds),
        p50=percentile(seconds, 50),
        p95=percentile(seconds, 95),
        p99=percentile(seconds, 99),
        throughput=batch * len(seconds) / sum(seconds),
        memory=max(peaks, default=None),
        startup=statistics.median(sum(s["parts"].values()) for s in starts),
        energy=_joules(lines, watts) / (batch * len(seconds)) * 1000,
        power="estimate" if any(line["joules"] is None for line in lines) else "RAPL",
        seconds=tuple(seconds),
        cores=tuple(starts[0]["cores"]),
        parts={part: statistics.median(s["parts"][part] for s in starts) for part in starts[0]["parts"]},
    )


def _joules(lines: Sequence[dict[str, Any]], watts: float) -> float:
    """Return what the calls used: by the processor's own counter, else by the time that cores were busy."""
    if all(line["joules"] is not None for line in lines):
        return float(sum(line["joules"] for line in lines))
    return watts * float(sum(line["cpu"] for line in lines))
