"""The monitor: every window of what was served is judged once, and what follows is done.

It keeps nothing in memory that matters. Which windows are judged, what is wrong and what is due about it stands in the
registry; so it may be killed at any moment, be run from time to time instead of always, or twice at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import Popen

from fastness.core.errors import BadInput, Failure, FastnessError
from fastness.monitoring.actions import ACTIONS, Doing, Outcome
from fastness.monitoring.actions.notify import address
from fastness.monitoring.decide import BACK, BY, decided
from fastness.monitoring.explain.explanation import Past, Signature
from fastness.monitoring.kept.traffic import Traffic
from fastness.monitoring.kept.windows import Kept, kept
from fastness.monitoring.policy import Abstain, Notify, Policy
from fastness.monitoring.signals import Asked, judged_by
from fastness.monitoring.sketch import FOLDER, Sketch
from fastness.registry import Registry, incidents, outbox, watched
from fastness.registry.outbox import AGAIN, DONE, DUE, END, FAILED, Action
from fastness.registry.says import checked_alias, checked_name, now
from fastness.registry.store import Lost
from fastness.registry.watched import Watched

_LATE = 7_200_000_000  # microseconds that a window may be over later than one that ended at the same time
_LONGEST_PAUSE = 900.0  # seconds
_LOOKED = 64  # windows back, of those in which labels were judged
_REMEMBERED = 50  # incidents that a drift is compared with
_HOUR, _MONTH = 3600.0, 31 * 86_400_000_000  # seconds, microseconds
_STALE = 3_600_000_000  # microseconds after which nothing is done about a window but to tell of it
_LEASE = 15.0  # seconds by which a claim outlasts what an action may take
_STEPS = {"mail": 12, "webhook": 3, "alertmanager": 3}  # that a message takes at most, each with its own timeout
_GONE = 3600_000_000  # microseconds for which another monitor, with another policy, may do what this one's has not


class Monitor:
    """Watches what an alias names.

    Args:
        registry: that has the versions, and is told what is found.
        spec: ``NAME@ALIAS``.
        watch: folder of the services' journals.
        policy: what counts as wrong and what is done then.
        say: called with lines that tell what happens.

    Raises:
        BadInput: the spec is none, or a URL of the policy names a variable that is not set.
    """

    def __init__(
        self,
        registry: Registry,
        spec: str,
        watch: str | Path,
        policy: Policy,
        *,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.name, mark, self.alias = spec.partition("@")
        if not mark:
            raise BadInput(f"'{spec}': say which alias is watched: {spec or 'NAME'}@production")
        checked_name(self.name)
        checked_alias(self.alias)
        self.registry, self.watch, self.policy = registry, Path(watch), policy
        self._say = say or (lambda line: None)
        for action in policy.actions:
            if isinstance(action, Notify) and action.url is not None:
                address(action.url)  # said now rather than at the first alarm
        self._references: dict[str, Sketch | None] = {}
        self._running: dict[str, Popen[bytes]] = {}
        self._told: set[str] = set()
        self._behind: dict[str, int] = {}
        self._forgot = -math.inf

    def say(self, line: str) -> None:
        """Tell what happens, where that can be told: a full disk under the log ends no monitor."""
        with contextlib.suppress(OSError):
            self._say(line)

    def look(self) -> list[Watched]:
        """Judge every window that nobody has judged; return what was found, the oldest first."""
        return list(self._looking())

    def _looking(self) -> Iterator[Watched]:
        waiting, failed, ends = list(self._unjudged()), dict[str, Failure](), dict[str, int]()
        newest = min(max((windows[-1].end for windows in waiting), default=0), now())
        for windows in waiting:
            version = windows[-1].version
            if version in failed:
                continue  # its windows are judged in their order
            late = newest - windows[-1].end > _STALE
            try:
                judged = self._judge(windows, late)
            except Failure as error:  # a disk or a store that may come back; of other versions all may be there
                failed[version] = error
                ends[version] = windows[0].end
                continue
            with self.registry.database.writing() as connection:
                opened = decided(connection, self.policy, judged, late=late)
            if opened is None:
                continue  # another monitor was faster
            alarms = [f"{signal}: {said['said']}" for signal, said in judged.verdict.items() if said["alarm"]]
            self.say(f"{judged.windows[-1]}  {judged.version}  {judged.items:,} items  {'; '.join(alarms) or 'fine'}")
            for incident in opened:
                self.say(f"{incident}  {incident.title}")
            yield judged
        self._behind = ends
        self._forget()
        for failure in failed.values():
            raise failure

    def _forget(self) -> None:
        """Now and then forget windows that were judged long ago."""
        if time.monotonic() - self._forgot < _HOUR:
            return
        self._forgot = time.monotonic()
        least, since = max(BACK, 4 * self.policy.longest), self._since()
        with self.registry.database.writing() as connection:
            signals = self.policy.signals.named()
            watched.forgotten(connection, self.name, self.alias, now() - _MONTH, since, signals, least)

    def act(self) -> int:
        """Do what is due; return how much was taken up."""
        taken = 0
        while action := outbox.claimed(self.registry, self.name, self.alias, self._lease):
            taken += 1
            self._settle(action, self._outcome(action))
        return taken

    def run(self, every: float, stop: threading.Event) -> None:
        """Look and act until told to stop; what cannot be reached is looked for again.

        Args:
            every: seconds between two looks.
            stop: ends it.
        """
        while True:
            for do in (self._look_and_act, self.act):  # what is due is done even where nobody can look
                try:
                    do()
                except (FastnessError, OSError) as error:  # a database or a disk that may come back
                    self._tell(f"cannot {'look' if do != self.act else 'act'}: {error}")
            if stop.wait(every):
                return

    def _look_and_act(self) -> None:
        for _ in self._looking():  # where many windows wait, what is due does not
            self.act()

    def _tell(self, line: str) -> None:
        """Say something that may be found again at each look, but once."""
        if line not in self._told:
            self._told.add(line)
            self.say(line)

    # -- windows ----------------------------------------------------------------------------------------------------

    def _unjudged(self) -> Iterator[list[Kept]]:
        """Yield windows that are to be judged together: of one version, with enough items or requests.

        Windows of several processes that ended at the same time belong together.
        """
        since = self._since()
        done = watched.judged(self.registry, self.name, self.alias, since)
        waiting: dict[str, list[Kept]] = {}
        damaged = lambda error: self._tell(str(error))  # noqa: E731
        for window in kept(self.watch, self.name, self.alias, since, damaged):
            if window.id in done:
                continue
            together = waiting.setdefault(window.version, [])
            if self._enough(together) and window.end > together[-1].end:
                yield together
                waiting[window.version] = together = []
            together.append(window)
        yield from sorted(filter(self._enough, waiting.values()), key=lambda windows: windows[-1].end)

    def _enough(self, windows: list[Kept]) -> bool:
        return any(sum(w.counts.get(of, 0) for w in windows) >= self.policy.least for of in ("items", "requests"))

    def _judge(self, windows: list[Kept], late: bool) -> Watched:
        traffic = Traffic.of(windows)
        seed = int.from_bytes(hashlib.sha256(windows[-1].id.encode()).digest()[:4], "big")
        version = traffic.version
        items = int(traffic.counts.get("items", 0))
        # Of many items only a sample is kept: what would be enough of the items is enough of them.
        least = min(self.policy.least, max(1, len(traffic.window))) if items >= self.policy.least else self.policy.least
        about = Asked(
            traffic,
            self.watch,
            self.name,
            self.alias,
            None if late else self._labelled(version),
            lambda: self._reference(version),
            None,
            least,
            seed,
            self._past,
        )
        verdict = judged_by(self.policy, about, self.say)
        return Watched(
            self.name,
            self.alias,
            [window.id for window in windows],
            version,
            traffic.start,
            traffic.end,
            items,
            verdict,
        )

    def _since(self) -> int:
        """Return the end of the first windows that may not be judged yet.

        One of a clock that is ahead hides nothing, nor do versions that could be judged hide one that could not.
        """
        until = watched.judged_until(self.registry, self.name, self.alias, now())
        return max(0, min([until, *self._behind.values()]) - _LATE)

    def _labelled(self, version: str) -> int:
        """Return how many files of labels there were when the answers of a version were last held against them."""
        with self.registry.database.reading() as connection:
            past = watched.newest(connection, self.name, self.alias, _LOOKED, "labels")
        found = (w.verdict["labels"].get("detail") or {} for w in past if w.version == version)
        return int(next(found, {}).get("files", 0))

    def _reference(self, version: str) -> Sketch | None:
        """Return the reference of a version, ``None`` if it has none."""
        if version not in self._references:
            self._references.clear()  # a version that served before does so no more
            folder = self._pulled(version) if version.startswith(f"{self.name}@") else None
            there = folder is not None and (folder / FOLDER).is_dir()
            self._references[version] = Sketch.load(folder) if folder is not None and there else None
            if not there:
                self.say(f"{version or 'what serves'}: has no reference; make one with: fastness sketch BUNDLE DATA")
        return self._references[version]

    def _pulled(self, version: str) -> Path | None:
        """Return the folder of a version, ``None`` if it is lost for good: requests can be judged all the same."""
        try:
            return self.registry.pull(version)
        except Lost as error:
            self._tell(str(error))
            return None

    def _past(self) -> list[Past]:
        """Return the drifts of incidents that are closed, the last ones first."""
        found = []
        for incident in incidents.incidents(self.registry, self.name, self.alias, limit=_REMEMBERED):
            if incident.kind == "drift" and incident.closed is not None:
                detail = incidents.timeline(self.registry, incident.id)[0].detail or {}
                known = detail.get("detail", {}).get("explanation")
                if known is not None:
                    found.append(Past(str(incident.id), incident.title, Signature(**known["signature"])))
        return found

    # -- actions ----------------------------------------------------------------------------------------------------

    def _outcome(self, action: Action) -> Outcome:
        settings = self.policy.action(action.action)
        if settings is None and action.phase == END and action.action.partition("/")[0] == "abstain":
            settings = Abstain(do="abstain")  # whoever took it out of the policy wants answers again
        if settings is None:
            said = f"the policy has no {action.action} any more"
            if now() - action.begun > _GONE:
                return Outcome("failed", said)
            return Outcome("wait", said, seconds=60, counted=False)
        about = incidents.incident(self.registry, action.incident)
        doing = Doing(self.registry, about, action, settings, self._running, BY)
        try:
            found = ACTIONS.get(settings.do)(doing)
        except BadInput as error:
            return Outcome("failed", str(error))
        except FastnessError as error:
            found = Outcome("retry", str(error))
        except Exception as error:  # noqa: BLE001 - one action that stumbles is not to stop all the others
            return Outcome("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        if found.state == "retry" and found.counted and action.attempts >= settings.attempts:
            return Outcome("failed", f"given up after {action.attempts} attempts: {found.said}", found.detail)
        if found.state == "retry":
            pause = min(settings.pause * 2 ** min(action.attempts - 1, 20), _LONGEST_PAUSE)
            return replace(found, seconds=pause)
        return found

    def _lease(self, called: str) -> float:
        """Return for how many seconds an action is claimed: each step of a message may take its timeout."""
        settings = self.policy.action(called)
        steps = _STEPS[settings.to] if isinstance(settings, Notify) else 0
        return _LEASE + (0 if settings is None else steps * settings.timeout)

    def _settle(self, action: Action, found: Outcome) -> None:
        """Write down how an action ended, and what it means for what comes."""
        state = {"done": DONE, "failed": FAILED}.get(found.state, DUE)
        later = None if found.seconds is None else now() + int(found.seconds * 1e6)
        with self.registry.database.writing() as connection:
            due = later if state == DUE else None
            if not outbox.settled(connection, action, state, found.said, due=due, counted=found.counted):
                return  # it took so long that another monitor has it
            if found.within is not None:
                found.within(connection)
            if state == DONE and later is not None and incidents.is_open(connection, action.incident):
                outbox.plan(connection, action.incident, action.action, ends=True, phase=AGAIN, due=later)
            what = {"done": action.action, "failed": "failed", "retry": "trying", "wait": "running"}[found.state]
            said = found.said if state == DONE else f"{action.action}: {found.said}"
            known = state == DUE and incidents.told(connection, action.incident, what, said)
            if not known and not (state == DONE and action.phase == AGAIN):
                incidents.happened(connection, action.incident, what, said, found.detail, by=BY)
                self.say(f"incident {action.incident}  {what}  {said}")
