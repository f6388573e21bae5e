"""Drift as it happens: is the mean run length without drift what was asked for, and how soon is drift seen?

Gaussians whose mean moves, wines (white ones, then red ones: alibi-detect's own example, with and without its two
principal components), and embeddings of encoders that were trained on what is not drifted. Each detector gets its
reference and the same streams of other items, one item a step: of its kind, for the run length, and drifted, for the
delay. alibi-detect's two detectors are asked for a run length of 50 as in the example, with its window of 10 items,
which it fills with reference items before it begins; ours runs for 20 steps on items of its kind before the drift. Runs
that are cut count as going on: the mean is all steps over all alarms. The peers are asked of Gaussians and wines alone:
a reference takes each of them more than a minute.

A delay is how many drifted items come before the one that alarms, as in the example, whose published figures are 6.0
(MMD, two components) and 4.3 (LSDD). Wines are taken from ``.bench/online_drift``, or fetched from the UCI archive.
Resumable: each reference leaves a file in ``.bench/online_drift``.
"""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import common
import drift_data
from fastness.core.files import write_bytes, write_json
from fastness.core.seeds import numpy_generator
from fastness.metrics.intervals import student
from fastness.monitoring.online.online import Online

Array = npt.NDArray[Any]
FOLDER = common.WORK / "online_drift"
WINES = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/winequality-{}.csv"
PUBLISHED = {("wine, 2 components", "alibi mmd"): 6.004, ("wine", "alibi lsdd"): 4.328}
ASKED, WINDOW, BOOTSTRAPS, QUIET = 50, 10, 2_500, 20
REFERENCE, STREAMS, LONG = 1_000, 40, 6  # items; streams of a reference; times the asked run length a stream is long


def gaussian(generator: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return a reference, items like it, and items whose mean is two standard deviations off, in 64 dimensions."""
    drawn = generator.normal(size=(2 * REFERENCE + 20_000, 64))
    reference, alike, drifted = np.split(drawn, [REFERENCE, REFERENCE + 20_000])
    return reference, alike, drifted + 2 / 8


def wine(colour: str) -> Array:
    """Return what was measured of wines, without their quality, over the largest of white ones."""
    path = FOLDER / f"winequality-{colour}.csv"
    if not path.exists():
        with urllib.request.urlopen(WINES.format(colour), timeout=60) as answer:
            write_bytes(path, answer.read())
    return np.loadtxt(path, delimiter=";", skiprows=1)[:, :-1]


def wines(generator: np.random.Generator, components: int) -> tuple[Array, Array, Array]:
    """Return white wines as reference, other white ones, and red ones, as in the example."""
    white, red = wine("white"), wine("red")
    largest = white.max(0)
    white, red = generator.permutation(white / largest), generator.permutation(red / largest)
    half, quarter = len(white) // 2, len(white) // 4
    if not components:
        return white[: half + quarter], white[half + quarter :], red
    first = white[:half]
    directions = np.linalg.svd(first - first.mean(0), full_matrices=False)[2][:components].T
    return white[half : half + quarter] @ directions, white[half + quarter :] @ directions, red @ directions


def embedded(name: str) -> Callable[[np.random.Generator], tuple[Array, Array, Array]]:
    """Return what draws from the pools of a shift, see ``drift_data``."""

    def draw(generator: np.random.Generator) -> tuple[Array, Array, Array]:
        with np.load(drift_data.pools(name)) as file:
            before, after = generator.permutation(file["before"]), generator.permutation(file["after"])
        return before[:REFERENCE], before[REFERENCE:], after

    return draw


DATA: dict[str, Callable[[np.random.Generator], tuple[Array, Array, Array]]] = {
    "gaussian": gaussian,
    "wine, 2 components": lambda generator: wines(generator, 2),
    "wine": lambda generator: wines(generator, 0),
    "vendor": embedded("vendor"),
    "new class": embedded("new class"),
    "corruption 2": embedded("corruption 2"),
    "language": embedded("language"),
}
BESIDE = ("gaussian", "wine, 2 components", "wine")


def streams(generator: np.random.Generator, items: Array, number: int, steps: int) -> Array:
    """Return streams ``[number, steps, D]`` of items in random order, again and again where there are too few."""
    order = [
        np.concatenate([generator.permutation(len(items)) for _ in range(-(-steps // len(items)))])[:steps]
        for _ in range(number)
    ]
    return items[np.array(order)].astype(np.float32)


def drawn(name: str, number: int, asked: int, count: int) -> dict[str, Array]:
    """Return reference and streams."""
    generator = numpy_generator(number, "online", name)
    reference, alike, drifted = DATA[name](generator)
    return {
        "reference": reference.astype(np.float32),
        "alike": streams(generator, alike, count, LONG * asked),
        "drifted": streams(generator, drifted, count, LONG * asked),
    }


def ours(data: dict[str, Array], asked: int, seed: int) -> dict[str, list[int]]:
    """Return the step of the first alarm of each stream, one beyond the last where there was none."""
    made = Online(data["reference"], asked, seed=seed).state()
    alike, drifted = data["alike"], data["drifted"]
    quiet = [alike[number % len(alike), :QUIET] for number in range(len(drifted))]
    found = {"alike": [first(Online.resume(made), stream) for stream in alike], "drifted": []}
    for before, stream in zip(quiet, drifted, strict=True):
        detector = Online.resume(made)
        if not detector.update(before):  # an alarm before the drift has no delay
            found["drifted"].append(first(detector, stream))
    return found


def first(detector: Online, stream: Array) -> int:
    """Return at which step, counted from 1, it alarms."""
    for step, item in enumerate(stream, 1):
        if detector.update(item[None]):
            return step
    return len(stream) + 1


def alibi(kind: str, data: dict[str, Array], asked: int) -> dict[str, list[int]]:
    """Return the same of one of alibi-detect's."""
    given, out = FOLDER / f"given-{kind}.npz", FOLDER / f"out-{kind}.npz"
    np.savez(given, **data)  # type: ignore[arg-type]
    command = [
        common.peer_python("alibi_online"),
        common.PEERS / "alibi_online_run.py",
        kind,
        asked,
        WINDOW,
        BOOTSTRAPS,
    ]
    subprocess.run([*map(str, command), str(given), str(out)], check=True)
    with np.load(out) as file:
        return {name: file[name].tolist() for name in ("alike", "drifted")}


def measured(name: str, detector: str, asked: int, number: int, count: int) -> dict[str, list[int]]:
    """Return what came of one reference, measured unless it was."""
    tag = common.source_hash("monitoring/online") if detector == "ours" else "peer"
    path: Path = FOLDER / tag / f"{name}-{detector}-{asked}-{count}-{number}.json".replace(" ", "_")
    if not path.exists():
        data = drawn(name, number, asked, count)
        path.parent.mkdir(parents=True, exist_ok=True)
        found = ours(data, asked, number) if detector == "ours" else alibi(detector.split()[1], data, asked)
        write_json(path, found)
    return dict(json.loads(path.read_text()))


def row(name: str, detector: str, asked: int, references: int, count: int) -> dict[str, Any]:
    """Return the mean run length and the mean delay, with Student's interval over the references."""
    every = [measured(name, detector, asked, number, count) for number in range(references)]
    long = LONG * asked
    ran = [sum(min(step, long) for step in found["alike"]) for found in every]
    alarms = [sum(step <= long for step in found["alike"]) for found in every]
    of_each = [float(np.mean([step - 1 for step in found["drifted"]])) for found in every if found["drifted"]]
    mean = sum(ran) / max(1, sum(alarms))
    # The mean of a ratio, by what each reference has beside it.
    error = np.std([r - mean * a for r, a in zip(ran, alarms, strict=True)]) / np.sqrt(references) / np.mean(alarms)
    delay, low, high = student(of_each)
    return {
        "data": name,
        "detector": detector,
        "asked": asked,
        "run length": round(mean, 1),
        "standard error": round(float(error), 1),
        "delay": round(delay, 2),
        "delay low": round(low, 2),
        "delay high": round(high, 2),
        "published delay": PUBLISHED.get((name, detector)),
        "references": references,
        "alarms": sum(alarms),
    }


def usable(names: list[str]) -> list[str]:
    """Return those whose data can be had."""
    found = []
    for name in names:
        try:
            DATA[name](numpy_generator(0, "usable"))
            found.append(name)
        except (urllib.error.URLError, FileNotFoundError) as error:
            print(f"{name}: left out, as its data cannot be had: {error}", flush=True)
    return found


def main() -> None:
    """Measure what is missing and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = usable([*BESIDE] if quick else [*DATA])
    references, peers, count = (4, 2, 20) if quick else (40, 4, STREAMS)
    rows = []
    for name in names:
        for detector, asked, how_many, each in (
            ("ours", ASKED, references, count),
            *((f"alibi {kind}", ASKED, peers, count) for kind in ("mmd", "lsdd") if name in BESIDE),
            *((("ours", 500, references, 8),) if not quick else ()),
        ):
            rows.append(row(name, detector, asked, how_many, each))
            print(rows[-1], flush=True)
    common.save("online_drift" + ("_quick" if quick else ""), rows, asks(rows))


def asks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked: run lengths within a tenth, and delays beside the peers'."""
    found = []
    for one in (row for row in rows if row["detector"] == "ours"):
        off = abs(one["run length"] / one["asked"] - 1)
        said = f"{one['run length']} (standard error {one['standard error']}, {one['alarms']} alarms)"
        wanted = f"{one['asked']} within 10 %"
        found.append(common.ask(f"{one['data']}: mean run length without drift", wanted, said, off <= 0.1))
    for one in (row for row in rows if row["detector"] == "ours" and row["asked"] == ASKED):
        peers = [row for row in rows if row["data"] == one["data"] and row["detector"] != "ours"]
        theirs = [
            f"{row['detector']} {row['delay']} at a run length of {row['run length']}"
            + (f" (published {row['published delay']:.1f})" if row["published delay"] else "")
            for row in peers
        ]
        published = [row["published delay"] for row in peers if row["published delay"]]
        holds = one["delay"] <= min(published) if published else None
        said = "; ".join([f"{one['delay']} [{one['delay low']}, {one['delay high']}]", *theirs])
        asked = "beside alibi-detect's" if peers else "stated"
        found.append(common.ask(f"{one['data']}: delay", asked, said, holds))
    return found


if __name__ == "__main__":
    main()
