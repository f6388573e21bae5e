"""Drift tests on embeddings of real encoders: false alarms, and power beside evidently and alibi-detect.

Windows of 100 to 2,000 items are drawn, with replacement, from what an encoder made of peaceful data (see
`drift_data.py`), so that every trial is of independent items; in a drifted window some items are drawn from what
drifted: a share that becomes smaller as windows grow, by the root of their size, so that no size is easy. All methods
are given the same windows. Ours is taken as it comes, floors included. A peer's power is counted at the threshold
that gives it, on the same kind of windows without drift, as many false alarms as the level (ties broken by lot): none
has such a threshold by itself but KS + Bonferroni, which is cautious, and the permutation tests. What evidently's
methods say with their own defaults stands beside it. The peers are asked of two sizes (of the larger
they would take five hours): of the others ours stands alone.

Resumable: each part leaves a file in ``.bench/drift/trials``; two run at a time, one a core.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

import common
import drift_data
from fastness.core.files import atomic_path
from fastness.core.seeds import numpy_generator
from fastness.monitoring.drift import drifted
from fastness.monitoring.window import Window

Array = npt.NDArray[Any]
Scores = dict[str, Array]
FOLDER = drift_data.FOLDER / "trials"
LEVEL = 0.05
PEERS = ("evidently", "alibi")
ENCODERS = {
    "vendor": "emoji",
    "corruption 1": "pictures",
    "corruption 2": "pictures",
    "corruption 3": "pictures",
    "class mix": "pictures",
    "new class": "pictures",
    "language": "captions",
    "month": "rows",
    "gaussian": "gaussian",
}
SHARES = {
    "vendor": 0.35,
    "corruption 1": 1.0,
    "corruption 2": 1.0,
    "corruption 3": 0.7,
    "class mix": 0.25,
    "new class": 0.2,
    "language": 0.08,
    "month": 0.5,
    "gaussian": 0.5,
}
"""Of drifted items in windows of 300; by the root of the size fewer in larger ones, more in smaller."""


@dataclass(frozen=True)
class Extent:
    """How much of everything."""

    sizes: tuple[int, ...]
    peer_sizes: tuple[int, ...]
    nulls: int
    peer_nulls: int
    trials: int
    large: int
    large_nulls: int
    shifts: tuple[str, ...]


QUICK = Extent((100, 300), (100, 300), 100, 40, 30, 3000, 5, ("vendor", "new class"))
FULL = Extent((100, 200, 500, 1000, 2000), (100, 500), 1000, 300, 200, 10_000, 200, tuple(SHARES))


@dataclass(frozen=True)
class Part:
    """Trials of one kind: windows of a size, with or without drift."""

    shift: str
    n: int
    trials: int
    drift: bool

    @property
    def name(self) -> str:
        """File name of what is kept of it; what has no drift is the same for all shifts of an encoder."""
        what = self.shift.replace(" ", "-") if self.drift else f"{ENCODERS[self.shift]}-null"
        return f"{what}-{self.n}-{self.trials}"

    @property
    def share(self) -> float:
        """Of drifted items in the drifted window."""
        return min(1.0, SHARES[self.shift] * (300 / self.n) ** 0.5) if self.drift else 0.0


def windows(part: Part) -> Path:
    """Return the file of the items of all windows: positions in both pools, ``first`` and ``second`` ``[R, n]``."""
    path = FOLDER / f"{part.name}-{part.share:.4f}-windows.npz"
    if not path.exists():
        with np.load(drift_data.pools(part.shift)) as pools:
            before, after = len(pools["before"]), len(pools["after"])
        generator = numpy_generator(0, part.name)
        shape = part.trials, part.n
        first, second = generator.integers(0, before, shape), generator.integers(0, before, shape)
        strange = generator.random(shape) < part.share
        second = np.where(strange, before + generator.integers(0, after, shape), second)
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, first=first, second=second)
    return path


def ours(part: Part) -> Scores:
    """Return p, whether it alarms and seconds of each trial."""
    path = FOLDER / f"{part.name}-fastness-{common.source_hash('monitoring/drift')}.npz"
    if not path.exists():
        with np.load(drift_data.pools(part.shift)) as pools:
            items = np.concatenate([pools["before"], pools["after"]])
        rows = []
        with np.load(windows(part)) as drawn:
            for trial, (first, second) in enumerate(zip(drawn["first"], drawn["second"], strict=True)):
                began = time.perf_counter()
                verdict = drifted(Window(items[first]), Window(items[second]), level=LEVEL, seed=trial)
                rows.append((verdict.findings[0].p, verdict.alarm, time.perf_counter() - began))
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **dict(zip(("p", "alarm", "seconds"), np.array(rows).T, strict=True)))
    return dict(np.load(path))


def peers(part: Part, peer: str) -> Scores:
    """Return score, alarm and seconds of each trial by each of a peer's methods."""
    script = common.PEERS / f"drift_{peer}_run.py"
    code = hashlib.sha256(script.read_bytes()).hexdigest()[:10]
    path = FOLDER / f"{part.name}-{peer}-{code}.npz"
    if not path.exists():
        with atomic_path(path) as temporary:
            out = temporary.with_suffix(".npz")
            command = [common.peer_python(f"drift_{peer}"), script, drift_data.pools(part.shift), windows(part), out]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{script.name}: {done.stderr[-2000:]}")
            out.replace(temporary)
    return dict(np.load(path))


def run_part(number: int, quick: bool) -> None:
    """Do ours of one part; in a process of its own, so that two can run at a time."""
    ours(parts(QUICK if quick else FULL)[number])


def parts(extent: Extent) -> list[Part]:
    """Return all parts of ours: without drift first."""
    first = {ENCODERS[shift]: shift for shift in reversed(extent.shifts)}.values()
    found = [Part(shift, n, extent.nulls, False) for shift in first for n in extent.sizes]
    found += [Part(shift, extent.large, extent.large_nulls, False) for shift in first]
    return found + [Part(shift, n, extent.trials, True) for shift in extent.shifts for n in extent.sizes]


def peer_parts(extent: Extent) -> list[Part]:
    """Return all parts of the peers, who need fewer trials without drift, for a threshold."""
    found = sorted((part for part in parts(extent) if part.n in extent.peer_sizes), key=lambda part: part.n)
    return [part if part.drift else Part(part.shift, part.n, extent.peer_nulls, False) for part in found]


def power(null: Array, drift: Array) -> float:
    """Return the share of scores above the threshold that a share `LEVEL` of those without drift is above."""
    threshold = np.quantile(null, 1 - LEVEL, method="higher")
    above, at = np.mean(null > threshold), np.mean(null == threshold)
    lot = (LEVEL - above) / at
    return float(np.mean(drift > threshold) + lot * np.mean(drift == threshold))


def false_alarms(extent: Extent) -> list[dict[str, Any]]:
    """Return rows of windows without drift, ours and, as they come, theirs."""
    rows = []
    for part in [part for part in parts(extent) if not part.drift]:
        found = ours(part)
        low, high = binom.interval(0.999, part.trials, LEVEL)
        hits = int(np.sum(found["p"] <= LEVEL))
        row: dict[str, Any] = {"encoder": ENCODERS[part.shift], "n": part.n, "trials": part.trials}
        row |= {
            "fastness": hits / part.trials,
            "alarms": int(found["alarm"].sum()),
            "inside": bool(low <= hits <= high),
        }
        row["ms, one core"] = round(1000 * float(np.median(found["seconds"])), 1)
        if part.n in extent.peer_sizes:
            theirs = Part(part.shift, part.n, extent.peer_nulls, False)
            for peer in PEERS:
                scores = peers(theirs, peer)
                names = [key.split("|")[0] for key in scores if key.endswith("|alarm")]
                silent = ("alibi mmd", "alibi lsdd")
                row |= {f"{m}, as it comes": float(scores[f"{m}|alarm"].mean()) for m in names if m not in silent}
        rows.append(row)
    return rows


def powers(extent: Extent) -> list[dict[str, Any]]:
    """Return rows of windows with drift: power of ours as it comes, of theirs at equal false alarms."""
    rows = []
    for part in [part for part in parts(extent) if part.drift]:
        found = ours(part)
        row: dict[str, Any] = {"shift": part.shift, "n": part.n, "share": round(part.share, 3), "trials": part.trials}
        row |= {"fastness": float(found["alarm"].mean()), "without floors": float(np.mean(found["p"] <= LEVEL))}
        theirs: dict[str, float] = {}
        for peer in PEERS if part.n in extent.peer_sizes else ():
            null, drift = peers(Part(part.shift, part.n, extent.peer_nulls, False), peer), peers(part, peer)
            for key in [key for key in drift if key.endswith("|score")]:
                name = key.split("|")[0]
                theirs[name] = round(power(null[key], drift[key]), 3)
                if peer == "evidently":
                    row[f"{name}, as it comes"] = float(drift[f"{name}|alarm"].mean())
        row |= theirs
        if theirs:
            best = max(theirs, key=lambda name: theirs[name])
            row |= {"best peer": best, "behind it": round(theirs[best] - row["fastness"], 3)}
        rows.append(row)
    return rows


def timed() -> float:
    """Return the median of the milliseconds that windows of 1,000 items of 128 numbers take, on all cores."""
    with np.load(drift_data.pools("new class")) as pools:
        first, second = Window(pools["before"][:1000]), Window(pools["before"][1000:2000])
    taken = []
    for _ in range(15):
        began = time.perf_counter()
        drifted(first, second, level=LEVEL)
        taken.append(time.perf_counter() - began)
    return round(1000 * float(np.median(taken)), 1)


def asks(quiet: list[dict[str, Any]], seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked and what was measured."""
    outside = [f"{row['encoder']} {row['n']}: {row['fastness']:.3f}" for row in quiet if not row["inside"]]
    beside = [row for row in seen if "behind it" in row]
    behind = max(beside, key=lambda row: row["behind it"])
    withheld = max(row["without floors"] - row["fastness"] for row in seen)
    milliseconds = timed()
    defaults = ("evidently model", "evidently ratio", "evidently mmd", "evidently distance")
    losing = [
        f"{name}: {row['shift']} {row['n']}"
        for row in beside
        for name in defaults
        if row[f"{name}, as it comes"] > row["fastness"]
        and next(
            q[f"{name}, as it comes"] for q in quiet if q["encoder"] == ENCODERS[row["shift"]] and q["n"] == row["n"]
        )
        <= 2 * LEVEL  # a method that alarms at nothing too is not ahead
    ]
    where = f"{behind['behind it']:.3f} ({behind['shift']}, {behind['n']}, {behind['best peer']})"
    return [
        common.ask("false alarms inside the 99.9 % band", "all", "; ".join(outside) or "all", not outside),
        common.ask("power below the best peer's", "<= 0.05 everywhere", where, behind["behind it"] <= 0.05),
        common.ask("ahead of evidently's defaults", "everywhere", "; ".join(losing) or "everywhere", not losing),
        common.ask("power withheld by floors", "<= 0.01", round(withheld, 3), withheld <= 0.01),
        common.ask("ms at 1,000 items of 128 numbers, level .05", "<= 100", milliseconds, milliseconds <= 100),
    ]


def main() -> None:
    """Measure what is missing and write the result file."""
    if sys.argv[1:2] == ["--part"]:
        run_part(int(sys.argv[2]), sys.argv[3] == "quick")
        return
    quick = common.arguments(__doc__ or "").quick
    extent = QUICK if quick else FULL
    FOLDER.mkdir(parents=True, exist_ok=True)
    for part in (*parts(extent), *peer_parts(extent)):
        windows(part)
    for peer in PEERS:
        common.peer_python(f"drift_{peer}")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started: two at a time
    for part in peer_parts(QUICK)[:1]:  # whether the peers run at all is not to be learnt in hours
        windows(part)
        for peer in PEERS:
            peers(part, peer)
    command = [sys.executable, __file__, "--part"]
    with ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(subprocess.run, [*command, str(i), "quick" if quick else "full"], check=True)
            for i in range(len(parts(extent)))
        ]
        waiting += [pool.submit(peers, part, peer) for part in peer_parts(extent) for peer in PEERS]
        try:
            for job in as_completed(waiting):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    quiet, seen = false_alarms(extent), powers(extent)
    common.save("drift" + ("_quick" if quick else ""), [*quiet, *seen], asks(quiet, seen), level=LEVEL)


if __name__ == "__main__":
    main()
