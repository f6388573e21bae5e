"""Items of many requests computed together: as many as a batch may last, no more waiting than is borne."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from fastness.core.errors import BadInput, Failure
from fastness.serving.latency import Latency
from fastness_runtime import Unusable

Arrays = list[np.ndarray[Any, Any]]
Compute = Callable[[list[Any], tuple[str, ...]], Sequence[np.ndarray[Any, Any]]]

_TRY = 8  # of so many batches of lone items one is of several


class Overloaded(Exception):
    """There is more to do than can be done in time.

    Attributes:
        reason: ``queue`` (more is waiting than is borne) or ``deadline`` (it would be, or is, too late).
        after: seconds after which it is worth another try.
    """

    def __init__(self, reason: str, after: float) -> None:
        super().__init__(reason)
        self.reason, self.after = reason, after


class Unreadable(BadInput):
    """An item of a request cannot be read; the others might be."""


@dataclass(frozen=True)
class Limits:
    """How batches are made.

    Attributes:
        rows: most items in a batch.
        batch: seconds that a batch may last, by the line of its latency; as many items as cost what a batch costs by
            itself are always taken, and one at least.
        wait: seconds that an item may have to wait for a batch.
    """

    rows: int = 64
    batch: float = 0.02
    wait: float = 0.5


@dataclass(eq=False)
class _Job:
    """A request's items, of which some may be computed before others."""

    items: Sequence[Any]
    works: Sequence[float]
    outputs: tuple[str, ...]
    deadline: float
    done: asyncio.Future[Arrays]
    loop: asyncio.AbstractEventLoop
    taken: int = 0
    left: int = 0
    found: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = [0.0, *accumulate(self.works)]  # work of the items before each

    @property
    def waiting(self) -> float:
        """Work that no batch has taken yet."""
        return self.next(len(self.items))

    def next(self, items: int) -> float:
        """Work of the next so many items, or of as many as are left."""
        return self._before[min(self.taken + items, len(self.items))] - self._before[self.taken]


class Batcher:
    """Computes items in batches, on threads of its own.

    It never waits for more items: while a batch is computed the next one gathers, and a lone item starts at once. The
    requests that wait take turns, an item each, the oldest first, so that a large one does not hold up the small.

    Args:
        compute: from items and names of outputs to an array an output, row i of item i; called on several threads. An
            item that it refuses (`Unusable`) fails its own request alone.
        work: how much work an item is.
        limits: see `Limits`.
        workers: batches that are computed at once.
        seen: told of every batch: its items, and its seconds.
    """

    def __init__(
        self,
        compute: Compute,
        work: Callable[[Any], float],
        limits: Limits,
        workers: int = 1,
        seen: Callable[[int, float], None] = lambda items, seconds: None,
    ) -> None:
        self._compute, self._work, self._limits, self._seen = compute, work, limits, seen
        self._workers = workers
        self._latency = Latency()
        self._jobs: deque[_Job] = deque()  # whose turn it is comes first
        self._waiting = 0.0  # work that is in no batch yet
        self._running: list[float] = []  # work of the batches that are computed
        self._closed = False
        self._lone = 0  # batches of which not two items fit
        self._change = threading.Condition()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> float:
        """Seconds until what waits is computed, as far as the line of the latency knows."""
        with self._change:
            return self._expected(self._waiting)

    @property
    def free(self) -> bool:
        """Whether what comes now is begun at once."""
        with self._change:
            return not self._jobs and len(self._running) < self._workers

    def refusal(self, items: int = 1) -> Overloaded | None:
        """Return why a request of so many items is not taken now: it would have to wait for more than is borne."""
        with self._change:
            expected = self._beyond(self._limits.wait, items)
        return None if expected is None else Overloaded("queue", expected - self._limits.wait / 2)

    def learn(self, items: Sequence[Any], seconds: float) -> None:
        """Take a batch that was computed elsewhere into the line of the latency."""
        with self._change:
            self._latency.observe(sum(map(self._work, items)), seconds)

    async def run(self, items: Sequence[Any], outputs: tuple[str, ...], timeout: float) -> Arrays:
        """Compute items: an array an output, row i of item i.

        Args:
            items: at least one.
            outputs: their names.
            timeout: seconds after which nobody wants the answer any more.

        Raises:
            Overloaded: it would take too long, or did.
            Unreadable: an item cannot be used; names its position.
            Failure: the batcher was closed.
            RuntimeError: the computation failed; its cause says how.
        """
        loop = asyncio.get_running_loop()
        works = [self._work(item) for item in items]
        job = _Job(items, works, outputs, time.monotonic() + timeout, loop.create_future(), loop, left=len(items))
        with self._change:
            if self._closed:
                raise Failure("this version serves no more; ask again")
            if refusal := self.refusal(len(items)):
                raise refusal
            if (expected := self._beyond(timeout, len(items), sum(works))) is not None:
                raise Overloaded("deadline", expected)
            self._jobs.append(job)
            self._waiting += sum(works)
            self._change.notify()
        return await job.done

    def close(self) -> None:
        """Compute what waits, then end the threads."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _expected(self, work: float) -> float:
        """Return the seconds until so much work is done that is still to begin."""
        work += sum(self._running) / 2  # of what is being computed half is done, on average
        return self._latency.pace * work / self._workers

    def _beyond(self, most: float, items: int, own: float = 0.0) -> float | None:
        """Return in how many seconds a new request of so many items is served, if that is more than is borne.

        It takes turns with those that wait: what these leave for later than its last turn is not before it. Where
        nothing is before it it is never refused, since only what is computed tells how long that takes.

        Args:
            most: seconds that are borne.
            items: of the request.
            own: work of these, if they are to be done; else they are to be begun.
        """
        if not self._jobs and not self._running:
            return None
        if self._expected(self._waiting + own) <= most:
            return None  # nor is it if less is counted; so there is seldom a need to look at every request
        expected = self._expected(sum(job.next(items) for job in self._jobs) + own)
        return expected if expected > most else None

    def _serve(self) -> None:
        while True:
            with self._change:
                while not self._jobs:
                    if self._closed:
                        return
                    self._change.wait()
                batch = self._batch()
                if self._jobs:
                    self._change.notify()  # one thread was woken for a request; what it leaves is for the next
                work = sum(job.works[i] for job, places in batch for i in places)
                if batch:
                    self._running.append(work)
            if batch:
                self._answer(batch, work)

    def _batch(self) -> list[tuple[_Job, range]]:
        """Take the next items from the jobs that wait; of those that wait in vain nothing."""
        now = time.monotonic()
        for job in [job for job in self._jobs if job.deadline < now or job.done.cancelled()]:
            self._drop(job)
            _finish(job, Overloaded("deadline", self._expected(self._waiting)))
        within = self._within()
        starts: dict[_Job, int] = {}
        for number in range(self._limits.rows):
            if not self._jobs or (number and self._jobs[0].next(1) > within):
                break
            job = self._jobs.popleft()
            cost = job.next(1)
            starts.setdefault(job, job.taken)
            job.taken += 1
            within -= cost
            self._waiting -= cost
            if job.taken < len(job.items):
                self._jobs.append(job)
        return [(job, range(start, job.taken)) for job, start in starts.items()]

    def _within(self) -> float:
        """Return how much work is to be in the next batch: what fits, but no less than costs what any batch costs.

        Where not even one item fits, lone ones would never tell what several cost; so now and then several are taken.
        """
        fits = self._latency.work_within(self._limits.batch)
        least = max(fits, self._latency.base / self._latency.each)
        first = self._jobs[0].next(1) if self._jobs else 0.0
        if fits >= 2 * first:
            return least
        self._lone += 1
        return least if self._lone % _TRY else max(least, 4 * first)

    def _drop(self, job: _Job) -> None:
        self._jobs.remove(job)
        self._waiting -= job.waiting

    def _answer(self, batch: list[tuple[_Job, range]], work: float) -> None:
        """Compute a batch, which is under way, and hand each job its rows; when it has them nothing is any more."""
        outputs = tuple(dict.fromkeys(name for job, _ in batch for name in job.outputs))
        items = [job.items[i] for job, places in batch for i in places]
        started = time.perf_counter()
        try:
            found = dict(zip(outputs, self._compute(items, outputs), strict=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, the requests are told and the thread lives on
            with self._change:
                self._running.remove(work)
            self._refuse(batch, error)
            return
        seconds = time.perf_counter() - started
        with self._change:
            self._running.remove(work)
            self._latency.observe(work, seconds)
        self._seen(len(items), seconds)
        start = 0
        for job, places in batch:
            stop = start + len(places)
            self._fill(job, places, {name: found[name][start:stop] for name in job.outputs})
            start = stop

    def _fill(self, job: _Job, places: range, rows: dict[str, np.ndarray[Any, Any]]) -> None:
        with self._change:
            if len(places) == len(job.items):
                job.found = rows
            for name, part in rows.items() if job.found is not rows else ():
                whole = job.found.setdefault(name, np.empty((len(job.items), *part.shape[1:]), part.dtype))
                whole[places.start : places.stop] = part
            job.left -= len(places)
            complete = job.left == 0
        if complete:
            _finish(job, [job.found[name] for name in job.outputs])

    def _refuse(self, batch: list[tuple[_Job, range]], error: Exception) -> None:
        """Tell the requests of a batch that failed; where several were in it, each is tried alone first."""
        if len(batch) > 1:
            for job, places in batch:
                work = sum(job.works[i] for i in places)
                with self._change:
                    self._running.append(work)
                self._answer([(job, places)], work)
            return
        ((job, places),) = batch
        if isinstance(error, Unusable):
            told: Exception = Unreadable(_placed(str(error), places.start))
        else:
            told = RuntimeError(f"a batch could not be computed ({type(error).__name__})")
            told.__cause__ = error
        with self._change:
            if job in self._jobs:
                self._drop(job)
        _finish(job, told)


def _placed(said: str, start: int) -> str:
    """Return what the runtime says of an item, with its position in the request instead of that in the batch."""
    head, _, rest = said.partition(":")
    word, _, number = head.rpartition(" ")
    return f"{word} {int(number) + start}:{rest}" if number.isdecimal() else said


def _finish(job: _Job, result: Arrays | Exception) -> None:
    """Hand a request its answer, on its own loop."""

    def tell() -> None:
        if job.done.done():
            return
        if isinstance(result, Exception):
            job.done.set_exception(result)
        else:
            job.done.set_result(result)

    try:
        job.loop.call_soon_threadsafe(tell)
    except RuntimeError:
        return  # its loop has ended, and nobody waits any more
