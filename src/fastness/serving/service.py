"""A running service: what serves now, the watch over the registry, and what it may use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastness.core.errors import Failure, FastnessError
from fastness.core.hardware import cores
from fastness.registry import Registry
from fastness.registry.controls import ABSTAIN, controls
from fastness.registry.target import Target
from fastness.serving.batching import Limits
from fastness.serving.guard import Guard
from fastness.serving.live import Live
from fastness.serving.release import Power, Release
from fastness.serving.router import Candidacy, Router
from fastness.serving.telemetry import Telemetry
from fastness.serving.watch import Watch, Watching


@dataclass(frozen=True)
class Settings:
    """How a service serves.

    Attributes:
        name, alias: of what.
        collection: whose index is searched; ``None`` for none.
        form: of the export; ``None``: see `forms.chosen`.
        open: answer without keys as long as the registry has issued none.
        power, limits: what computing may use, and how batches are made.
        timeout: seconds after which a request is given up; it may ask for less.
        most_items: in a request.
        most_bytes: of a request.
        most_pixels: of the pictures in a request; twice as many are in memory at once.
        most_requests: under way at once.
        poll: seconds between two looks at the registry.
        watch: what is written down of the traffic, and where; ``None``: nothing.
        testing: the candidate that is tried beside what serves; ``None``: none.
    """

    name: str
    alias: str
    collection: str | None = None
    form: str | None = None
    open: bool = True
    power: Power = field(default_factory=lambda: Power(cores()))
    limits: Limits = field(default_factory=Limits)
    timeout: float = 10.0
    most_items: int = 512
    most_bytes: int = 16 << 20
    most_pixels: int = 64_000_000
    most_requests: int = 1024
    poll: float = 1.0
    watch: Watching | None = None
    testing: Candidacy | None = None


class Service:
    """What answers are made with.

    Args:
        registry: that is watched.
        settings: see `Settings`.
        telemetry: where is counted and logged.
    """

    def __init__(self, registry: Registry, settings: Settings, telemetry: Telemetry | None = None) -> None:
        self.settings, self.telemetry = settings, telemetry or Telemetry()
        self.guard = Guard(settings.open)
        self._release = partial(
            Release,
            registry,
            form=settings.form,
            power=settings.power,
            limits=settings.limits,
            seen=self.telemetry.batch,
        )
        self.live = Live(
            registry, settings.name, settings.alias, settings.collection, self._load, self.guard, self.telemetry
        )
        self.watch: Watch | None = None
        if settings.watch is not None:
            self.watch = Watch(settings.watch, settings.name, settings.alias, self.telemetry)
        self._registry = registry
        self.abstains = False  # whether its heads are to answer nothing, until somebody takes that back
        self.pixels = 0  # of pictures that are in memory
        self.router: Router | None = None
        if settings.testing is not None:
            candidate = Live(
                registry,
                settings.name,
                settings.testing.alias,
                settings.collection,
                lambda wanted: self._release(target=wanted),
                self.guard,
                self.telemetry.beside(),
            )
            self.router = Router(registry, self.live, candidate, settings.testing, self.telemetry, self._free)
        self.decoders = ThreadPoolExecutor(cores(), "decode")

    def _load(self, wanted: Target) -> Release:
        """Return a release of what is wanted, known to what watches it."""
        release = self._release(target=wanted)
        if self.watch is not None:
            self.watch.learn(release)
        return release

    def _free(self, pixels: int) -> None:
        self.pixels -= pixels

    async def start(self) -> list[asyncio.Task[None]]:
        """Load what the alias names, and begin to watch.

        Raises:
            Failure: nothing could be loaded; says why.
        """
        await self.live.learn()
        await self.live.look()
        if self.live.now is None:
            raise Failure(self.live.trouble or "nothing to serve")
        await self._heed()
        watches = [asyncio.create_task(self._always(job)) for job in (self.live.learn, self.live.look, self._heed)]
        if self.watch is not None:
            watches.append(asyncio.create_task(self._always(self._write_down, self.watch.every)))
        if self.router is not None:
            watches.append(asyncio.create_task(self._always(self.router.look)))
        return watches

    async def _heed(self) -> None:
        """Take over what services of this alias are told."""
        told = await asyncio.to_thread(controls, self._registry, self.settings.name, self.settings.alias)
        said = told.get(ABSTAIN)
        if self.abstains != (said is not None):
            self.abstains = said is not None
            self.telemetry.log("abstains" if said else "answers again", why=said and said.value)

    async def _write_down(self) -> None:
        if self.watch is not None:
            await asyncio.to_thread(self.watch.flush)

    async def _always(self, job: Callable[[], Coroutine[Any, Any, None]], every: float | None = None) -> None:
        while True:
            await asyncio.sleep(every or self.settings.poll)
            try:
                await job()
            except Exception as error:  # noqa: BLE001 - a watch that ended would serve an old version for ever
                self.telemetry.log("watch stumbled", why=f"{type(error).__name__}: {error}")

    async def stop(self, watches: list[asyncio.Task[None]]) -> None:
        """Finish what is under way."""
        for watch in watches:
            watch.cancel()
        if self.router is not None:
            await self.router.close()
        await self.live.close()
        self.decoders.shutdown()
        if self.watch is not None:
            try:
                await asyncio.to_thread(self.watch.close)
            except (FastnessError, OSError) as error:  # nothing more can be done about it here
                self.telemetry.log("watch not closed", why=str(error))
