"""A week of traffic, a million requests in simulated time: what a monitor finds, when, and what it finds by mistake.

Requests come by day more than by night. They ask about CIFAR-10's test pictures, as an encoder embeds them that has
seen nine classes. On Saturday and Sunday cats and dogs are three times as frequent, as ever: the reference is of a week
before, clients say which kind of day it is (``metadata``), and the policy compares within each kind (``tests:
[within]``, ``slices: [day]``). On Tuesday a release fails and is slow, until the policy rolls it back. From Wednesday
to Friday more and more pictures are corrupted, in the end all; then the cameras are mended. On Sunday, for four hours,
a fifth is of a class that nobody knew.

Journal, registry, reference, monitor and rollback are those of production, the clock alone is not: the journal is told
what time it is, is flushed once a window instead of every five seconds, and the monitor looks after every window.
Traffic and reference are drawn with replacement from the same pictures: nothing differs where nothing is said to.
"""

from __future__ import annotations

import datetime
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

import common
from fastness.core.seeds import numpy_generator
from fastness.monitoring.drift import drifted
from fastness.monitoring.kept.journal import Journal
from fastness.monitoring.kept.windows import kept
from fastness.monitoring.monitor import Monitor
from fastness.monitoring.policy import Policy
from fastness.monitoring.sketch import FOLDER, Sketch
from fastness.monitoring.window import Array, Floats, Window
from fastness.registry import Registry, incidents, watched
from fastness.registry.incidents import Incident
from fastness.registry.watched import Watched

NAME, ALIAS = "photos", "production"
MINUTE, HOUR = 60_000_000, 3_600_000_000  # microseconds
WINDOW = 5 * MINUTE
REFERENCE = 2000
NEW_CLASS, LIKED, LIKING = 9, (3, 5), 3.0  # trucks; cats and dogs, at weekends
WEEKEND = 0.7  # as many requests as on other days
TOP = {"slow": 1.0, "sudden": 0.2}  # share of the items that have drifted in the end
ERRORS, FAILING, REFUSED = 0.0005, 0.03, 0.001
SECONDS, SLOWER, SPREAD = 0.02, 12.5, 0.6  # log-normal latency: median, how much slower the release is, sigma
POLICY: dict[str, Any] = {
    "least": 1000,
    "signals": {
        "drift": {"level": 0.01, "persist": "3 of 4", "tests": ["within"], "slices": ["day"]},
        "errors": {"ceiling": 0.01},
        "latency": {"seconds": 0.5, "ceiling": 0.05},
        "refused": {"ceiling": 0.01},
        "collapse": {},
    },
    "actions": [{"do": "rollback", "on": ["errors", "latency"]}],
}


@dataclass
class Spell:
    """A time in which something is wrong.

    Attributes:
        what: ``release``, ``slow`` or ``sudden``.
        start, end: microseconds since 1970; that of a release ends when it is rolled back.
        signals: that are to find it.
    """

    what: str
    start: int
    end: int
    signals: tuple[str, ...]

    def share(self, at: int) -> float:
        """Return what share of the items has drifted at a moment."""
        if self.what == "release" or not self.start <= at < self.end:
            return 0.0
        grown = (at - self.start) / (self.end - self.start) if self.what == "slow" else 1.0
        return TOP[self.what] * grown


@dataclass
class Plan:
    """When it begins, how long it lasts, how many requests there are, and what goes wrong."""

    start: int
    hours: int
    requests: int
    spells: list[Spell]

    @classmethod
    def of(
        cls, start: str, hours: int, requests: int, release: float, slow: Sequence[float], sudden: Sequence[float]
    ) -> Plan:
        """Return a plan of hours after the start."""
        begin = int(datetime.datetime.fromisoformat(f"{start}:00+00:00").timestamp()) * 1_000_000

        def spell(what: str, first: float, last: float, *signals: str) -> Spell:
            return Spell(what, begin + int(first * HOUR), begin + int(last * HOUR), signals)

        spells = [
            spell("release", release, hours, "errors", "latency"),
            spell("slow", *slow, "drift"),
            spell("sudden", *sudden, "drift"),
        ]
        return cls(begin, hours, requests, spells)

    @property
    def end(self) -> int:
        """When it is over."""
        return self.start + self.hours * HOUR

    def counts(self, rng: np.random.Generator) -> Array:
        """Return how many requests come in each window."""
        starts = np.arange(self.start, self.end, WINDOW)
        hours = starts / HOUR % 24
        rate = (1 + 0.8 * np.cos((hours - 15) * np.pi / 12)) * [WEEKEND if weekend(int(at)) else 1 for at in starts]
        return rng.multinomial(self.requests, rate / rate.sum())


PLANS = {
    "full": lambda: Plan.of("2026-10-05T00:00", 168, 1_000_000, 38, (60, 108), (159, 163)),  # from Monday on
    "quick": lambda: Plan.of("2026-10-09T12:00", 24, 100_000, 2, (4, 9), (20, 22)),  # Friday noon to Saturday noon
}


def weekend(at: int) -> bool:
    """Return whether a moment is on a Saturday or Sunday."""
    return datetime.datetime.fromtimestamp(at / 1e6, datetime.UTC).weekday() >= 5


def day(at: int) -> str:
    """Return what clients call the day."""
    return "weekend" if weekend(at) else "weekday"


def pool(name: str) -> dict[str, Floats]:
    """Return a file of `drift_data`; made in a process of its own, so that training counts for no memory here."""
    path = common.WORK / "drift" / f"{name.replace(' ', '-')}.npz"
    if not path.exists():
        made = f"import drift_data; drift_data.pools({name!r})"
        subprocess.run([sys.executable, "-c", made], check=True, cwd=common.HERE)
    return dict(np.load(path))


@dataclass
class World:
    """The items that there are.

    Attributes:
        clean, corrupted: the same pictures as they are and corrupted, float32 ``[N, D]``.
        unknown: pictures of a class that was never seen.
        labels: classes of the pictures ``[N]``.
        chances: by kind of day the chance of each picture ``[N]``.
    """

    clean: Floats
    corrupted: Floats
    unknown: Floats
    labels: Array
    chances: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def made(cls) -> World:
        """Return it, embedded by the encoder of `drift_data`."""
        labels = np.load(common.cifar10_npz())["test_labels"]
        labels = labels[labels != NEW_CLASS]
        worn, new = pool("corruption 3"), pool("new class")
        found = cls(worn["before"], worn["after"], new["after"], labels)
        liked = np.where(np.isin(labels, LIKED), LIKING, 1.0)
        found.chances = {"weekday": np.full(len(labels), 1 / len(labels)), "weekend": liked / liked.sum()}
        return found

    def drawn(self, kind: str, n: int, rng: np.random.Generator, share: float = 0.0, what: str = "") -> Floats:
        """Return items of a kind of day, of which a share has drifted."""
        rows = rng.choice(len(self.clean), n, p=self.chances[kind])
        found, gone = self.clean[rows], rng.random(n) < share
        if what == "slow":
            found[gone] = self.corrupted[rows[gone]]
        elif what == "sudden":
            found[gone] = self.unknown[rng.integers(0, len(self.unknown), int(gone.sum()))]
        return found

    def reference(self, rng: np.random.Generator) -> Window:
        """Return items of a week without anything wrong, as many of its weekend as there are requests then."""
        part = round(REFERENCE * 2 * WEEKEND / (5 + 2 * WEEKEND))
        kinds = {"weekday": REFERENCE - part, "weekend": part}
        vectors = np.concatenate([self.drawn(kind, n, rng) for kind, n in kinds.items()])
        days = np.repeat(np.array([*kinds], object), [*kinds.values()])
        return Window(vectors.astype(np.float16).astype(np.float32), {"day": days}, [f"r{i}" for i in range(REFERENCE)])


def released(reference: Window, place: Path) -> None:
    """Add two versions of the encoder, each with the reference beside it; the first one serves."""
    from fastness.monitoring.sketching import of_window

    registry = Registry(place / "registry")
    for number in (1, 2):
        folder = place / f"bundle-{number}"
        shutil.copytree(common.WORK / "drift" / "cifar" / "bundle", folder)
        (folder / "cards").mkdir()
        (folder / "cards" / "card.md").write_text(f"number {number}")
        of_window(reference, {"bundle": "cifar", "form": "float32", "side": None, "head": None}).write(folder / FOLDER)
        registry.add(folder, NAME)
    registry.promote(f"{NAME}@1", ALIAS, override=True, why="first")
    registry.close()


class Service:
    """Answers requests, as far as a journal sees it."""

    def __init__(self, plan: Plan, world: World, registry: Registry, watch: Path) -> None:
        self.plan, self.world, self.registry = plan, world, registry
        self.now, self.seconds, self.version = plan.start, 0.0, f"{NAME}@1"
        centroids = {f"{NAME}@{n}": Sketch.load(registry.pull(f"{NAME}@{n}")).centroids for n in (1, 2)}
        self.journal = Journal(watch, NAME, ALIAS, centroids=centroids.get, seed=0, clock=lambda: self.now)
        self._rng = numpy_generator(0, "week")
        self.counts = plan.counts(self._rng)

    def windows(self) -> Iterator[int]:
        """Serve, and yield the end of each window."""
        release = self.plan.spells[0]
        for number, count in enumerate(self.counts):
            start = self.plan.start + number * WINDOW
            if start == release.start:
                self.registry.promote(f"{NAME}@2", ALIAS, override=True, why="a new one")
            self.version = f"{NAME}@{self.registry.now_at(NAME, ALIAS)}"
            if release.start < start < release.end and self.version == f"{NAME}@1":
                release.end = start
            began = time.process_time()
            self._serve(start, int(count))
            self.now = start + WINDOW
            self.journal.flush()
            self.seconds += time.process_time() - began
            yield self.now

    def _serve(self, start: int, count: int) -> None:
        wrong = next((spell for spell in self.plan.spells if spell.share(start + WINDOW // 2)), None)
        share, what = (wrong.share(start + WINDOW // 2), wrong.what) if wrong else (0.0, "")
        rng, bad, kind = self._rng, self.version == f"{NAME}@2", day(start)
        vectors = self.world.drawn(kind, count, rng, share, what)
        moments = np.sort(rng.integers(start, start + WINDOW, count)).tolist()
        slow = (SECONDS * (SLOWER if bad else 1) * rng.lognormal(0, SPREAD, count)).tolist()
        failing = FAILING if bad else ERRORS
        status = rng.choice([200, 500, 503], count, p=[1 - failing - REFUSED, failing, REFUSED]).tolist()
        said = [{"day": kind}]
        for i in range(count):
            self.now = moments[i]
            if status[i] == 200:
                self.journal.seen(
                    vectors[i : i + 1],
                    version=self.version,
                    route="/v1/embeddings",
                    ids=[f"{moments[i]}-{i}"],
                    metadata=said,
                )
            self.journal.count("/v1/embeddings", status[i], slow[i], 1, version=self.version)


@dataclass
class Seen:
    """What came of it.

    Attributes:
        judged: windows that were judged, in order.
        found: incidents, in order.
        closed: when each was, in simulated time.
        seconds: of CPU that looking took, and acting.
    """

    judged: list[Watched]
    found: list[Incident]
    closed: dict[int, int]
    seconds: float


def watch_over(service: Service, monitor: Monitor) -> Seen:
    """Let the monitor look after every window."""
    judged, closed, seconds = [], {}, 0.0
    for now in service.windows():
        began = time.process_time()
        judged += monitor.look()
        monitor.act()
        for one in incidents.incidents(monitor.registry):
            if one.closed is not None:
                closed.setdefault(one.id, now)
        seconds += time.process_time() - began
    return Seen(judged, incidents.incidents(monitor.registry)[::-1], closed, seconds)


def said(at: int | None) -> str | None:
    """Return a moment in words."""
    return at and datetime.datetime.fromtimestamp(at / 1e6, datetime.UTC).strftime("%a %H:%M")


def about(spell: Spell, one: Incident | Watched) -> bool:
    """Return whether a window touches a spell, or an incident was opened in it or within an hour after it."""
    start, end = (one.start, one.end) if isinstance(one, Watched) else (one.opened - HOUR, one.opened)
    return start < spell.end and spell.start < end


def of_spells(service: Service, seen: Seen) -> list[dict[str, Any]]:
    """Return by what is wrong, and signal, what was found and when."""
    rows, plan = [], service.plan
    ends = plan.start + WINDOW * np.arange(1, len(service.counts) + 1)
    for spell in plan.spells:
        for signal in spell.signals:
            own = [one for one in seen.found if one.kind == signal and about(spell, one)]
            alarms = [w for w in seen.judged if w.alarmed(signal) and about(spell, w)]
            first = own[0] if own else None
            row: dict[str, Any] = {
                "what": spell.what,
                "signal": signal,
                "begins": said(spell.start),
                "ends": said(spell.end),
                "windows": sum(about(spell, w) for w in seen.judged),
                "alarms": len(alarms),
                "first_alarm_minutes": (alarms[0].end - spell.start) / MINUTE if alarms else None,
                "incidents": len(own),
            }
            if first is not None:
                row |= {
                    "in_time": first.opened <= spell.end,
                    "minutes": (first.opened - spell.start) / MINUTE,
                    "requests": int(service.counts[(ends > spell.start) & (ends <= first.opened)].sum()),
                    "share": round(spell.share(min(first.opened, spell.end) - 1), 3),
                    "closed": said(seen.closed.get(own[-1].id)),
                    "title": first.title,
                }
            rows.append(row)
    return rows


def of_quiet(plan: Plan, seen: Seen, signal: str, level: float) -> dict[str, Any]:
    """Return how often a signal alarmed where there was nothing for it to find."""
    spells = [spell for spell in plan.spells if signal in spell.signals]
    quiet = [w for w in seen.judged if w.alarmed(signal) is not None and not any(about(s, w) for s in spells)]
    false = [one for one in seen.found if one.kind == signal and not any(about(s, one) for s in spells)]
    return {
        "what": "quiet",
        "signal": signal,
        "windows": len(quiet),
        "weekend": sum(weekend(w.start) for w in quiet),
        "alarms": sum(bool(w.alarmed(signal)) for w in quiet),
        "most": int(binom.ppf(0.999, len(quiet), level)),
        "level": level,
        "incidents": len(false),
        "titles": [one.title for one in false][:3],
    }


def without_days(plan: Plan, watch: Path, reference: Window, each: int) -> list[dict[str, Any]]:
    """Return how often quiet windows alarm by the usual tests, if nobody says which kind of day it is."""
    rows, apart = [], numpy_generator(0, "without days")
    spells = [spell for spell in plan.spells if "drift" in spell.signals]
    quiet = [w for w in kept(watch, NAME, ALIAS) if not any(s.start < w.end and w.start < s.end for s in spells)]
    for kind in ("weekday", "weekend"):
        own = [w for w in quiet if day(w.start) == kind and w.counts["items"] >= POLICY["least"] / 4]
        chosen = [own[i] for i in apart.permutation(len(own))[:each]]
        plain = Window(reference.vectors)
        alarms = [drifted(plain, Window(w.window.vectors), level=0.01, seed=i).alarm for i, w in enumerate(chosen)]
        rows.append({"what": "without days", "signal": kind, "windows": len(chosen), "alarms": sum(alarms)})
    return rows


def megabytes(folder: Path) -> float:
    """Return what the files of a folder take."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def peak() -> int:
    """Return the most memory that this process has held so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def asks_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is asked of the rows."""
    asks = []
    for row in rows:
        name = f"{row['what']}, {row['signal']}"
        if row["what"] == "quiet":
            asked = f"alarms <= {row['most']} (99.9 % of binomial at {row['level']:g}), no incident"
            measured = f"{row['alarms']} of {row['windows']} windows, {row['incidents']} incidents"
            asks.append(common.ask(name, asked, measured, row["alarms"] <= row["most"] and not row["incidents"]))
        elif row["what"] != "without days":
            there = row["incidents"] > 0
            share = f", {row['share']:.0%} drifted" if there and row["share"] else ""
            measured = f"after {row['minutes']:.0f} min, {row['requests']:,} requests{share}" if there else "not found"
            asks.append(common.ask(name, "is found before it ends; when is stated", measured, there and row["in_time"]))
        else:
            asks.append(common.ask(name, "stated", f"{row['alarms']} of {row['windows']} windows alarm", None))
    return asks


def main(size: str) -> None:
    """Let the week go by and write the result."""
    plan, world, began = PLANS[size](), World.made(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fastness-week-") as temporary:
        place = Path(temporary)
        reference = world.reference(numpy_generator(0, "reference"))
        elsewhere = multiprocessing.get_context("spawn").Process(target=released, args=(reference, place))
        elsewhere.start()  # what makes a reference needs more memory than what watches
        elsewhere.join()
        with Registry(place / "registry") as registry:
            store, empty = megabytes(place / "registry"), peak()
            service = Service(plan, world, registry, place / "watch")
            policy = Policy.model_validate(POLICY)
            monitor = Monitor(registry, f"{NAME}@{ALIAS}", place / "watch", policy, say=print)
            seen = watch_over(service, monitor)
            service.journal.close()
            most = peak()
            judged = [w for w in watched.history(registry, NAME, ALIAS, 100_000) if w.verdict]
            levels = {name: getattr(one, "level", 0.0) for name, one in policy.signals.named().items()}
            rows = of_spells(service, seen) + [of_quiet(plan, seen, name, level) for name, level in levels.items()]
            rows += without_days(plan, place / "watch", reference, 25 if size == "full" else 6)
            asks = asks_of(rows)
            back = registry.now_at(NAME, ALIAS) == 1
            costs = {
                "what": "costs",
                "requests": int(service.counts.sum()),
                "windows": len(service.counts),
                "judged": len(judged),
                "journal_mb": megabytes(place / "watch"),
                "registry_mb": round(megabytes(place / "registry") - store, 1),
                "peak_mb": most,
                "peak_mb_before": empty,
                "cpu_us_a_request": round(1e6 * service.seconds / plan.requests, 1),
                "cpu_seconds_a_judgement": round(seen.seconds / max(len(judged), 1), 2),
                "wall_seconds": round(time.perf_counter() - began),
            }
    asks += [
        common.ask("bad release", "is rolled back by the policy", said(plan.spells[0].end) if back else "no", back),
        common.ask("disk", "stated", f"journal {costs['journal_mb']} MB, registry {costs['registry_mb']} MB", None),
        common.ask("memory", "stated", f"{most} MB at most, of which {empty} before the first request", None),
        common.ask("wall time", "stated", f"{costs['wall_seconds']} s", None),
    ]
    common.save("week" + ("" if size == "full" else "_quick"), [*rows, costs], asks, policy=POLICY)


if __name__ == "__main__":
    main("quick" if common.arguments(__doc__).quick else "full")
