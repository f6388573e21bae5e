"""Which version answers a request while a candidate is on trial, and what follows from what both made of it.

A share of the requests is put to production and to the candidate at once. Of a canary the client gets the candidate's
answer, unless it gives none in time: then production's, which is there. Of a shadow it always gets production's. What
both made of the items is compared when the client has its answer. Embeddings go to clients of one space only: a
candidate of another one answers searches and classes, and only shadows ``/v1/embeddings``.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Response
from filelock import FileLock, Timeout

from fastness.core.errors import BadInput, FastnessError, GateRefused
from fastness.core.files import disk_errors, write_bytes
from fastness.monitoring.kept.labels import files, labels
from fastness.monitoring.sketch import DESCRIPTION, FOLDER, Sketch
from fastness.monitoring.trial.apart import Strangeness, disagreement, distance, stranger
from fastness.monitoring.trial.awaited import Awaited
from fastness.monitoring.trial.terms import LATENCY, WRONG, Terms
from fastness.monitoring.trial.trial import Compared, Decision, Trial
from fastness.monitoring.window import Array
from fastness.registry import Registry
from fastness.registry.moves import Judged
from fastness.serving.batching import Overloaded
from fastness.serving.live import Live
from fastness.serving.release import Floats, Release
from fastness.serving.telemetry import Telemetry
from fastness.serving.wanted import Wanted
from fastness_runtime import Answers

if TYPE_CHECKING:
    from fastness.serving.doors import Asked, Handler

_NEAREST = 10  # items of which is compared how many are the same
_PATIENCE, _TIMES = 0.05, 2.0  # seconds that a candidate may answer later, and times as long as production took
_MOST = 32  # comparisons under way; beyond, production answers alone
_EVERY = 10  # pairs between two looks at the decision
_AT_ONCE = 50  # requests whose labels are taken before others are answered
_OWN_SPACE = "/v1/embeddings"


@dataclass(frozen=True)
class Candidacy:
    """How a candidate is tried.

    Attributes:
        alias: that names it.
        shadow: whether clients never get its answers; then nothing is moved either.
        share: of the requests that both answer.
        terms: of the trial.
        folder: of all that is watched: there is kept what is known of the trial, so that a restart begins nothing
            anew, and from there labels come; ``None``: neither.
    """

    alias: str
    shadow: bool = False
    share: float = 0.1
    terms: Terms = field(default_factory=Terms)
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 0.5:
            raise BadInput(f"--share: {self.share:g}; production must answer half by itself: more than 0, 0.5 at most")


@dataclass(frozen=True)
class Made:
    """What a version made of the items of a request.

    Attributes:
        wanted: the request.
        vectors: float32 ``[N, D]``.
        answers: of its head, if it has one.
    """

    wanted: Wanted
    vectors: Floats
    answers: Answers | None


@dataclass
class _Tried:
    """What came of a request that was put to both.

    Attributes:
        release: that was asked.
        response, made: what it answered, and of what; ``None`` if it gave no answer.
        seconds: that it took.
        free: whether it was begun at once.
        crowded: whether it was refused for want of room, which is not the candidate's fault.
    """

    release: Release
    response: Response | None = None
    seconds: float = 0.0
    made: Made | None = None
    free: bool = True
    crowded: bool = False


class Running:
    """A candidate beside the production that it is tried against.

    Attributes:
        production, candidate: by which releases.
        trial: what is known.
        awaited: items whose labels may come; ``None``: nobody could tell.
        decided: what was decided last.
        over: whether nothing is asked of the candidate any more.
        owed: the decision that aliases are still to be moved by.
    """

    def __init__(self, spec: str, production: Release, candidate: Release, testing: Candidacy) -> None:
        self.production, self.candidate = production, candidate
        self.same_space = production.target.version.bundle == candidate.target.version.bundle
        self._known = [_reference(release) for release in (production, candidate)]
        self._path: Path | None = None
        self._slot: FileLock | None = None
        if testing.folder is not None:
            self._slot = _slot(testing.folder / "trials" / spec, _identity(production, candidate, testing.terms))
            self._path = Path(self._slot.lock_file).with_suffix(".json")
        self.trial = self._resumed() or Trial(testing.terms, self._measures())
        self.awaited = Awaited() if WRONG in self.trial.measures else None
        self.decided: Decision | None = None
        self.over = False
        self.owed: Decision | None = None

    def of(self, production: Release, candidate: Release) -> bool:
        """Whether it is a trial of these."""
        return self.production is production and self.candidate is candidate

    def losses(self, before: Made, after: Made, hits: list[list[list[str]]]) -> dict[str, Array]:
        """Return by measure how much worse the candidate is on each item; takes a while.

        Args:
            before, after: what production made of it, and the candidate.
            hits: ids of the nearest items by both, if both have an index.
        """
        found: dict[str, Array] = {}
        if hits:
            found["disagreement"] = disagreement(*hits)
        if self.same_space:
            found["distance"] = distance(before.vectors, after.vectors)
        if self._known[0] is not None and self._known[1] is not None:
            ranks = (self._known[0].ranks(before.vectors), self._known[1].ranks(after.vectors))
            found["strangeness"] = stranger(*ranks)
        if before.answers is not None and after.answers is not None:
            found["abstained"] = after.answers.abstained.astype(float) - before.answers.abstained.astype(float)
        return {name: values for name, values in found.items() if name in self.trial.measures}

    async def keep(self) -> None:
        """Write down what is known, where that is asked for."""
        if self._path is not None:
            known = json.dumps(self.trial.state()).encode()  # while nobody adds to it
            await asyncio.to_thread(write_bytes, self._path, known)

    def free(self) -> bool:
        """Whether both would begin a request at once: else how long they take says how much they have to do."""
        sides = [*self.production.sides.values(), *self.candidate.sides.values()]
        return all(side.batcher.free for side in sides)

    def end(self) -> None:
        """Ask nothing of the candidate any more, and let another process go on with what is written down."""
        self.over = True
        if self._slot is not None:
            self._slot.release()

    def _measures(self) -> list[str]:
        sides = [*self.production.sides.values(), *self.candidate.sides.values()]
        heads = all(side.head is not None for side in sides)
        there = {
            "disagreement": self.production.search is not None and self.candidate.search is not None,
            "distance": self.same_space,
            "strangeness": None not in self._known,
            "abstained": heads,
            WRONG: heads and self._path is not None,
        }
        return [LATENCY, *(name for name, is_there in there.items() if is_there)]

    def _resumed(self) -> Trial | None:
        if self._path is None or not self._path.exists():
            return None
        try:
            return Trial.resumed(json.loads(self._path.read_bytes()))
        except (ValueError, KeyError, TypeError):
            return None  # of another version of this program: the trial begins anew


class Router:
    """Tries what an alias names against what serves.

    Args:
        registry: where both are.
        live: production.
        candidate: the other alias, followed in the same way.
        testing: see `Candidacy`.
        telemetry: told of pairs and of decisions.
        free: told of how many pixels are in memory no more.
    """

    def __init__(
        self,
        registry: Registry,
        live: Live,
        candidate: Live,
        testing: Candidacy,
        telemetry: Telemetry,
        free: Callable[[int], None],
    ) -> None:
        self._registry, self._live, self._testing, self._telemetry = registry, live, testing, telemetry
        self._free = free
        self.candidate = candidate
        self.now: Running | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._read: set[Path] = set()  # files of labels
        self._lots, self._settling = random.Random(), asyncio.Lock()

    async def look(self) -> None:
        """Follow the candidate's alias, and begin a trial, or end one, when either version changes."""
        named = await asyncio.to_thread(self._registry.now_at, self.candidate.name, self.candidate.alias)
        if self.now is not None and self.now.candidate.target.version.number != named:
            self._end()  # before anything is waited for: nobody nominates it any more
        if named is None:
            await self.candidate.close()
        else:
            await self.candidate.look()
        production, candidate = self._live.now, self.candidate.now
        if production is None or candidate is None or candidate.target.version.number != named:
            self._end()
        elif production.version == candidate.version:
            self._end()
            await self._arrived(candidate)
        elif self.now is None or not self.now.of(production, candidate):
            await self._begin(production, candidate)
        elif self.now.owed is not None:
            await self._settle(self.now)
        elif not self.now.over:
            await self._judged(self.now)
            await self.now.keep()

    async def _begin(self, production: Release, candidate: Release) -> None:
        self._end()
        with self._live.held(production), self.candidate.held(candidate):
            spec = f"{self._live.name}@{self._live.alias}"
            self.now = await asyncio.to_thread(Running, spec, production, candidate, self._testing)
            await asyncio.to_thread(self._new_labels)  # those are of what was asked before
        self._telemetry.log("trial", candidate=candidate.version, production=production.version)

    def _end(self) -> None:
        if self.now is not None:
            self.now.end()
            self.now = None

    async def _arrived(self, candidate: Release) -> None:
        """Take the alias from a candidate that production names by now: it would be tried against what comes next."""
        if self._testing.shadow:
            return
        about, why = candidate.target.version, f"{self._live.alias} names it"
        try:
            await asyncio.to_thread(
                self._registry.remove, about.name, self.candidate.alias, why=why, expected=about.number
            )
        except FastnessError as error:
            self._telemetry.log("not applied", candidate=candidate.version, error=str(error))

    async def _judged(self, running: Running) -> None:
        """Take into the trial the labels that have come; in between requests are answered."""
        if running.awaited is None or not (known := await asyncio.to_thread(self._new_labels)):
            return
        for number, (wrong, slices) in enumerate(running.awaited.came(known), 1):
            running.trial.judged(wrong, slices)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        await self._decide(running)

    def _new_labels(self) -> dict[str, str]:
        """Return what the labels say that have come since the last look; a file that is damaged is told of once."""
        found: dict[str, str] = {}
        if self._testing.folder is None:
            return found
        for path in files(self._testing.folder, self._live.name, self._live.alias):
            if path not in self._read:
                self._read.add(path)
                try:
                    found |= labels([path])
                except BadInput as error:
                    self._telemetry.log("labels not read", why=str(error))
        return found

    async def answer(self, asked: Asked, handler: Handler) -> Response:
        """Answer a request by what it falls to; whatever the candidate does, by production if need be."""
        running = self.now
        if running is None or running.over or asked.release is not running.production:
            return await handler(asked)
        if len(self._under_way) >= _MOST or self._lots.random() >= self._testing.share:
            return await self._alone(running, asked, handler)
        return await self._both(running, asked, handler)

    async def close(self) -> None:
        """Finish comparing, and write down what is known."""
        await asyncio.gather(*self._under_way)
        if self.now is not None:
            try:
                await self.now.keep()
            except FastnessError as error:  # a full disk is no reason not to close
                self._telemetry.log("trial not kept", why=str(error))
            self._end()
        await self.candidate.close()

    def shown(self) -> dict[str, Any] | None:
        """Return what is to be said of the trial; ``None``: there is none."""
        running = self.now
        if running is None:
            return None
        decision = running.decided or running.trial.decision()
        told = {"candidate": running.candidate.version, "alias": self.candidate.alias, "shadow": self._testing.shadow}
        return {**told, "share": self._testing.share, **decision.to_dict()}

    async def _alone(self, running: Running, asked: Asked, handler: Handler) -> Response:
        try:
            response = await handler(asked)
        except (Exception, asyncio.CancelledError) as error:
            if not (_clients(error) or isinstance(error, Overloaded)):
                running.trial.alone(failed=True)
            raise
        running.trial.alone(failed=False)
        return response

    async def _both(self, running: Running, asked: Asked, handler: Handler) -> Response:
        """Put a request to both, in an order that lots decide, and answer by one of them."""
        asked.made = []
        holding = ExitStack()
        holding.enter_context(self._live.held(running.production))
        holding.enter_context(self.candidate.held(running.candidate))
        other = replace(asked, key=None, made=[], aside=True, release=running.candidate)
        free, task = running.free(), asyncio.create_task(self._tried(other, handler))
        if self._lots.random() < 0.5:
            await asyncio.sleep(0)  # the candidate begins
        started = time.perf_counter()
        try:
            response = await handler(asked)
        except BaseException:
            task.cancel()
            holding.close()
            raise
        seconds = time.perf_counter() - started
        before = _Tried(running.production, response, seconds, asked.made[0] if asked.made else None, free=free)
        job = asyncio.create_task(self._compared(running, before, task, holding))
        self._under_way.add(job)
        job.add_done_callback(self._under_way.discard)
        if self._testing.shadow or (asked.request.scope["path"] == _OWN_SPACE and not running.same_space):
            return response
        left = max(0.0, asked.timeout - seconds)  # about so long the client waits yet
        await asyncio.wait({task}, timeout=min(max(_PATIENCE, _TIMES * seconds), asked.timeout / 4, left / 2))
        if not task.done() or task.cancelled() or (after := task.result()).response is None:
            return response
        asked.release, asked.items = after.release, other.items
        return after.response

    async def _tried(self, asked: Asked, handler: Handler) -> _Tried:
        """Return what a candidate makes of a request; whatever goes wrong, that it gave no answer."""
        assert asked.release is not None and asked.made is not None
        tried, started = _Tried(asked.release), time.perf_counter()
        try:
            async with asyncio.timeout(asked.timeout):
                tried.response = await handler(asked)
        except Overloaded:
            tried.crowded = True
        except Exception:  # noqa: BLE001 - that it has no answer is what is counted
            tried.response = None
        finally:
            self._free(asked.pixels)
        tried.seconds = time.perf_counter() - started
        tried.made = asked.made[0] if asked.made else None
        return tried

    async def _compared(self, running: Running, before: _Tried, task: asyncio.Task[_Tried], holding: ExitStack) -> None:
        """Take into the trial what both made of a request, and do what follows."""
        with holding:
            try:
                after = await task
                if after.crowded or running.over:
                    return
                compared = Compared(failed=True)
                if after.response is not None:
                    compared = await self._comparison(running, before, after)
                running.trial.add(compared)
                self._telemetry.pairs.labels(running.candidate.version, "no" if compared.failed else "yes").inc()
            except Exception as error:  # noqa: BLE001 - a comparison that fails is no reason to serve worse
                self._telemetry.log("not compared", why=f"{type(error).__name__}: {error}")
                return
        if running.trial.pairs % _EVERY == 0 and not running.over:
            await self._decide(running)

    async def _comparison(self, running: Running, before: _Tried, after: _Tried) -> Compared:
        seconds = (before.seconds, after.seconds) if before.free else None
        if before.made is None or after.made is None:
            return Compared(False, seconds)
        hits = []
        for tried, made in ((before, before.made), (after, after.made)):
            search = tried.release.search
            if search is not None:
                found = await search.nearest(made.vectors, _NEAREST, None)
                hits.append([[hit.id for hit in row] for row in found])
        both = hits if len(hits) == 2 else []
        losses = await asyncio.to_thread(running.losses, before.made, after.made, both)
        slices = _slices(before.made)
        if running.awaited is not None and before.made.wanted.ids:
            running.awaited.put(before.made.wanted.ids, _said(before.made), _said(after.made), slices)
        return Compared(False, seconds, losses, slices)

    async def _decide(self, running: Running) -> None:
        decision = running.trial.decision()
        news = running.decided is None or running.decided.state != decision.state
        running.decided = decision
        if decision.state == "running" or not news:
            return
        running.over = decision.state != "undecided"
        told = {"candidate": running.candidate.version, "state": decision.state, "why": decision.why}
        self._telemetry.log("decided", **told, pairs=decision.pairs)
        if running.over and not self._testing.shadow:
            running.owed = decision
            await self._settle(running)
        await running.keep()

    async def _settle(self, running: Running) -> None:
        """Move the aliases as was decided; what cannot be moved now is tried at the next look.

        Where somebody else has moved one meanwhile, what they want holds: then this trial is over.
        """
        async with self._settling:
            if running.owed is None:
                return  # it was waited for
            evidence = {"trial.json": json.dumps(running.trial.state()).encode()}
            try:
                await asyncio.to_thread(self._apply, running, running.owed, evidence)
                running.owed = None
            except FastnessError as error:
                self._telemetry.log("not applied", candidate=running.candidate.version, error=str(error))

    def _apply(self, running: Running, decision: Decision, evidence: dict[str, bytes]) -> None:
        """Move the aliases; the log of production's says why, with all figures, also why one was not let in."""
        candidate, production = running.candidate.target.version, running.production.target.version
        record = {"trial": decision.to_dict(), "policy": running.trial.terms.model_dump()}
        passed = decision.state == "promote"
        gate = Judged(passed, decision.why, candidate.manifest, production.number, record, evidence)
        alias, why = self.candidate.alias, f"canary at {self.candidate.alias}: {decision.why}"
        try:
            self._registry.promote(str(candidate), self._live.alias, why=why, gate=gate, leaving=alias)
        except GateRefused:
            self._telemetry.log("refused", candidate=str(candidate), why=decision.why)


def _identity(production: Release, candidate: Release, terms: Terms) -> str:
    """Return what tells a trial from all others: what is tried, since which move, in which forms, on which terms."""
    forms = [str(side.encoder.about["form"]) for release in (production, candidate) for side in release.sides.values()]
    said = json.dumps([candidate.target.move, forms, terms.model_dump()], sort_keys=True)
    names = (production.version, production.index or "none", candidate.version, candidate.index or "none")
    return f"{' '.join(names)} {hashlib.sha256(said.encode()).hexdigest()[:10]}"


def _slot(folder: Path, name: str) -> FileLock:
    """Return a lock that this process holds: each that serves here has a trial of its own, and finds it again."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            lock = FileLock(folder / f"{name} {number}.lock", thread_local=False)  # another thread gives it back
            try:
                lock.acquire(timeout=0)
                return lock
            except Timeout:
                continue
    raise AssertionError("numbers do not end")


def _clients(error: BaseException) -> bool:
    """Whether an error is the client's: what was asked cannot be answered by anyone."""
    return isinstance(error, BadInput) or getattr(error, "status", 500) < 500


def _reference(release: Release) -> Strangeness | None:
    """Return how strange items are to a version, if it has a sketch of what it was made for."""
    folder = next(iter(release.sides.values())).encoder.folder.parent.parent
    if len(release.sides) > 1 or not (folder / FOLDER / DESCRIPTION).is_file():
        return None
    try:
        return Strangeness(Sketch.load(folder).window.vectors)
    except BadInput:
        return None  # it is told of where traffic is watched


def _said(made: Made) -> list[str | None]:
    """Return the class that was said of each item, ``None`` where none was."""
    if made.answers is None:
        return [None] * len(made.vectors)
    pairs = zip(made.answers.labels, made.answers.abstained, strict=True)
    return [None if abstained else str(label) for label, abstained in pairs]


def _slices(made: Made) -> list[list[str]]:
    """Return in which slices each item is: by what the client told of it, and by its class."""
    told: list[Mapping[str, Any]] = list(made.wanted.metadata or [{} for _ in made.vectors])
    found = [[f"{name}={value}" for name, value in known.items() if not isinstance(value, float)] for known in told]
    if made.answers is not None:
        for names, label in zip(found, made.answers.labels, strict=True):
            names.append(f"label={label}")
    return found
