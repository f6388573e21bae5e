"""Canaries, simulated: is a bad candidate stopped, and an equal one promoted, within 20,000 requests?

Requests are English captions as MiniLM embeds them, searched for among other captions. A share of them is answered by
production and by a candidate, whose embeddings are production's own (another export), those turned into another space,
or those turned with noise that every item has for itself, as another training has. What is wrong with it is wrong from
the first request on. Latencies, errors and metadata are drawn; nothing is served. Resumable: each scenario leaves a
file in ``.bench/canary``; two are simulated at a time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

import common
from fastness.core.files import atomic_path, write_json
from fastness.core.seeds import numpy_generator
from fastness.index.exact import unit
from fastness.metrics.intervals import wilson
from fastness.monitoring.trial.apart import Strangeness, disagreement, distance, stranger
from fastness.monitoring.trial.terms import LATENCY, Terms
from fastness.monitoring.trial.trial import Compared, Decision, Trial

Array = npt.NDArray[np.float32]
FOLDER = common.WORK / "canary"
REQUESTS, NEAREST, SHARE, SLICE = 20_000, 10, 0.1, 0.05
FIRST = 1_000  # seed; the default limits were chosen while looking at those from 0 on
ERRORS, SPREAD = 0.0002, 0.25  # of production: failures, and how far two latencies of a request are apart
COLLECTION, REFERENCE, POOL = 6000, 2000, 4000
COLUMNS = {"country": [0.4, 0.3, 0.2, 0.05, 0.05], "device": [0.6, 0.4], "app": [1 - SLICE, SLICE]}
BROKEN = "app=1"


@cache
def captions() -> Array:
    """Return embeddings of captions, float32 ``[N, 384]``, made once."""
    path = FOLDER / "captions.npz"
    if not path.exists():
        import fastness as fs

        folder = common.DATA / "text" / "multi30k"
        texts = (folder / "task1_raw_train.en.txt").read_text(encoding="utf-8").splitlines()
        found = fs.load(common.minilm_bundle()).embed(texts[: COLLECTION + REFERENCE + POOL])
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, vectors=found)
    with np.load(path) as kept:
        vectors: Array = kept["vectors"]
    return vectors


def turned(vectors: Array, cosine: float, seed: int) -> Array:
    """Return vectors turned by one rotation that brings each of them to the same cosine to itself."""
    dim, lots = vectors.shape[1], numpy_generator(seed, "planes")
    axes = np.linalg.qr(lots.normal(size=(dim, dim)))[0].astype(np.float32)
    inside = vectors @ axes
    first, second, sine = inside[:, ::2], inside[:, 1::2], np.sqrt(1 - cosine**2)
    out = np.empty_like(inside)
    out[:, ::2], out[:, 1::2] = cosine * first - sine * second, sine * first + cosine * second
    return np.asarray(out @ axes.T, np.float32)


def retrained(vectors: Array, seed: int, noise: float) -> Array:
    """Return vectors in a space of their own, each with a noise of its own."""
    lots = numpy_generator(seed, "training")
    axes = np.linalg.qr(lots.normal(size=(vectors.shape[1],) * 2))[0].astype(np.float32)
    shaken = vectors + noise * unit(lots.normal(size=vectors.shape).astype(np.float32))
    return unit(shaken @ axes)


SPACES: dict[str, Callable[[Array], Array]] = {
    "export": lambda vectors: unit(vectors + 0.02 * unit(numpy_generator(0, "int8").normal(size=vectors.shape))),
    "other space": lambda vectors: retrained(vectors, 1, 0.0),
    "retrained": lambda vectors: retrained(vectors, 2, 0.5),
}


@dataclass(frozen=True)
class Candidate:
    """What a candidate makes of the pool, and how it behaves.

    Attributes:
        space: of `SPACES`.
        cosine: to which the requests of a slice are turned.
        slower: how many times as long it takes.
        errors: its rate of failures.
        abstains: how much more often it says nothing.
    """

    space: str
    cosine: float = 1.0
    slower: float = 1.0
    errors: float = ERRORS
    abstains: float = 0.0


def nearest(queries: Array, items: Array) -> list[list[str]]:
    """Return the ids of the nearest items of each query."""
    found = np.argpartition(-(queries @ items.T), NEAREST, axis=1)[:, :NEAREST]
    return [list(map(str, row)) for row in found]


@cache
def losses(space: str, cosine: float) -> dict[str, npt.NDArray[np.float64]]:
    """Return every measure of every item of the pool, float64 ``[POOL]``."""
    before = captions()
    after = SPACES[space](before)
    cut = (COLLECTION, COLLECTION + REFERENCE)
    (items, known, asked), (new_items, new_known, new_asked) = (np.split(x, cut) for x in (before, after))
    new_asked = turned(new_asked, cosine, 3) if cosine < 1 else new_asked
    found = {
        "disagreement": disagreement(nearest(asked, items), nearest(new_asked, new_items)),
        "strangeness": stranger(Strangeness(known).ranks(asked), Strangeness(new_known).ranks(new_asked)),
    }
    return {**found, "distance": distance(asked, new_asked)} if space == "export" else found


@dataclass
class Outcome:
    """What came of the runs of a scenario."""

    states: list[str] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    def took(self, decision: Decision, requests: int) -> None:
        """Take the end of a run."""
        self.states.append(decision.state)
        self.requests.append(requests)
        self.why.append(decision.why.partition(": ")[2].partition(" [")[0].rstrip("0123456789.e-+ "))


def run(candidate: Candidate, share: float, seed: int) -> tuple[Decision, int]:
    """Return what was decided of a candidate, and after how many requests."""
    lots = numpy_generator(seed, "requests", *map(str, (candidate, share)))
    well, ill = losses(candidate.space, 1.0), losses(candidate.space, candidate.cosine)
    trial = Trial(Terms(), [LATENCY, *well, "abstained"])
    drawn = {name: lots.choice(len(parts), REQUESTS, p=parts) for name, parts in COLUMNS.items()}
    both, items = lots.random(REQUESTS) < share, lots.integers(POOL, size=REQUESTS)
    failed = lots.random((REQUESTS, 2)) < (ERRORS, candidate.errors)
    slow = np.exp(SPREAD * lots.standard_t(4, (REQUESTS, 2))) * (0.01, 0.01 * candidate.slower)
    silent = lots.random((REQUESTS, 2)) < (0.03, 0.5)
    for number in range(REQUESTS):
        if not both[number]:
            trial.alone(bool(failed[number, 0]))
            continue
        if failed[number, 0]:
            continue
        slices = [f"{name}={values[number]}" for name, values in drawn.items()]
        of = ill if BROKEN in slices else well
        found = {name: values[items[number]][None] for name, values in of.items()}
        hushed = _abstained(silent[number], lots, candidate.abstains)
        compared = Compared(
            bool(failed[number, 1]), (slow[number, 0], slow[number, 1]), {**found, "abstained": hushed}, [slices]
        )
        trial.add(Compared(True) if failed[number, 1] else compared)
        if trial.pairs % 10 == 0 and (decision := trial.decision()).state != "running":
            return decision, number + 1
    return trial.decision(), REQUESTS


def _abstained(drawn: Any, lots: np.random.Generator, more: float) -> npt.NDArray[np.float64]:
    """Return how an item's abstention differs: both abstain of much the same items, now and then only one does."""
    before = bool(drawn[0])
    after = before if lots.random() > 0.02 else bool(lots.random() < 0.03)
    return np.array([float(after or lots.random() < more) - before])


def scenario(name: str, candidate: Candidate, runs: int, share: float = SHARE) -> dict[str, Any]:
    """Return what came of a candidate in many runs."""
    outcome, started = Outcome(), time.perf_counter()
    for seed in range(FIRST, FIRST + runs):
        outcome.took(*run(candidate, share, seed))
    low, high = wilson(outcome.states.count("promote"), runs)
    aborts = [why for why, state in zip(outcome.why, outcome.states, strict=True) if state == "abort"]
    return {
        "what": name,
        "space": candidate.space,
        "share": share,
        "runs": runs,
        "promoted": outcome.states.count("promote"),
        "promoted_interval": [round(low, 3), round(high, 3)],
        "stopped": outcome.states.count("abort"),
        "running": outcome.states.count("running"),
        "requests_median": int(np.median(outcome.requests)),
        "requests_p95": int(np.quantile(outcome.requests, 0.95)),
        "said": {why: aborts.count(why) for why in sorted(set(aborts))},
        "disagreement": round(float(losses(candidate.space, candidate.cosine)["disagreement"].mean()), 3),
        "seconds": round(time.perf_counter() - started, 1),
    }


Job = tuple[str, Candidate, int, float]


def measured(job: Job) -> dict[str, Any]:
    """Return the row of a scenario; a finished one is kept until what it stands on changes."""
    name, candidate, runs, share = job
    told = "-".join(str(part).replace(" ", "_").replace("%", "") for part in (name, candidate.space, share, runs))
    path = FOLDER / f"{told}-{common.source_hash('monitoring/trial', own=__file__)}.json"
    if not path.exists():
        write_json(path, scenario(name, candidate, runs, share))
    return dict(json.loads(path.read_text()))


def jobs(runs: int) -> Iterator[Job]:
    """Yield what is simulated."""
    for space in SPACES:
        yield "equal", Candidate(space), runs, SHARE
        yield "rotated to 0.8 on 5%", Candidate(space, cosine=0.8), runs, SHARE
        yield "20% slower", Candidate(space, slower=1.2), runs, SHARE
        yield "1% errors", Candidate(space, errors=0.01), runs, SHARE
    yield "abstains of 5% more", Candidate("export", abstains=0.05), runs, SHARE
    for share in (0.02, 0.05, 0.2):
        yield "equal", Candidate("retrained"), runs, share
        yield "rotated to 0.8 on 5%", Candidate("retrained", cosine=0.8), runs, share


def main() -> None:
    """Simulate, and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    runs = 20 if quick else 100
    captions()  # before two processes want them
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        rows = list(pool.map(measured, jobs(runs)))
    asks = []
    for row in (row for row in rows if row["share"] == SHARE):
        done = "promoted" if row["what"] == "equal" else "stopped"
        asks.append(
            common.ask(
                f"{row['what']}, {row['space']}: {done} within {REQUESTS:,} requests",
                f">= 95 of 100 are {done}",
                f"{row[done]} of {runs}",
                row[done] >= 0.95 * runs,
            )
        )
    common.save("canary" + ("_quick" if quick else ""), rows, asks)


if __name__ == "__main__":
    main()
