"""``fastness serve`` under load, beside LitServe and a plain FastAPI handler on the same ONNX file, in turns.

One item a request to ``POST /v1/embeddings``, answered in base64: questions of Banking77 to MiniLM (int8), photographs
of clothes (JPEG in data URLs) to EfficientNet-Lite0 (int8). The load comes from a process of its own, which shares the
cores with the server, the same for all of them; 1 to 256 clients ask again as soon as they are answered. One server
runs at a time, and each computes with as many threads as there are cores; of LitServe's settings it has the best. The
plain handler leaves threads as they are by default; a second one computes each call on one thread, side by side.

``cpu_ms`` is the processor time of a server for each answer, which other work on the machine changes least.

``overload``: twice what the service was measured to bear, at random moments, for ten minutes (quick: 20 seconds).

Pictures are held against what the session itself embeds a second in batches, in a process with as many threads.

Resumable: each turn leaves a file in ``.bench/serving``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import common
import fastness as fs
import fastness_runtime
import image_serving_cpu
import text_serving_cpu
from fastness.core.files import replace_folder, write_bytes, write_json
from fastness.core.hardware import cores
from few_label_text import banking77

FOLDER = common.WORK / "serving"
FORM = "onnx-int8"
CLIENTS = (1, 4, 8, 16, 32, 64, 256)
LIMIT = 50.0  # milliseconds that the 99th percentile may take
# Of LitServe: threads, workers, most in a batch, seconds that it waits for more, and which queue.
ALL = str(cores())
SETTINGS = (
    ("1", ALL, "16", "0.002", "slow"),
    (ALL, "1", "64", "0.005", "slow"),
    ("1", ALL, "64", "0.005", "slow"),
    ("1", ALL, "8", "0.001", "fast"),
    (ALL, "1", "64", "0", "slow"),
)
TRIED = (4, 16)  # clients with which they are compared
NAMES = {"text": "minilm", "image": "efficientnet"}
SERVERS = ("fastness", "litserve", "plain", "plain, one thread a call")
SAID = {
    "plain": "a plain handler",
    "litserve": "LitServe",
    "plain, one thread a call": "a plain handler that computes each call on one thread",
}
PATIENCE = 120.0  # seconds until a server answers


@dataclass(frozen=True)
class Size:
    """How long is measured."""

    name: str
    warm: float
    seconds: float
    turns: int
    overload: float
    settings: int


FULL = Size("full", 1.5, 5, 2, 600, len(SETTINGS))
QUICK = Size("quick", 0.5, 2, 1, 20, 2)


@dataclass(frozen=True)
class Kind:
    """What is asked for: ``bodies`` is a file of requests, ``items`` what is in them."""

    name: str
    model: Path
    bodies: Path
    items: list[Any]


def kinds() -> dict[str, Kind]:
    """Make models, the registry and the requests."""
    questions, photographs = banking77()[2], image_serving_cpu.pictures()["test"][0]
    given: dict[str, tuple[Callable[[], Path], Callable[[], Path], list[Any], Callable[[Any], str]]] = {
        "text": (common.minilm_bundle, text_serving_cpu.corpus, questions, str),
        "image": (image_serving_cpu.efficientnet, lambda: image_serving_cpu.ZIP, photographs, data_url),
    }
    found = {}
    for kind, (bundle, data, items, written) in given.items():
        bodies = FOLDER / f"{kind}.json"
        asked = [{"input": written(item), "model": NAMES[kind], "encoding_format": "base64"} for item in items]
        write_json(bodies, [json.dumps(body) for body in asked])
        found[kind] = Kind(kind, released(NAMES[kind], bundle, data), bodies, items)
    return found


def data_url(picture: bytes) -> str:
    """Return a JPEG as a data URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode('ascii')}"


def released(name: str, bundle: Callable[[], Path], data: Callable[[], Path]) -> Path:
    """Return the export of a bundle that is in production; both are made on first use."""
    folder = FOLDER / name
    if not folder.exists():

        def fill(place: Path) -> None:
            shutil.copytree(bundle(), place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("exports"))
            fs.export(place, data(), FORM)

        replace_folder(folder, fill)
    with fs.Registry(FOLDER / "registry") as registry:
        if not registry.versions(name):
            registry.add(folder, name)
            registry.promote(f"{name}@1", "production", override=True, why="served by the benchmark")
    return folder / "exports" / FORM


class Server:
    """A server, as a process of its own with whatever it starts."""

    def __init__(self, name: str, kind: Kind, setting: tuple[str, ...]) -> None:
        self.port = free_port()
        self._log = (FOLDER / f"{name}.log").open("wb")
        command, environment = command_of(name, kind, self.port, setting)
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, env=environment, start_new_session=True
        )
        self.agreement = self._agreement(kind)

    def _agreement(self, kind: Kind) -> float:
        """Wait until it answers; return the least cosine of its vectors to what the runtime itself gives."""
        bodies = json.loads(kind.bodies.read_text(encoding="utf-8"))[:8]
        wanted = fastness_runtime.load(kind.model).embed(kind.items[:8])
        given_up = time.monotonic() + PATIENCE
        while True:
            try:
                found = np.stack([asked(self.port, body) for body in bodies])
                return float((found * wanted).sum(1).min())
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > given_up or self._process.poll() is not None:
                    self.close()
                    raise RuntimeError(f"no server: {error}; see {self._log.name}") from None
                time.sleep(0.2)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def used(self) -> tuple[float, float]:
        """Return the megabytes that the process and its children hold, and the seconds that they computed."""
        pages = ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it may just have ended
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self._process.pid:  # the session
                    pages += int(fields[21])
                    ticks += int(fields[11]) + int(fields[12])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it and what it started."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def command_of(name: str, kind: Kind, port: int, setting: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Return how a server is started, and with which environment."""
    environment = {**os.environ, "PYTHONPATH": str(common.HERE.parent / "runtime" / "src")}
    given = [str(kind.model), str(port)]
    if name == "litserve":
        python = str(common.peer_python("serving_litserve"))
        return [python, str(common.PEERS / "serving_litserve.py"), *given, *setting], environment
    if name != "fastness":
        threads = ALL if name == "plain" else "1"
        return [sys.executable, str(common.PEERS / "serving_plain.py"), *given, threads], environment
    spec, place = f"{NAMES[kind.name]}@production", str(FOLDER / "registry")
    command = [sys.executable, "-m", "fastness", "serve", spec, "--port", str(port), "--registry", place]
    return [*command, "--form", FORM], environment


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def asked(port: int, body: str) -> np.ndarray:
    """Return the vector that a server answers with.

    Raises:
        OSError, HTTPException: it does not.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"{answer.status}: {said[:200]!r}")
        return np.frombuffer(base64.b64decode(json.loads(said)["data"][0]["embedding"]), "<f4")


def load_command(way: str, port: int, bodies: Path, warm: float, seconds: float, seed: int, amount: float) -> list[str]:
    """Return how load is made."""
    given = [way, port, bodies, warm, seconds, seed, amount]
    return [sys.executable, str(common.PEERS / "serving_load.py"), *map(str, given)]


def load(*given: Any) -> dict[str, Any]:
    """Make load, and return what was answered."""
    made = subprocess.run(load_command(*given), check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(made.stdout))


def kept(name: str, code: str, measure: Callable[[], Any]) -> Any:
    """Return what was measured; a finished measurement is kept until its code changes."""
    path = FOLDER / "kept" / f"{name.replace(', ', '-').replace(' ', '-')}-{code}.json"
    if not path.exists():
        write_json(path, measure())
    return json.loads(path.read_text())


def code_of(name: str) -> str:
    """Return a short hash of the code that a server's figures stand on."""
    peers = b"".join(path.read_bytes() for path in sorted(common.PEERS.glob("serving_*.*")))
    rooms = ("serving",) if name == "fastness" else ()
    code = common.source_hash(*rooms, "../../runtime/src/fastness_runtime")
    return code + hashlib.sha256(peers).hexdigest()[:6]


def turn(name: str, kind: Kind, setting: tuple[str, ...], clients: tuple[int, ...], size: Size, seed: int) -> Any:
    """Return a row for each number of clients, of one start of a server."""
    rows = []
    with Server(name, kind, setting) as server:
        for count in clients:
            before = server.used()[1]
            found = load("closed", server.port, kind.bodies, size.warm, size.seconds, seed, count)
            memory, computed = server.used()
            each = 1000 * (computed - before) / max(1, found["answered_with_warm_up"])
            found |= {"clients": count, "cpu_ms": round(each, 2), "memory_mb": round(memory, 1)}
            found["cosine"] = round(server.agreement, 5)
            rows.append(found)
            print(kind.name, name, *setting, json.dumps(found), file=sys.stderr, flush=True)
    return rows


def best_setting(kind: Kind, size: Size) -> tuple[str, ...]:
    """Return the setting with which LitServe answers most, of those with which it answers in time if there are any."""
    worth = {}
    for setting in SETTINGS[: size.settings]:
        label = f"{size.name}-{kind.name}-litserve-{'-'.join(setting)}"
        rows = kept(label, code_of("litserve"), lambda s=setting: turn("litserve", kind, s, TRIED, size, 0))
        worth[setting] = in_time(rows)[0], max(row["throughput"] for row in rows)
    return max(worth, key=worth.__getitem__)


def in_time(rows: list[dict[str, Any]]) -> tuple[float, int]:
    """Return the most that was answered a second in time and without refusing anybody, and to how many clients."""
    good = [
        row for row in rows if row["p99_ms"] is not None and row["p99_ms"] < LIMIT and set(row["statuses"]) == {"200"}
    ]
    return max(((row["throughput"], row["clients"]) for row in good), default=(0.0, 0))


def medians(turns: list[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of clients, of the medians over turns."""
    for rows in zip(*turns, strict=True):
        named = ("throughput", "p50_ms", "p95_ms", "p99_ms", "cpu_ms", "memory_mb", "generator_cores")
        row = {"clients": rows[0]["clients"]} | {name: middle([row[name] for row in rows]) for name in named}
        row |= {name: total([row[name] for row in rows]) for name in ("statuses", "errors")}
        row["from"], row["to"] = (f([row["throughput"] for row in rows]) for f in (min, max))
        yield row | {"cosine": min(row["cosine"] for row in rows)}


def middle(values: list[float | None]) -> float | None:
    """Return the median of what there is."""
    there = [value for value in values if value is not None]
    return round(statistics.median(there), 2) if there else None


def total(counts: list[dict[str, int]]) -> dict[str, int]:
    """Return the sums of counts."""
    names = sorted({name for count in counts for name in count})
    return {name: sum(count.get(name, 0) for count in counts) for name in names}


def in_turns(kind: Kind, size: Size) -> list[dict[str, Any]]:
    """Return the rows of all servers for one kind of item."""
    setting = best_setting(kind, size)
    turns: dict[str, list[Any]] = {name: [] for name in SERVERS}
    for number in range(size.turns):
        for name in SERVERS[number:] + SERVERS[:number]:
            given = setting if name == "litserve" else ()
            label = "-".join([size.name, kind.name, name, *given, str(number)])
            measure = lambda n=name, g=given, s=number: turn(n, kind, g, CLIENTS, size, s)  # noqa: E731
            turns[name].append(kept(label, code_of(name), measure))
    rows = []
    for name, found in turns.items():
        more = {"setting": " ".join(setting)} if name == "litserve" else {}
        rows += [{"kind": kind.name, "server": name, **more, **row} for row in medians(found)]
    return rows


def in_bulk(kind: Kind, beside: float | None, turns: int) -> dict[str, Any]:
    """Return what the session embeds a second in batches; ``beside`` load of so many requests a second or nothing."""
    lengths = np.array([len(item) for item in kind.items], np.int64)
    image_serving_cpu.FOLDER.mkdir(parents=True, exist_ok=True)
    write_bytes(image_serving_cpu.FOLDER / "test.bin", b"".join(kind.items))
    write_json(image_serving_cpu.FOLDER / "test.json", lengths.tolist())
    side = image_serving_cpu.Side("fastness", kind.model)
    others: list[subprocess.Popen[bytes]] = []
    if beside is not None:
        port = free_port()
        others.append(subprocess.Popen([sys.executable, str(common.PEERS / "serving_load.py"), "null", str(port)]))
        time.sleep(1)
        command = load_command("open", port, kind.bodies, 0, 3600, 0, beside)
        others.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        time.sleep(1)
    seconds = [side.embed("test")[0] for _ in range(turns)]
    side.close()
    for other in others:
        other.kill()
        other.wait()
    return {
        "kind": kind.name,
        "server": "the session in batches" + ("" if beside is None else ", beside the load generator"),
        "throughput": round(len(kind.items) / statistics.median(seconds), 1),
        "from": round(len(kind.items) / max(seconds), 1),
        "to": round(len(kind.items) / min(seconds), 1),
    }


def overload(kind: Kind, rate: float, seconds: float) -> dict[str, Any]:
    """Ask for more than can be answered; return what came back, and how memory went."""
    samples = []
    with Server("fastness", kind, ()) as server:
        command = load_command("open", server.port, kind.bodies, 2, seconds, 0, rate)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while process.poll() is None and len(samples) < 4 * seconds + 400:
            samples.append(server.used()[0])
            time.sleep(0.25)
        found = json.loads(process.communicate()[0])
        alive = server.alive
    samples = samples[len(samples) // 10 :]  # it grows while it warms up
    third = len(samples) // 3
    first, last = (statistics.median(part) for part in (samples[:third], samples[-third:]))
    memory = {"memory_first_mb": round(first, 1), "memory_last_mb": round(last, 1), "alive": alive}
    return {"kind": kind.name, "server": "fastness, overloaded", "asked_a_second": round(rate, 1), **found, **memory}


def asks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked and what was found."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["kind"], row["server"]), []).append(row)
    lines = []
    for kind in NAMES:
        ours, clients = in_time(found[kind, "fastness"])
        for peer, wanted in (("plain", 2.0), ("litserve", 1.2), ("plain, one thread a call", None)):
            theirs, others = in_time(found[kind, peer])
            ratio = f"{ours / theirs:.2f}x" if theirs else "theirs never is"
            said = f"{ratio}: {ours} a second ({clients} clients) against {theirs} ({others})"
            asked, holds = "stated", None
            if kind == "text" and wanted is not None:
                asked, holds = f">= {wanted}x", ours >= wanted * theirs and ours > 0
            lines.append(common.ask(f"{kind} at p99 < 50 ms against {SAID[peer]}", asked, said, holds))
    best = max(found["image", "fastness"], key=lambda row: row["throughput"])
    for side in ("the session in batches", "the session in batches, beside the load generator"):
        base = found["image", side][0]["throughput"]
        share = best["throughput"] / base
        said = f"{100 * share:.0f} %: {best['throughput']} ({best['clients']} clients) of {base}"
        asked, holds = (">= 90 %", share >= 0.9) if side == "the session in batches" else ("stated", None)
        lines.append(common.ask(f"images against {side}", asked, said, holds))
    return lines + overload_asks(found["text", "fastness, overloaded"][0])


def overload_asks(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked of twice too much, and what was found."""
    refused = row["statuses"].get("503", 0)
    clean = set(row["statuses"]) <= {"200", "503"} and not row["errors"] and not row["refused_without_retry_after"]
    growth = row["memory_last_mb"] / row["memory_first_mb"] - 1
    said = f"{refused:,} refused, {row['statuses'].get('200', 0):,} answered, errors {row['errors'] or 'none'}"
    memory = f"{100 * growth:+.1f} % ({row['memory_first_mb']} to {row['memory_last_mb']} MB)"
    what = f"twice too much for {row['seconds']:g} s"
    return [
        common.ask(f"{what}: no crash", "alive", "alive" if row["alive"] else "crashed", row["alive"]),
        common.ask(f"{what}: what is refused is a 503 with Retry-After, no other error", "all", said, clean),
        common.ask(f"{what}: memory, last third to first", "within 5 %", memory, abs(growth) <= 0.05),
        common.ask(
            f"{what}: p99 of what was answered", "stated", f"{row['p99_ms']} ms, {row['throughput']} a second", None
        ),
    ]


def main() -> None:
    """Measure in turns and write the result file."""
    size = QUICK if common.arguments(__doc__ or "").quick else FULL
    FOLDER.mkdir(parents=True, exist_ok=True)
    every = kinds()
    rows = [row for kind in every.values() for row in in_turns(kind, size)]
    own = [row for row in rows if row["server"] == "fastness"]
    borne = {kind: max(row["throughput"] for row in own if row["kind"] == kind) for kind in NAMES}
    image, code = every["image"], code_of("fastness")
    turns = 1 if size is QUICK else 5
    for label, beside in (("alone", None), ("beside", borne["image"])):
        rows.append(kept(f"{size.name}-bulk-{label}", code, lambda b=beside: in_bulk(image, b, turns)))
    twice = lambda: overload(every["text"], 2 * borne["text"], size.overload)  # noqa: E731
    rows.append(kept(f"{size.name}-overload", code, twice))
    common.save("serving" + ("_quick" if size is QUICK else ""), rows, asks(rows), turns=size.turns, threads=cores())


if __name__ == "__main__":
    main()
