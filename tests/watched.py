"""What tests of the monitor share: traffic as services write it down, receivers of messages, a monitor to be killed."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import random
import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from conftest import fork
from fastness.core.errors import FastnessError
from fastness.monitoring.decide import BY
from fastness.monitoring.kept.journal import Journal
from fastness.monitoring.monitor import Monitor
from fastness.monitoring.policy import Policy
from fastness.registry import Registry, incidents, outbox, watched
from fastness.registry.controls import controls

SPEC = "photos@production"
MINUTE = 60_000_000
REQUESTS = 300
WHOLE = 0.0, 0.0, 0.2, 0.2, 0.0, 0.0  # share of requests that fail: a spell of two windows, and then it is over


def served(watch: Path, failing: Sequence[float], version: str = "photos@1", begin: int | None = None) -> int:
    """Write down requests, a window a minute, of which a share fails; return when the last window ended.

    Args:
        watch: folder of the journals.
        failing: of each window.
        version: that answers.
        begin: when, in microseconds since 1970; default: so that the last window is over now.
    """
    clock = [(time.time_ns() // 1000 if begin is None else begin) // MINUTE * MINUTE]
    clock[0] -= len(failing) * MINUTE if begin is None else 0
    journal = Journal(watch, "photos", "production", window=60, clock=lambda: clock[0])
    for share in failing:
        for number in range(REQUESTS):
            status = 500 if number < share * REQUESTS else 200
            journal.count("/v1/embeddings", status, 0.01, 1, version=version)
        clock[0] += MINUTE
        journal.flush()
    journal.close()
    return clock[0]


def write_policy(path: Path, *actions: dict[str, Any], **more: Any) -> Path:
    """Write a policy about errors and return where."""
    stated = {"signals": {"errors": {}}, "least": 100, "healthy": 2, "actions": [*actions], **more}
    path.write_text(yaml.safe_dump(stated))
    return path


def watching(registry: Registry, watch: Path, policy: Path) -> Monitor:
    """Return a monitor."""
    return Monitor(registry, SPEC, watch, Policy.load(policy))


def settle(monitor: Monitor, patience: float = 120.0) -> None:
    """Let a monitor look and act until nothing is due."""
    until = time.monotonic() + patience
    while True:
        monitor.look()
        monitor.act()
        found = incidents.incidents(monitor.registry)
        rows = [action for one in found for action in outbox.actions_of(monitor.registry, one.id)]
        if not any(action.open and action.phase != "again" for action in rows):
            return
        assert time.monotonic() < until, rows
        time.sleep(0.05)


def story(registry: Registry) -> dict[str, Any]:
    """Return all that a monitor has found and done, without what depends on when it was and how often it was tried."""
    found = incidents.incidents(registry)[::-1]
    return {
        "windows": [(w.windows, w.version, w.verdict) for w in watched.history(registry, "photos", "production")],
        "incidents": [(one.key, one.version, one.opened, one.seen, one.times, one.state) for one in found],
        "told": [
            [(e.what, e.said) for e in incidents.timeline(registry, one.id) if e.what not in ("trying", "running")]
            for one in found
        ],
        "done": [
            sorted((a.action, a.number, a.phase, a.state) for a in outbox.actions_of(registry, one.id)) for one in found
        ],
    }


def monitor_process(address: str, watch: str, policy: str, began: str) -> None:
    """Be a monitor that looks without pause, until killed."""
    with Registry(address) as registry:
        looking = watching(registry, Path(watch), Path(policy))
        Path(began).touch()
        looking.run(0.01, threading.Event())


@contextmanager
def monitor(registry: str, watch: Path, policy: Path, began: Path) -> Iterator[Any]:
    """Yield a monitor in a process of its own, once it looks; it is killed in the end."""
    began.unlink(missing_ok=True)
    process = fork(monitor_process, registry, str(watch), str(policy), str(began))
    try:
        until = time.monotonic() + 120
        while not began.exists():
            assert process.is_alive() and time.monotonic() < until
            time.sleep(0.002)
        yield process
    finally:
        process.kill()
        process.join()


def killed_monitors(place: Path, kills: int) -> list[str]:
    """Kill monitors at random moments while windows come, and return what is not as it is without that.

    Args:
        place: a folder to work in.
        kills: how many.
    """
    lots, end, watch = random.Random(0), None, place / "watch"
    with (
        Receiver() as hook,
        Receiver() as other,
        Registry(place / "registry") as registry,
        Registry(place / "alone") as calm,
    ):
        there = {"do": "notify", "to": "webhook", "timeout": 0.1}
        policies = [
            write_policy(place / f"{n}.yaml", {**there, "url": to.url}, {"do": "abstain", "timeout": 0.1})
            for n, to in enumerate((hook, other))
        ]
        for _ in range(kills):
            end = served(watch, (0.0, 0.2, 0.2, 0.0, 0.0), begin=end)
            with monitor(str(place / "registry"), watch, policies[0], place / "began"):
                time.sleep(lots.uniform(0, 0.2))
            settle(watching(calm, watch, policies[1]))
        settle(watching(registry, watch, policies[0]))
        killed, delivered = story(registry), [key for _, key, _ in hook.got]
        alone, keys = story(calm), {key for _, key, _ in other.got}
        left = controls(registry, "photos", "production")
    for stories in (killed, alone):
        stories["told"] = [sorted(told) for told in stories["told"]]  # of two actions either may be done first
    wrong = [f"{part} differ" for part in alone if killed[part] != alone[part]]
    wrong += [] if len(alone["incidents"]) == kills else [f"{len(alone['incidents'])} incidents of {kills}"]
    wrong += [] if not left else [f"controls are left: {list(left)}"]
    wrong += [] if set(delivered) == keys else [f"{len(keys - set(delivered))} messages lost"]
    again = len(delivered) - len(keys)  # killed between a message and its being written down: at most one each
    return wrong + ([] if again <= kills else [f"{again} messages again"])


def killed_retrainings(place: Path, old: Path, plan: dict[str, Any], kills: int, span: float) -> list[str]:
    """Kill the monitor, the training that it started, or both, at random moments; return what is not whole.

    Args:
        place: a folder to work in.
        old: a bundle, which serves and fails.
        plan: of the pipeline that makes and releases another one; it is begun anew until it was killed often enough.
        kills: how often at a moment at which the pipeline is under way.
        span: seconds within which each comes.
    """
    lots, met, wrong = random.Random(0), 0, []
    for number in range(4 * kills):
        if met >= kills:
            break
        (place / str(number)).mkdir()
        hits, found = _killed_retraining(place / str(number), old, plan, kills - met, span, lots)
        met, wrong = met + hits, wrong + found
    return wrong + ([] if met >= kills else [f"only {met} of {kills} kills met a pipeline that was under way"])


def _killed_retraining(
    place: Path, old: Path, plan: dict[str, Any], kills: int, span: float, lots: random.Random
) -> tuple[int, list[str]]:
    """Return how many kills met the pipeline of one incident, and what was wrong then and afterwards."""
    watch, home, out = place / "watch", str(place / "registry"), str(place / "out")
    (place / "plan.yaml").write_text(yaml.safe_dump(plan))
    does = {"do": "retrain", "plan": str(place / "plan.yaml"), "out": out, "timeout": 0.1}
    policy = write_policy(place / "policy.yaml", does | {"attempts": 10 + 4 * kills, "pause": 1e-4})
    served(watch, [0.2])
    met, wrong = 0, list[str]()
    with Registry(home) as registry:
        registry.add(old, "photos")
        registry.promote("photos@1", "production", override=True, why="it is a test")
        while met < kills and not any(not action.open for action in outbox.actions_of(registry, 1)):
            with monitor(home, watch, policy, place / "began") as process:
                time.sleep(lots.uniform(0, span))
                met += bool(pipelines(out))
                victims = lots.randrange(3)
                if victims != 1:
                    process.kill()
                for pipeline in pipelines(out) if victims else ():
                    with contextlib.suppress(OSError):  # it is gone
                        os.kill(pipeline, signal.SIGKILL)
                wrong += whole(registry, place / f"pulled-{lots.random()}")
        settle(watching(registry, watch, policy), 600)
        wrong += whole(registry, place / "pulled")
        (row,) = outbox.actions_of(registry, 1)
        moves = registry.log("photos", "production")[:-1]
        told = [(move.what, move.number, move.by, move.why.partition(":")[0]) for move in moves]
        wrong += [] if told == [("promote", 2, BY, "incident 1")] else [f"moves: {told}"]
        wrong += [] if len(registry.versions()) == 2 else [f"{len(registry.versions())} versions"]
        wrong += [] if row.state == "done" and "photos@2" in row.said else [f"{row.state}: {row.said}"]
    return met, wrong


def pipelines(folder: str) -> list[int]:
    """Return the processes of the pipelines that work in a folder, each of which a monitor of ours has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it is gone
            words = status.read_bytes().decode("utf-8", "replace").split("\0")
            if "ci" in words and any(word.startswith(folder) for word in words):
                found.append(int(status.parent.name))
    return found


def whole(registry: Registry, folder: Path) -> list[str]:
    """Return what is wrong with what the alias names: every file of it is compared with its hash."""
    try:
        registry.pull("photos@production", folder)
    except FastnessError as error:
        return [str(error)]
    return []


class Receiver:
    """A web server that keeps what is posted to it; so many of the first requests are answered 503.

    Args:
        failing: how many.
        moved: where all requests are sent on to.
    """

    def __init__(self, failing: int = 0, moved: str = "") -> None:
        self.got: list[tuple[str, str, Any]] = []
        left = [failing]
        kept = self.got

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                left[0] -= 1
                if moved:
                    self.send_response(302)
                    self.send_header("Location", moved)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if left[0] >= 0:
                    self.send_error(503)
                    return
                kept.append((self.path, self.headers.get("Idempotency-Key", ""), json.loads(body)))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Mailbox:
    """A mail server that keeps what is sent to it."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        mails = self.mails

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                while line := self.rfile.readline():
                    if line.upper().startswith(b"DATA"):
                        self.wfile.write(b"354 go on\r\n")
                        lines = []
                        while (one := self.rfile.readline()) != b".\r\n":
                            lines.append(one.decode())
                        mails.append("".join(lines))
                    quitting = line.upper().startswith(b"QUIT")
                    self.wfile.write(b"221 bye\r\n" if quitting else b"250 ok\r\n")
                    if quitting:
                        return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Mailbox:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def alertmanager() -> str | None:
    """Return where a real Alertmanager is, ``None`` if there is none."""
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


@contextmanager
def alerting(program: str, folder: Path, hook: str) -> Iterator[str]:
    """Start an Alertmanager that tells a webhook of every alert, and yield its address once it answers."""
    told = {"name": "hook", "webhook_configs": [{"url": hook, "send_resolved": True}]}
    route = {"receiver": "hook", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
    config = {"route": route | {"repeat_interval": "24h"}, "receivers": [told]}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"config.file": folder / "alertmanager.yml", "storage.path": folder / "alertmanager"}
    options |= {"web.listen-address": f"127.0.0.1:{port}", "cluster.listen-address": ""}
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen([program, *(f"--{k}={v}" for k, v in options.items())], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while not _ready(f"{url}/-/ready"):
            assert time.monotonic() < until, (folder / "alertmanager.log").read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def alerts(url: str) -> list[dict[str, Any]]:
    """Return the alerts that an Alertmanager has, those that are over left out."""
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=30) as answer:
        return list(json.load(answer))


def alarms_told(place: Path, program: str) -> list[str]:
    """Let a hundred windows alarm and be told to a real Alertmanager, again and again; return what is wrong.

    Args:
        place: a folder to work in.
        program: the Alertmanager.
    """
    end = served(place / "watch", [0.2] * 100)
    with Receiver() as hook, alerting(program, place, hook.url) as url, Registry(place / "registry") as registry:
        there = {"do": "notify", "to": "alertmanager", "url": url, "labels": {"team": "vision"}, "repeat": 1e-5}
        looking = watching(registry, place / "watch", write_policy(place / "policy.yaml", there))
        settle(looking)
        until(lambda: hook.got)
        sent = 0
        while sent < 20:  # it is said again and again, since Alertmanager forgets when it restarts
            looking.act()
            sent = sum(row.state == "done" for row in outbox.actions_of(registry, 1))
            time.sleep(0.01)
        there_are, one = alerts(url), incidents.incident(registry, 1)
        served(place / "watch", [0.0] * 3, begin=end)
        settle(looking)
        until(lambda: len(hook.got) > 1)
        left, told = alerts(url), [(body["status"], len(body["alerts"])) for _, _, body in hook.got]
    labels = {"alertname": "fastness_errors", "team": "vision", "encoder": "photos", "alias": "production"}
    labels |= {"signal": "errors", "version": "photos@1", "incident": "1"}
    said = [(alert["labels"], alert["annotations"]["summary"]) for alert in there_are]
    wrong = [] if said == [(labels, one.title)] and one.times == 100 else [f"{said}, {one.times} windows"]
    wrong += [] if told == [("firing", 1), ("resolved", 1)] else [f"told: {told}"]
    return wrong + ([] if left == [] else [f"{len(left)} alerts are left"])


def until(what: Callable[[], Any]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)
