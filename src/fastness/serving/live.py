"""What serves now, and how the next takes its place: loaded and proven beside it, then one assignment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastness.core.errors import Failure, FastnessError
from fastness.registry import Registry
from fastness.registry.keys import digests, keys
from fastness.registry.target import Target, target
from fastness.serving.guard import Guard
from fastness.serving.release import Release
from fastness.serving.telemetry import Telemetry

_AGAIN = 15.0  # seconds after which what failed to load is tried once more


class Live:
    """The release that an alias names, as far as it could be loaded.

    Args:
        registry: which is watched; used by one thread at a time.
        name, alias: what is served.
        collection: whose index is served with it; ``None`` for none.
        load: makes a release of a target.
        guard: told of the keys.
        telemetry: told of switches.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        alias: str,
        collection: str | None,
        load: Callable[[Target], Release],
        guard: Guard,
        telemetry: Telemetry,
    ) -> None:
        self._registry, self._load, self._guard, self._telemetry = registry, load, guard, telemetry
        self.name, self.alias, self.collection = name, alias, collection
        self._now: Release | None = None
        self._held: dict[Release, int] = {}
        self._idle: dict[Release, asyncio.Event] = {}
        self._failed: tuple[object, float] = (None, 0.0)
        self.wanted: Target | None = None
        self.trouble: str | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def now(self) -> Release | None:
        """What serves."""
        return self._now

    @contextmanager
    def held(self, release: Release | None = None) -> Iterator[Release]:
        """Yield what serves now, or one that is held already; it is not let go of until the block ends.

        Raises:
            Failure: nothing serves.
        """
        release = release or self._now
        if release is None:
            raise Failure(self.trouble or f"{self.name}@{self.alias}: nothing serves yet")
        self._held[release] = self._held.get(release, 0) + 1
        try:
            yield release
        finally:
            self._held[release] -= 1
            if not self._held[release]:
                del self._held[release]
                if release in self._idle:
                    self._idle[release].set()

    async def learn(self) -> None:
        """Take over the keys that are valid now; while the registry is away, those that were."""
        try:
            known = await asyncio.to_thread(digests, self._registry)
            issued = bool(known or await asyncio.to_thread(keys, self._registry))
            self._guard.learn(known, issued)
        except FastnessError as error:
            self._telemetry.log("keys not read", why=str(error))

    async def look(self) -> None:
        """Look what the alias names, and switch to it if that is something else; what serves, serves on meanwhile."""
        try:
            wanted = await asyncio.to_thread(target, self._registry, self.name, self.alias, self.collection)
        except FastnessError as error:  # the registry is away: what serves, serves on
            self._stumble(None, str(error))
            return
        if wanted is None:
            self._stumble(None, f"{self.name}@{self.alias}: names nothing")
            return
        if self._now is not None and _same(self._now.target, wanted):
            self._settled(wanted)
            return
        what, since = self._failed
        if what == _key(wanted) and time.monotonic() - since < _AGAIN:
            return
        if self.collection is not None and wanted.index is None:
            said = f"collection {self.collection} has no index by it"
            remedy = f"fastness index rebuild {self.collection} {wanted.version}"
            self._stumble(wanted, f"{wanted.version}: {said} yet; make one: {remedy}", again=False)
            return
        try:
            release = await asyncio.to_thread(self._load, wanted)
        except Exception as error:  # noqa: BLE001 - files and runtimes raise what they like; it serves on and says so
            said = str(error) if isinstance(error, FastnessError) else f"{type(error).__name__}: {error}"
            self._failed = (_key(wanted), time.monotonic())
            self._stumble(wanted, said if str(wanted.version) in said else f"{wanted.version}: {said}")
            return
        if self._now is not None and not await self._named(wanted):
            await asyncio.to_thread(release.close)
            self._telemetry.log("not switched", wanted=str(wanted.version), why="the alias has moved on meanwhile")
            return
        self._switch(release)

    async def _named(self, loaded: Target) -> bool:
        """Whether the alias still names a version, as far as is known: loading takes long, and it may have moved.

        A newer index of the same version is no reason to serve neither: it is loaded next.
        """
        try:
            named = await asyncio.to_thread(target, self._registry, self.name, self.alias, self.collection)
        except FastnessError:  # the registry is away: what it said last holds
            return True
        return named is not None and str(named.version) == str(loaded.version)

    def _switch(self, release: Release) -> None:
        before, self._now = self._now, release
        self._settled(release.target)
        self._telemetry.serving.clear()
        self._telemetry.serving.labels(release.version, release.index or "").set(1)
        self._telemetry.switches.labels("done").inc()
        was = None if before is None else {"version": before.version, "index": before.index}
        self._telemetry.log("switched", version=release.version, index=release.index, before=was)
        if before is not None:
            task = asyncio.create_task(self._retire(before))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _retire(self, release: Release) -> None:
        """Let go of a release when its last request has been answered."""
        if release in self._held:
            self._idle[release] = asyncio.Event()
            await self._idle[release].wait()
            del self._idle[release]
        await asyncio.to_thread(release.close)

    def _settled(self, wanted: Target) -> None:
        self.wanted, self.trouble, self._failed = wanted, None, (None, 0.0)
        self._telemetry.behind.set(0)

    def _stumble(self, wanted: Target | None, said: str, again: bool = True) -> None:
        """Serve on as before, and say why."""
        if said != self.trouble or (again and wanted is not None):
            self._telemetry.log("not switched", wanted=wanted and str(wanted.version), why=said)
            self._telemetry.switches.labels("failed").inc()
        self.wanted, self.trouble = wanted, said
        self._telemetry.behind.set(1)

    async def close(self) -> None:
        """Let go of everything, when what is under way is done."""
        release, self._now = self._now, None
        if release is not None:
            await self._retire(release)
        await asyncio.gather(*self._closing)


def _key(target: Target) -> tuple[str, int | None]:
    return str(target.version), None if target.index is None else target.index.id


def _same(one: Target, other: Target) -> bool:
    """Whether two targets are of the same version and index, whatever moved there when."""
    return _key(one) == _key(other)
