"""A scratch copy of what serves, with a registry, a service and a monitor of its own: what a drill may break.

Nothing of it is seen by anybody: the service listens on this machine alone, and what the monitor would say to people
goes to a receiver within this process. Nothing of what really serves is touched; it is read once.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from fastness.core.errors import BadInput, Failure
from fastness.core.files import disk_errors
from fastness.monitoring.policy import Notify, Policy, Retrain
from fastness.registry import Registry
from fastness.registry.indexes import indexed
from fastness.registry.moves import earlier, promoted
from fastness.registry.reindex import rebuild

COLLECTION, WHY = "drill", "drill"
STAND_IN = "retrain"
"""How messages begin that stand in for a training, as actions are called: ``notify/retrain``."""

_MARK = ".drill"  # a file that every drill's folder has
_PATIENCE = 120.0  # seconds until a process must have started
_TOLD = 3  # last lines of a process that are told

Say = Callable[[str], None]


class Scratch:
    """The copy of an alias.

    Args:
        registry: that has the versions; is only read.
        name, alias: of what.
        folder: where the copy lies; that of another drill is removed.
        say: called with lines of progress.

    Raises:
        BadInput: the alias names nothing, or the folder holds other things.
    """

    def __init__(self, registry: Registry, name: str, alias: str, folder: Path, say: Say) -> None:
        self.folder, self.name, self.alias, self._say = folder, name, alias, say
        self.watch = folder / "watched"
        current = registry.find(f"{name}@{alias}").number
        _emptied(folder)
        with registry.database.reading() as connection:
            before = earlier(promoted(connection, name, alias)[1], current)
        self.numbers = [number for number in (before, current) if number is not None]
        self.registry = Registry(folder / "registry")
        self.own: list[str] = []  # what the versions are called here, in the same order
        for number in self.numbers:
            version = str(self.registry.add(registry.pull(f"{name}@{number}"), name, note=f"{name}@{number}"))
            self.own.append(version)
            self.registry.promote(version, alias, why=WHY, override=True)
            say(f"{version} of the drill is {name}@{number}")

    @property
    def spec(self) -> str:
        """``NAME@ALIAS``."""
        return f"{self.name}@{self.alias}"

    @property
    def current(self) -> str:
        """The version that is rehearsed."""
        return self.own[-1]

    def index(self, data: str | Path, form: str | None, columns: dict[str, Any]) -> None:
        """Embed items with each version, to be searched."""
        for version in self.own:
            rebuild(self.registry, version, data, collection=COLLECTION, form=form, say=self._say, **columns)

    def back(self) -> bool:
        """Let the alias name the version again that is rehearsed; tell whether it did not."""
        number = int(self.current.rpartition("@")[2])
        if self.registry.now_at(self.name, self.alias) == number:
            return False
        self.registry.promote(self.current, self.alias, why=WHY, override=True)
        return True

    def written(self) -> int:
        """Return when the service last wrote down what it saw, in nanoseconds since 1970; 0: never."""
        return max((path.stat().st_mtime_ns for path in self.watch.glob("*/*/*.json")), default=0)

    @contextmanager
    def broken_index(self) -> Iterator[None]:
        """Take away what the rehearsed version's index knows of itself, so that nothing can be found in it."""
        number = int(self.current.rpartition("@")[2])
        index = indexed(self.registry, self.name, number, COLLECTION)
        assert index is not None
        ledger = sqlite3.connect(Path(index.address) / "items.sqlite", timeout=60, isolation_level=None)
        try:
            state = ledger.execute("select * from state").fetchone()
            ledger.execute("delete from state")
            try:
                yield
            finally:
                ledger.execute(f"insert into state values ({', '.join('?' * len(state))})", state)
        finally:
            ledger.close()

    def rehearsing(self, policy: Policy, url: str) -> Path:
        """Write the policy that the drill's monitor has, and return where.

        What would be said is said to one address, and a training is only announced there. Each accident is one of its
        own, so that no action waits for what was done about the last.
        """
        actions = [_alone(action, url) for action in policy.actions]
        stated = policy.model_copy(update={"actions": actions}).model_dump(mode="json", exclude_none=True)
        path = self.folder / "policy.yaml"
        path.write_text(yaml.safe_dump(stated), encoding="utf-8")
        return path

    def close(self) -> None:
        """Let go of the registry; the folder stays."""
        self.registry.close()


def _emptied(folder: Path) -> None:
    """Make a folder for a copy; of what is there only another drill's is removed."""
    if folder.exists() and not (folder.is_dir() and ((folder / _MARK).exists() or not any(folder.iterdir()))):
        raise BadInput(f"{folder}: holds other things than a drill's, which would be removed; name another folder")
    with disk_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / _MARK).touch()


def _alone(action: Any, url: str) -> Any:
    """Return an action that reaches nobody and waits for nothing."""
    common = action.model_dump(include={"on", "after", "attempts", "timeout"})
    if isinstance(action, Notify):
        return Notify(do="notify", to="webhook", url=url, name=action.name or action.to, **common)
    if isinstance(action, Retrain):
        called = f"{STAND_IN}-{action.name}" if action.name else STAND_IN
        return Notify(do="notify", to="webhook", url=url, name=called[:32], **{**common, "timeout": 10.0})
    return action.model_copy(update={"cooldown": 0.0, "budget": None})


class Running:
    """A service and a monitor of a scratch copy, in processes of their own.

    Args:
        scratch: the copy.
        policy: file of the monitor's.
        window: seconds that a window lasts.
        form: of the export that serves.
    """

    def __init__(self, scratch: Scratch, policy: Path, window: float, form: str | None) -> None:
        self._scratch, self._ends = scratch, ExitStack()
        home, spec = str(scratch.folder / "registry"), scratch.spec
        serve = ["serve", spec, "--collection", COLLECTION, "--port", "0", "--poll", "0.2", "--registry", home]
        serve += ["--watch", str(scratch.watch), "--window", f"{window:g}", "--wait-ms", "60000", "--timeout", "120"]
        serve += [] if form is None else ["--form", form]
        monitor = ["monitor", spec, "--watch", str(scratch.watch), "--policy", str(policy), "--every", "0.5"]
        try:
            self.service = self._started("service", serve)
            self.address = self._listening()
            self._started("monitor", [*monitor, "--registry", home])
        except BaseException:
            self._ends.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def stop(self) -> None:
        """Let the service stand still."""
        os.kill(self.service.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the service go on."""
        os.kill(self.service.pid, signal.SIGCONT)

    def _started(self, name: str, words: Sequence[str]) -> subprocess.Popen[str]:
        log = self._ends.enter_context((self._scratch.folder / f"{name}.log").open("w", encoding="utf-8"))
        process = subprocess.Popen(
            [sys.executable, "-m", "fastness", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if name == "service" else log,
            stderr=log,
            text=True,
        )
        self._ends.callback(_ended, process)
        return process

    def _listening(self) -> str:
        """Return the service's ``host:port`` once it answers."""
        assert self.service.stdout is not None
        line = self.service.stdout.readline()
        if not line.strip():
            self.service.wait(_PATIENCE)
            said = (self._scratch.folder / "service.log").read_text(encoding="utf-8").splitlines()
            raise Failure(f"the drill's service did not start: {' / '.join(said[-_TOLD:])}")
        return line.split()[-1].removeprefix("http://").rstrip("/")


def _ended(process: subprocess.Popen[str]) -> None:
    """End a process, also one that stands still."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Receiver:
    """A web server on this machine that keeps what a drill would have said to people.

    Attributes:
        got: texts, with when each came, as of ``time.time()``.
        url: its address.
    """

    def __init__(self) -> None:
        self.got: list[tuple[float, str]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _keeping(self.got))
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _keeping(kept: list[tuple[float, str]]) -> type[http.server.BaseHTTPRequestHandler]:
    """Return what takes requests and keeps their texts; it logs none, since they are the drill's own."""

    def take(request: http.server.BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        kept.append((time.time(), str(body["text"])))
        request.send_response(200)
        request.send_header("Content-Length", "0")
        request.end_headers()

    does = {"do_POST": take, "log_message": lambda *_: None}
    return type("Keeping", (http.server.BaseHTTPRequestHandler,), does)
