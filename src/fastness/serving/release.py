"""A release: one version as it answers, its exports and the index that was made by it, proven before it serves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput, Failure, GateRefused
from fastness.index import Hit, Index
from fastness.index.previews import kept, preview
from fastness.registry import Registry
from fastness.registry.target import Target
from fastness.serving.batching import Arrays, Batcher, Limits, Overloaded, Unreadable
from fastness.serving.forms import chosen
from fastness.serving.latency import Latency
from fastness_runtime import Answers, Encoder, Unusable, signature
from fastness_runtime import load as load_export
from fastness_runtime.encoder import described
from fastness_runtime.items import PADDING, Texts, Tokens
from fastness_runtime.sessions import ANSWERS, OUTPUTS

SAMPLE, PARITY = "sample.npz", "parity.json"
_LEAST = 0.99  # cosine to what the export gave where it was made, of forms that are judged by the order of pairs
_WARM = (1, 2, 4, 8, 16)  # batches that are computed before the first request
_TOGETHER = 60.0  # seconds until all threads of a release must have begun
Seen = Callable[[int, float], None]
Floats = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Power:
    """What a release may use.

    Attributes:
        workers: batches that are computed at once.
        threads: for each of them.
        searchers: searches at once.
    """

    workers: int
    threads: int = 1
    searchers: int = 2


class Side:
    """An export at work: of a version with one kind of item the only one, else one of several."""

    def __init__(self, folder: Path, power: Power, limits: Limits, seen: Seen) -> None:
        self.encoder = load_export(folder, threads=power.threads, calls=power.workers, key=())
        _prove(self.encoder, folder)
        self.batcher = Batcher(self._computed, work_of, limits, power.workers, seen)

    @property
    def modality(self) -> str:
        """``image``, ``text`` or ``table``."""
        return str(self.encoder.about["modality"])

    @property
    def head(self) -> Mapping[str, Any] | None:
        """What is known of the head in the graph, if there is one."""
        found: Mapping[str, Any] | None = self.encoder.about.get("head")
        return found

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text.

        Raises:
            Unreadable: a text has none; names its position.
        """
        assert isinstance(self.encoder.batches, Texts)
        try:
            return self.encoder.batches.tokens(texts)
        except Unusable as error:
            raise Unreadable(str(error)) from None

    async def embed(self, items: Sequence[Any], timeout: float) -> Floats:
        """Return embeddings float32 ``[N, dim]``, length 1; see `Batcher.run`."""
        (found,) = await self.batcher.run(items, OUTPUTS[:1], timeout)
        return found

    async def answer(self, items: Sequence[Any], timeout: float) -> Arrays:
        """Return probabilities float32 ``[N, C]`` and novelty float32 ``[N]``; see `Batcher.run`."""
        return await self.batcher.run(items, ANSWERS, timeout)

    async def all(self, items: Sequence[Any], timeout: float) -> tuple[Floats, Answers | None]:
        """Return embeddings, and what the head says, if there is one; see `Batcher.run`."""
        if self.head is None:
            return await self.embed(items, timeout), None
        vectors, probabilities, novelty = await self.batcher.run(items, (*OUTPUTS[:1], *ANSWERS), timeout)
        return vectors, Answers.of(probabilities, novelty, self.head["classes"], self.head["threshold"])

    def warm(self) -> None:
        """Compute batches of its sample, so that the first request finds all ready, and how long batches last known."""
        row = _sample(self.encoder.folder)[0][0]
        item = Tokens(row[row != PADDING].tolist()) if self.modality == "text" else row
        for learns in (False, True):  # what a runtime does once is not what batches last
            for number in _WARM:
                items: Any = [item] * number if self.modality == "text" else np.repeat(row[None], number, 0)
                began = time.perf_counter()
                self._computed(items, OUTPUTS[:1])
                if learns:
                    self.batcher.learn(items, time.perf_counter() - began)

    def _computed(self, items: Any, outputs: tuple[str, ...]) -> Arrays:
        return self.encoder.compute(items, *outputs, batch_size=len(items))


class Release:
    """What answers requests from the moment of a switch to the next; nothing in it ever changes.

    Args:
        registry: where the version is.
        target: the version, and the index that was made by it.
        form: of its exports; ``None``: what `forms.chosen` says.
        power, limits: what it may use.
        seen: told of every batch.

    Raises:
        BadInput: it has no export to serve, or the export is damaged.
        GateRefused: keys are trusted, and none has signed it.
        Failure: it gives other vectors here than where it was made, or the index is not its own.
    """

    def __init__(
        self,
        registry: Registry,
        target: Target,
        form: str | None,
        power: Power,
        limits: Limits,
        seen: Seen = lambda items, seconds: None,
    ) -> None:
        self.target = target
        self.sides: dict[str | None, Side] = {}
        self.search: Searching | None = None
        folder = registry.pull(str(target.version))
        _verify(folder)
        try:
            for name, export in chosen(folder, form).items():
                if described(export)["bundle"] != target.version.bundle:
                    raise BadInput(f"{export}: was made of another bundle than {target.version}; export anew")
                self.sides[name] = Side(export, power, limits, seen)
            if target.index is not None:
                self.search = Searching(target, self._spaces(), power.searchers, limits.wait)
            self._warm()
        except BaseException as error:
            self.close()
            if isinstance(error, Unusable):
                raise BadInput(f"{target.version}: {error}") from None
            raise

    @property
    def version(self) -> str:
        """``photos@3``."""
        return str(self.target.version)

    @property
    def index(self) -> str | None:
        """``shop#17``, if there is one."""
        return None if self.target.index is None else str(self.target.index)

    def side(self, modality: str, name: str | None) -> Side:
        """Return the side that takes items of a modality.

        Raises:
            BadInput: there is none, or several and no name.
        """
        if name is not None and name not in self.sides:
            raise BadInput(f"side '{name[:80]}': there are: {', '.join(map(str, self.sides))}")
        fit = {n: s for n, s in self.sides.items() if s.modality == modality and name in (None, n)}
        if not fit:
            taken = " or ".join(sorted({_SAID[s.modality] for n, s in self.sides.items() if name in (None, n)}))
            raise BadInput(f"input: {self.version} takes {taken}; got {_SAID[modality]}")
        if len(fit) > 1:
            raise BadInput(f"side: say which one: {', '.join(map(str, fit))}")
        return next(iter(fit.values()))

    def check_room(self) -> None:
        """Refuse a request before it is read, if no side has room for it.

        Raises:
            Overloaded: none has.
        """
        refusals = [side.batcher.refusal() for side in self.sides.values()]
        if all(refusals) and refusals[0] is not None:
            raise refusals[0]

    def close(self) -> None:
        """Finish what waits, and let go of threads, sessions and the index."""
        for side in self.sides.values():
            side.batcher.close()
        if self.search is not None:
            self.search.close()

    def _spaces(self) -> set[str]:
        """Return what an index of these vectors may be of: the bundle, or its exports."""
        return {self.target.version.bundle, *(side.encoder.id for side in self.sides.values())}

    def _warm(self) -> None:
        for side in self.sides.values():
            side.warm()
        if self.search is not None:
            first = next(iter(self.sides.values()))
            self.search.warm(_sample(first.encoder.folder)[1][:1])


class Calls:
    """Calls on threads of their own, of which none waits longer than is borne.

    Args:
        threads: calls that are made at once.
        wait: seconds that a call may have to wait.
        name: of the threads.
    """

    def __init__(self, threads: int, wait: float, name: str) -> None:
        self.threads, self._wait = threads, wait
        self.pool = ThreadPoolExecutor(threads, name)
        self._latency = Latency()
        self._lock = threading.Lock()
        self._calls = self._waiting = self._running = 0  # calls that are not over; work of those to begin, and begun

    def check_room(self, timeout: float) -> None:
        """Refuse a call that would have to wait too long.

        Args:
            timeout: seconds after which nobody wants it any more.

        Raises:
            Overloaded: there is no room for it.
        """
        with self._lock:
            if self._calls < self.threads:
                return
            expected = self._latency.pace * (self._waiting + self._running / 2) / self.threads
        if expected > self._wait:
            raise Overloaded("queue", expected - self._wait / 2)
        if expected > timeout:
            raise Overloaded("deadline", expected)

    async def make(self, work: int, call: Callable[..., T], *told: Any) -> T:
        """Return what a call returns that is so much work; whether there is room is not asked again."""
        future = self.pool.submit(self._made, work, call, told)
        with self._lock:
            self._calls += 1
            self._waiting += work
        future.add_done_callback(partial(self._over, work))
        return await asyncio.wrap_future(future)

    def learn(self, work: int, seconds: float) -> None:
        """Take into account how long so much work took."""
        with self._lock:
            self._latency.observe(work, seconds)

    def _made(self, work: int, call: Callable[..., T], told: tuple[Any, ...]) -> T:
        with self._lock:
            self._waiting -= work
            self._running += work
        began = time.perf_counter()
        try:
            found = call(*told)
            self.learn(work, time.perf_counter() - began)
            return found
        finally:
            with self._lock:
                self._running -= work
                self._calls -= 1

    def _over(self, work: int, future: Future[Any]) -> None:
        if future.cancelled():  # nobody waited for it any more, and it was never begun
            with self._lock:
                self._waiting -= work
                self._calls -= 1


class Searching:
    """The index of a release, on threads of its own, each with the index opened for itself.

    Attributes:
        searches, looks: for its items by their vectors, and at their previews.
    """

    def __init__(self, target: Target, spaces: set[str], threads: int, wait: float) -> None:
        assert target.index is not None
        self._address, self._name = target.index.address, str(target.index)
        self._own = threading.local()
        self._opened: list[Index] = []
        self.searches, self.looks = Calls(threads, wait, "search"), Calls(1, wait, "look")
        with Index.open(self._address) as index:
            if index.about.space not in spaces:
                raise Failure(f"{self._name}: was made by another encoder than {target.version}; rebuild it")
            self.items, self.columns, self.previews = len(index), index.columns(), kept(self._address)

    async def nearest(self, vectors: Floats, k: int, where: str | None) -> list[list[Hit]]:
        """Return the nearest items of each vector, found on one of its threads; see `find`."""
        return await self.searches.make(len(vectors), self.find, vectors, k, where)

    async def look(self, item: str) -> tuple[str, bytes] | None:
        """Return what `seen` does, on a thread of its own."""
        return await self.looks.make(1, self.seen, item)

    def warm(self, vectors: Floats) -> None:
        """Open the index on every thread, and learn how long a search takes."""
        together = threading.Barrier(self.searches.threads, timeout=_TOGETHER)

        def first() -> None:
            together.wait()  # so that no thread does it twice, and another not at all
            self.find(vectors, 1, None)
            began = time.perf_counter()
            self.find(vectors, 1, None)
            self.searches.learn(len(vectors), time.perf_counter() - began)

        for future in [self.searches.pool.submit(first) for _ in range(self.searches.threads)]:
            future.result()

    def find(self, vectors: Floats, k: int, where: str | None) -> list[list[Hit]]:
        """Return the nearest items of each vector; see `Index.search`."""
        if not hasattr(self._own, "index"):
            self._own.index = Index.open(self._address)
            self._opened.append(self._own.index)
        index: Index = self._own.index
        try:
            return index.search(vectors, k, where)
        except BadInput as error:
            raise BadInput(str(error).removeprefix("--")) from None  # over HTTP it is a field, no option
        except Failure:  # a server that was started anew is asked anew
            self._opened.remove(index)
            del self._own.index
            index.close()
            raise

    def seen(self, item: str) -> tuple[str, bytes] | None:
        """Return the kind and the bytes of an item's preview, if one was kept."""
        return preview(self._address, item)

    def close(self) -> None:
        """End the searches under way."""
        self.searches.pool.shutdown()
        self.looks.pool.shutdown()
        for index in self._opened:
            index.close()


_SAID = {"image": "pictures as data URLs", "text": "texts", "table": "rows as objects"}


def work_of(item: Any) -> float:
    """Return about how much work an item is: a text's tokens, and of anything else its share of a batch."""
    return float(len(item)) if isinstance(item, Tokens) else 1.0


def _verify(folder: Path) -> None:
    try:
        if trusted := signature.trusted(None):
            signature.verify(folder, trusted)
    except Unusable as error:
        raise GateRefused(str(error)) from None


def _sample(folder: Path) -> tuple[npt.NDArray[Any], Floats]:
    """Return a batch as the graph takes it, and the embeddings that it was given where the export was made."""
    try:
        with np.load(folder / SAMPLE, allow_pickle=False) as kept:
            return kept["batch"], kept["embeddings"]
    except FileNotFoundError:
        raise BadInput(f"{folder}: has no sample to prove it by; export it anew (fastness export)") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"{folder / SAMPLE}: cannot be read ({error}); export it anew") from None


def _prove(encoder: Encoder, folder: Path) -> None:
    """Refuse an export that gives other vectors here than it gave when it was compared with its encoder."""
    batch, expected = _sample(folder)
    try:
        said = json.loads((folder / PARITY).read_text(encoding="utf-8"))
        floor = min(float(said["floor"]), 0.9999) if said["judged"] == "least" else _LEAST
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder / PARITY}: cannot be read ({error}); export it anew") from None
    try:
        (found,) = encoder.session.run(batch, OUTPUTS[0])
    except Exception as error:  # noqa: BLE001 - runtimes raise what they like
        raise Failure(f"{folder}: cannot compute its sample here ({type(error).__name__}: {error})") from None
    least = float((found * expected).sum(1).min()) if found.shape == expected.shape else float("nan")
    if not least >= floor:
        raise Failure(f"{folder}: gives other vectors here than where it was made: cosine {least:.5f}, not {floor}")
