"""What tests of the service share: releases of words, pictures and rows, services in processes, and clients that check.

Everything is real: bundles are trained, exported and released, services are ``fastness serve`` in processes of their
own, clients speak HTTP over connections that are kept.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from conftest import command_line, fork, picture, png, write_pictures

YES = "it is a test"
WORDS = {
    "red": ["red", "rose", "ruby", "cherry", "wine", "brick", "blood", "fire", "sunset", "coral"],
    "sea": ["sea", "ship", "wave", "salt", "shore", "sail", "harbour", "tide", "gull", "sand"],
}
PATIENCE = 120.0  # seconds until something must have happened, however busy the machine is
COLLECTION = "shop"


@dataclass(frozen=True)
class Made:
    """A bundle with a head and an export, and the data it was made of."""

    bundle: Path
    data: Path
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def export(self) -> Path:
        """The folder of the export."""
        return self.bundle / "exports" / "onnx"

    @cached_property
    def encoder(self) -> Any:
        """The export, loaded by the runtime."""
        from fastness_runtime import load

        return load(self.export, threads=1)


def sentences(n: int, seed: int = 0) -> list[str]:
    """Return sentences of words that a bundle of `make_words` knows."""
    lots = np.random.default_rng(seed)
    known = [word for words in WORDS.values() for word in words]
    return [" ".join(lots.choice(known, lots.integers(1, 20))) for _ in range(n)]


def make_words(folder: Path, versions: int = 1) -> list[Made]:
    """Train bundles of texts that differ by their seeds, each with a head and an export."""
    import fastness as fs

    folder.mkdir(parents=True, exist_ok=True)
    lots, data, columns = np.random.default_rng(0), folder / "words.csv", {"text": "text", "label": "kind"}
    lines = ["text,kind,price"]
    for i in range(240):
        kind = "red" if i % 2 else "sea"
        lines.append(f"{' '.join(lots.choice(WORDS[kind], lots.integers(3, 9)))} {i},{kind},{i}")
    data.write_text("\n".join(lines))
    made = []
    for seed in range(1, versions + 1):
        options = {"encoder": "static", "width": 16, "steps": 3, "batch_size": 16, "seed": seed, "quiet": True}
        run = fs.train(data, out=folder / f"run{seed}", **columns, **options)
        made.append(_finished(Made(run.bundle, data, columns)))
    return made


def make_pictures(folder: Path) -> Made:
    """Train a bundle of pictures, with a head and an export."""
    import fastness as fs

    data = folder / "pictures"
    for number, name in enumerate("ab"):
        write_pictures(data / name, np.stack([picture(1000 * number + i) for i in range(100)]))
    run = fs.train(data, steps=2, width=4, size=16, batch_size=8, out=folder / "run", quiet=True)
    return _finished(Made(run.bundle, data))


def make_rows(folder: Path) -> Made:
    """Train a bundle of a table, with a head and an export."""
    import fastness as fs

    folder.mkdir(parents=True, exist_ok=True)
    lots, data = np.random.default_rng(0), folder / "rows.csv"
    lines = (
        f"{lots.normal():.2f},{lots.normal(i % 2):.2f},{lots.choice(['x', 'y'])},{'ab'[i % 2]}" for i in range(240)
    )
    data.write_text("\n".join(["a,b,colour,kind", *lines]))
    run = fs.train(data, label="kind", steps=2, batch_size=32, width=16, out=folder / "run", quiet=True)
    return _finished(Made(run.bundle, data, {"label": "kind"}))


def _finished(made: Made) -> Made:
    import fastness as fs

    fs.fit(made.bundle, made.data, **made.columns)
    fs.export(made.bundle, made.data, "onnx", head="default", **made.columns)
    return made


def release(registry: Any, made: Sequence[Made], name: str, index: bool = True, alias: str = "production") -> None:
    """Add bundles as versions of a name, index a collection for each, and let an alias name the first."""
    from fastness.registry.reindex import rebuild

    for one in made:
        version = registry.add(one.bundle, name)
        if index:
            rebuild(registry, str(version), one.data, collection=COLLECTION, previews=True, **one.columns)
    registry.promote(f"{name}@1", alias, why=YES, override=True)


def data_url(pixels: np.ndarray) -> str:
    """Return a picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


# -- services -------------------------------------------------------------------------------------------------------


def _serve(words: list[str], folder: str, log: str, again: float) -> None:
    """Be ``fastness serve WORDS``, which tries what failed to load again after so many seconds."""
    from fastness.serving import live

    live._AGAIN = again
    command_line(["serve", *words], folder, log)


@dataclass
class Answer:
    """What a service answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.content)


@dataclass
class Service:
    """A running ``fastness serve``."""

    process: Any
    log: Path
    port: int = 0
    key: str | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log; a line that is no JSON is an error."""
        return [json.loads(line) for line in (self.log / "err").read_text().splitlines()]

    def ask(
        self, path: str, body: Any = None, *, method: str | None = None, key: str | None = None, **headers: str
    ) -> Answer:
        """Ask on a connection of its own: POST of a body, which is JSON unless it is bytes, else GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            return ask(connection, path, body, method=method, key=key or self.key, **headers)
        finally:
            connection.close()

    def about(self) -> dict[str, Any]:
        """Return what it says of itself."""
        return self.ask("/v1/about").json

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over what has these labels."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.ask("/metrics").content.decode()
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def until(self, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Return what it says of itself as soon as something holds of that."""
        return until(self.about, holds)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End it by a signal; return its exit status."""
        os.kill(self.process.pid, number)
        self.process.join(PATIENCE)
        return int(self.process.exitcode)


def until(look: Callable[[], Any], holds: Callable[[Any], Any] = bool) -> Any:
    """Return what is seen as soon as something holds of it."""
    ended = time.monotonic() + PATIENCE
    while not holds(seen := look()):
        assert time.monotonic() < ended, seen
        time.sleep(0.02)
    return seen


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    key: str | None = None,
    **headers: str,
) -> Answer:
    """Ask on a connection; see `Service.ask`."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        told["Authorization"] = f"Bearer {key}"
    connection.request(method or ("GET" if body is None else "POST"), path, content, told)
    response = connection.getresponse()
    return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())


def start(spec: str, registry: str | Path, folder: Path, *words: object, again: float = 0.3, port: int = 0) -> Service:
    """Start a service; it may not answer yet."""
    folder.mkdir(parents=True, exist_ok=True)
    told = [spec, "--registry", registry, "--port", port, "--poll", 0.05, "--workers", 1, *words]
    return Service(fork(_serve, [str(word) for word in told], str(folder), str(folder), again), folder)


def listening(service: Service) -> Service:
    """Return a service when it answers."""
    out = service.log / "out"

    def said() -> str:
        assert service.process.is_alive(), (service.log / "err").read_text()
        return out.read_text() if out.exists() else ""

    service.port = int(until(said, lambda text: text.endswith("\n")).rstrip().rpartition(":")[2])
    return service


@contextmanager
def serving(
    spec: str, registry: str | Path, folder: Path, *words: object, again: float = 0.3, port: int = 0
) -> Iterator[Service]:
    """Yield a service that answers, and end it."""
    service = start(spec, registry, folder, *words, again=again, port=port)
    try:
        yield listening(service)
    finally:
        if service.process.is_alive():
            service.kill(signal.SIGTERM)
        if service.process.is_alive():
            service.process.kill()
            service.process.join()


# -- the truth, and clients that hold answers against it ---------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What versions say of some probes: by version its vectors, the name of its index, and the nearest items in it."""

    probes: list[str]
    vectors: dict[str, np.ndarray]
    index: dict[str, str]
    nearest: dict[str, list[list[str]]]

    @classmethod
    def of(cls, registry: Any, name: str, probes: list[str], k: int = 3) -> Truth:
        """Ask the runtime and the indexes themselves, without a service."""
        from fastness.index import Index
        from fastness.registry.indexes import indexed
        from fastness_runtime import load

        vectors, index, nearest = {}, {}, {}
        for version in registry.versions(name):
            found = load(registry.pull(str(version)) / "exports" / "onnx", threads=1).embed(probes)
            written = indexed(registry, name, version.number, COLLECTION)
            assert written is not None
            with Index.open(written.address) as opened:
                hits = opened.search(found, k)
            vectors[str(version)], index[str(version)] = found, str(written)
            nearest[str(version)] = [[hit.id for hit in row] for row in hits]
        return cls(probes, vectors, index, nearest)

    def distinct(self) -> bool:
        """Whether any two versions say something else of every probe, so that a mixture would be seen."""
        names = list(self.vectors)
        return all(
            np.abs(self.vectors[a] - self.vectors[b]).max(1).min() > 0.05
            and all(x != y for x, y in zip(self.nearest[a], self.nearest[b], strict=True))
            for i, a in enumerate(names)
            for b in names[:i]
        )

    def embedded(self, answer: Answer, probe: int) -> str | None:
        """Return what is wrong with an answer of ``/v1/embeddings``."""
        return self._agrees(answer) or self._near(answer.json["data"][0]["embedding"], answer.json["version"], probe)

    def searched(self, answer: Answer, probe: int) -> str | None:
        """Return what is wrong with an answer of ``/v1/search``."""
        if wrong := self._agrees(answer):
            return wrong
        found = [hit["id"] for hit in answer.json["results"][0]]
        expected = self.nearest[answer.json["version"]][probe]
        return None if found == expected else f"{answer.json['version']}: found {found}, not {expected}"

    def _agrees(self, answer: Answer) -> str | None:
        if answer.status != 200:
            return f"{answer.status}: {answer.content[:300]!r}"
        version, index = answer.json["version"], answer.json["index"]
        if (answer.headers["fastness-version"], answer.headers["fastness-index"]) != (version, index):
            return f"headers say otherwise than {version} with {index}"
        return None if self.index[version] == index else f"{version} with {index}"

    def _near(self, vector: list[float], version: str, probe: int) -> str | None:
        off = float(np.abs(np.array(vector) - self.vectors[version][probe]).max())
        return None if off < 1e-4 else f"{version}: a vector that is off by {off}"


class Clients:
    """Clients on connections that are kept, who ask without pause and hold every answer against the truth.

    Attributes:
        answered: how many answers were right, by version.
        wrong: what was wrong with the others.
        seconds: that right answers took.
    """

    def __init__(self, port: int, truth: Truth, number: int = 3, patient: bool = False) -> None:
        self.answered: dict[str, int] = {}
        self.wrong: list[str] = []
        self.seconds: list[float] = []
        self._port, self._truth, self._patient = port, truth, patient
        self._lock, self._over = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._go, args=(i,), daemon=True) for i in range(number)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def progress(self, more: int = 5) -> None:
        """Wait until so many more answers have come."""
        before = sum(self.answered.values())
        until(lambda: sum(self.answered.values()) - before, lambda n: n >= more or self.wrong)

    def _go(self, number: int) -> None:
        connection, turn = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE), number
        while not self._over.is_set():
            probe, turn = turn % len(self._truth.probes), turn + 1
            body = {"input": self._truth.probes[probe], "k": 3}
            path = "/v1/search" if turn % 2 else "/v1/embeddings"
            began = time.perf_counter()
            try:
                answer = ask(connection, path, body)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if self._patient:  # somebody kills the service
                    time.sleep(0.02)
                else:
                    self._say(f"{type(error).__name__}: {error}")
                continue
            wrong = (self._truth.searched if turn % 2 else self._truth.embedded)(answer, probe)
            if wrong:
                self._say(wrong)
            else:
                with self._lock:
                    version = answer.json["version"]
                    self.seconds.append(time.perf_counter() - began)
                    self.answered[version] = self.answered.get(version, 0) + 1
        connection.close()

    def _say(self, wrong: str) -> None:
        with self._lock:
            self.wrong.append(wrong)


def spoiled(export: Path) -> None:
    """Let the sample of an export say the opposite."""
    path = export / "sample.npz"
    with np.load(path) as kept:
        content = {name: kept[name] for name in kept}
    np.savez(path, **{**content, "embeddings": -content["embeddings"]})
