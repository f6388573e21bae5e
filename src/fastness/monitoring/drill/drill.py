"""A drill: what a policy would notice, how soon, and what it would do, rehearsed on a scratch copy of what serves.

Three accidents come one after the other: items become others, searches fail, the service stands still for stretches.
Before each of them there is peace; after each the copy is mended, so that they do not touch each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastness.core.errors import BadInput, GateRefused
from fastness.monitoring.drill.asking import Asking, post
from fastness.monitoring.drill.rehearsed import Item, happened, items_of, sent
from fastness.monitoring.drill.scratch import STAND_IN, Receiver, Running, Say, Scratch
from fastness.monitoring.policy import Policy
from fastness.registry import Registry, incidents, outbox, watched
from fastness.registry.incidents import Incident
from fastness.registry.watched import Watched

DRIFT, ERRORS, LATENCY = "drift", "errors", "latency"
ACCIDENTS = (DRIFT, ERRORS, LATENCY)
"""What can be rehearsed, in this order."""

NOTICED_BY = {
    DRIFT: ("drift", "estimate", "outliers", "abstained", "collapse", "missing"),
    ERRORS: ("errors", "refused"),
    LATENCY: ("latency", "refused", "errors"),
}
"""Signals of which one must alarm; an index that cannot be read may be answered 500 or 503."""

_CLIENTS, _BATCH = 8, 1  # who ask, and items in a request
_LOOK = 0.1  # seconds between two looks
_STILL, _MOVES = 1.5, 0.01  # so many times the seconds that are slow it stands still; so many seconds it goes on
_STRETCH = 3.0  # seconds
_SECOND = 1_000_000


@dataclass(frozen=True)
class Rehearsed:
    """How an accident ended.

    Attributes:
        accident: see `ACCIDENTS`.
        detected: seconds from the accident until an incident was opened; ``None``: none was.
        windows: how many windows of traffic were judged until then.
        answers: how often clients were answered with which status until the copy was mended; 0: not at all.
        signal, said: of the incident; empty without one.
        told: what would have been said to people, the first message first.
        done: what the monitor did, by action, with the seconds from the incident until it was done; ``None``: not done.
        recovered: seconds from the incident (where the drill had to end the accident: from then) until none was open.
        mended_by: ``rollback``, or ``drill`` if the accident went on until the drill ended it.
    """

    accident: str
    detected: float | None
    windows: int
    answers: dict[int, int]
    signal: str = ""
    said: str = ""
    told: list[str] = field(default_factory=list)
    done: dict[str, float | None] = field(default_factory=dict)
    recovered: float | None = None
    mended_by: str = ""


@dataclass(frozen=True)
class Drilled:
    """What came of a drill.

    Attributes:
        spec: what was copied.
        versions: real names of the copied versions, the rehearsed one last.
        window: seconds that a window lasted.
        peace: windows that were judged before the first accident, none of which may open an incident.
        accidents: each with how it ended.
        folder: of the copy: the monitor's and the service's log, the policy, the registry with the timelines.
    """

    spec: str
    versions: list[str]
    window: float
    peace: int
    accidents: list[Rehearsed]
    folder: Path

    @property
    def missed(self) -> list[str]:
        """Accidents that were not detected."""
        return [one.accident for one in self.accidents if one.detected is None]

    def enforce(self) -> None:
        """Raise `GateRefused` if something was not detected."""
        if self.missed:
            raise GateRefused(f"{self.spec}: not detected: {', '.join(self.missed)}; see {self.folder}")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "folder": str(self.folder), "missed": self.missed}


def drill(
    registry: Registry,
    spec: str,
    data: str | Path,
    policy: Policy,
    folder: Path,
    *,
    drift: str | Path | None = None,
    accidents: Sequence[str] = ACCIDENTS,
    form: str | None = None,
    window: float = 5.0,
    patience: float = 120.0,
    items: int = 500,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Drilled:
    """Rehearse accidents on a copy of what an alias names.

    Args:
        registry: that has the versions; is only read.
        spec: ``NAME@ALIAS``.
        data: items as production has them when all is well, see `open_data`; they are searched, too.
        policy: what is rehearsed. Nothing is said to anybody and nothing is trained; no action waits for its cooldown.
        folder: of the copy; that of another drill is removed.
        drift: items as production might have them; default: ``data`` after an accident of their modality.
        accidents: of `ACCIDENTS`.
        form: of the export that serves.
        window: seconds that a window of the copy lasts.
        patience: seconds that detection, and recovery, may take.
        items: that are asked about.
        seed: of the sample and of what happens to items.
        say: called with lines of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: the alias names nothing, an accident or the data is none; or there is an incident in peace already.
        Failure: the copy does not serve.
    """
    name, _, alias = spec.partition("@")
    if unknown := [one for one in accidents if one not in ACCIDENTS]:
        raise BadInput(f"'{unknown[0][:80]}': can be rehearsed: {', '.join(ACCIDENTS)}")
    tell: Say = say or (lambda line: None)
    scratch = Scratch(registry, name, alias, folder, tell)
    try:
        usual, strange = _asked(scratch, data, drift, items, seed, columns)
        scratch.index(data, form, columns)
        with Receiver() as receiver:
            stated = scratch.rehearsing(policy, receiver.url)
            with Running(scratch, stated, window, form) as running:
                routes = _routes(running.address, usual[:1])
                with Asking(running.address, routes, usual, _CLIENTS, _BATCH) as asking:
                    course = _Course(scratch, running, asking, receiver, policy, usual, strange, patience, tell)
                    peace = course.peace()
                    ended = [course.rehearse(one) for one in ACCIDENTS if one in accidents]
    finally:
        scratch.close()
    versions = [f"{name}@{number}" for number in scratch.numbers]
    return Drilled(spec, versions, window, peace, ended, folder)


def _asked(
    scratch: Scratch,
    data: str | Path,
    drift: str | Path | None,
    most: int,
    seed: int,
    columns: dict[str, str | None],
) -> tuple[list[Item], list[Item]]:
    """Return usual items and strange ones, as they are sent."""
    from fastness.bundle import load

    bundle = load(scratch.registry.pull(scratch.current)).one_side(None)
    dataset = bundle.open(data, **columns)
    usual = items_of(dataset, most, seed)
    if drift is None:
        strange = happened(usual, dataset.modality, seed)
    else:
        strange = items_of(bundle.open(drift, **columns), most, seed)
    if not usual or not strange:
        raise BadInput(f"{data if not usual else drift}: holds no item that can be asked about")
    return [sent(item) for item in usual], [sent(item) for item in strange]


def _routes(address: str, items: list[Item]) -> list[str]:
    """Return what the service can be asked; searches are half of it, since they are what an index may break."""
    classifies = post(address, "/v1/classify", {"input": items}) == 200
    return ["/v1/search", "/v1/classify" if classifies else "/v1/embeddings"]


class _Course:
    """Accidents, one after the other."""

    def __init__(
        self,
        scratch: Scratch,
        running: Running,
        asking: Asking,
        receiver: Receiver,
        policy: Policy,
        usual: list[Item],
        strange: list[Item],
        patience: float,
        say: Say,
    ) -> None:
        self._scratch, self._running, self._asking, self._policy = scratch, running, asking, policy
        self._usual, self._strange, self._patience, self._say = usual, strange, patience, say
        self._receiver = receiver

    def peace(self) -> int:
        """Wait until so many windows were judged as close an incident; return how many.

        Raises:
            BadInput: an incident was opened, or nothing is judged at all.
        """
        began = time.time()
        wanted = self._policy.healthy
        found = self._until(lambda: (seen := self._judged(began))[wanted - 1 :] and seen)
        if told := self._open():
            raise BadInput(f"there is an incident before any accident: {told[0].title}; give items as production has")
        if not found:
            raise BadInput(
                f"no {wanted} windows were judged within {self._patience:g} s; "
                f"lower the policy's least ({self._policy.least}), or give more time (--patience)"
            )
        return len(found)

    def rehearse(self, accident: str) -> Rehearsed:
        """Let an accident happen, see what is done about it, and mend it."""
        self._say(f"{accident} …")
        before = self._asking.statuses.copy()
        with self._happening(accident) as end:
            began = time.time()
            found = self._until(lambda: self._noticed(accident, began))
            judged = len(self._judged(began))
            if found is None:
                end()
                self._quiet()
                return Rehearsed(accident, None, judged, dict(self._asking.statuses - before))
            self._until(lambda: not self._due(began))
            back = self._scratch.registry.now_at(self._scratch.name, self._scratch.alias)
            rolled = f"{self._scratch.name}@{back}" != self._scratch.current
            since = self._told(found, "opened")
            if not (rolled and accident == ERRORS):  # the other version's index is whole, and heals by itself
                end()
                since = time.time()
            calm = self._until(lambda: not self._open())
            recovered = time.time() - since if calm else None
        answers = dict(self._asking.statuses - before)
        done = self._done(began, self._told(found, "opened"))
        self._quiet()
        detected = self._told(found, "opened") - began
        by = "rollback" if rolled and accident == ERRORS else "drill"
        told = [said for at, said in self._receiver.got if at >= began]
        return Rehearsed(accident, detected, judged, answers, found.kind, found.title, told, done, recovered, by)

    @contextmanager
    def _happening(self, accident: str) -> Iterator[Callable[[], None]]:
        """Let an accident happen until the function that is given is called, at the end at the latest."""
        over = threading.Event()
        happens = {DRIFT: self._drifting, ERRORS: self._breaking, LATENCY: self._halting}[accident]
        thread = threading.Thread(target=happens, args=(over,), daemon=True)
        thread.start()

        def end() -> None:
            over.set()
            thread.join()

        try:
            yield end
        finally:
            end()

    def _drifting(self, over: threading.Event) -> None:
        self._asking.items = self._strange
        over.wait()
        self._asking.items = self._usual

    def _breaking(self, over: threading.Event) -> None:
        with self._scratch.broken_index():
            over.wait()

    def _halting(self, over: threading.Event) -> None:
        """Let the service stand still again and again: what it has begun is late each time.

        Between such stretches it goes on until it has written down what it saw, else nobody would hear of it.
        """
        latency = self._policy.signals.latency
        still = _STILL * (1.0 if latency is None else latency.seconds)
        while not over.is_set():
            for _ in range(max(2, int(_STRETCH / still))):
                self._running.stop()
                try:
                    over.wait(still)
                finally:
                    self._running.go_on()
                over.wait(_MOVES)
            written = self._scratch.written()
            while self._scratch.written() == written and not over.wait(_LOOK):
                continue

    def _quiet(self) -> None:
        """Bring the copy back to what it was, close what is left open, and wait for a window without alarm."""
        registry = self._scratch.registry
        self._scratch.back()
        since = time.time()
        wanted = self._scratch.current
        self._until(lambda: any(w.version == wanted and w.start > since * _SECOND for w in self._judged(since)))
        for left in self._open():
            incidents.close(registry, left.id, "the drill goes on")

    # -- what the copy's registry tells --------------------------------------------------------------------------------

    def _until(self, holds: Callable[[], Any]) -> Any:
        """Return what is there as soon as it is, ``None`` once patience is at its end."""
        ends = time.monotonic() + self._patience
        while time.monotonic() < ends:
            if found := holds():
                return found
            time.sleep(_LOOK)
        return None

    def _judged(self, since: float) -> list[Watched]:
        found = watched.history(self._scratch.registry, self._scratch.name, self._scratch.alias)
        return [window for window in found if window.end > since * _SECOND]

    def _open(self) -> list[Incident]:
        found = incidents.incidents(self._scratch.registry, closed=False)
        return sorted(found, key=lambda one: one.id)

    def _noticed(self, accident: str, began: float) -> Incident | None:
        """Return the first incident about the accident."""
        found = incidents.incidents(self._scratch.registry)
        fits = [one for one in found if one.kind in NOTICED_BY[accident] and self._told(one, "opened") >= began]
        return min(fits, key=lambda one: one.id, default=None)

    def _told(self, about: Incident, what: str) -> float:
        """Return when something first happened to an incident, as of ``time.time()``."""
        story = incidents.timeline(self._scratch.registry, about.id)
        return next(one.at for one in story if one.what == what) / _SECOND

    def _actions(self, began: float) -> list[outbox.Action]:
        """Return what was begun about incidents since an accident."""
        registry = self._scratch.registry
        since = [one for one in incidents.incidents(registry) if self._told(one, "opened") >= began]
        every = [action for one in since for action in outbox.actions_of(registry, one.id)]
        return [action for action in every if action.phase == outbox.BEGIN]

    def _due(self, began: float) -> bool:
        return any(action.open for action in self._actions(began))

    def _done(self, began: float, opened: float) -> dict[str, float | None]:
        """Return when each action was done first, in seconds since the incident."""
        found: dict[str, float | None] = {}
        for action in self._actions(began):
            called = action.action.removeprefix("notify/") if action.action.startswith(f"notify/{STAND_IN}") else None
            seconds = action.done / _SECOND - opened if action.done and action.state == outbox.DONE else None
            found.setdefault(called or action.action, seconds)
        return found
