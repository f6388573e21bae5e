"""The whole way of a release, command by command, from pictures to a rollback, with the seconds that each took.

Train, measure, export, add, pass the gate, build the index, serve, search; then a worse one: the gate refuses it, an
override lets it in all the same, the running service switches to it, and a rollback brings the first one back. A client
asks without pause from the first answer to the last: none of its questions may fail, and none may be answered by the
version of one and the index of the other. The log of all that was said lies in ``.bench/release/log.txt``.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common

FOLDER = common.WORK / "release"
DATA = common.DATA / "clothing" / "clothing.zip"
FASTNESS = Path(sys.executable).with_name("fastness")
POLICY = "rules:\n  - {measure: knn.accuracy, floor: 0.2, drop: 0.02}\n"
WAIT = 60  # seconds for the service to follow


class Story:
    """Runs commands, keeps what they said, and how long they took."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._log = (FOLDER / "log.txt").open("w", encoding="utf-8")

    def run(self, what: str, *words: object, status: int = 0) -> str:
        """Run ``fastness WORDS``, which must end with a status; return what it printed."""
        began = time.perf_counter()
        done = subprocess.run([FASTNESS, *map(str, words)], cwd=FOLDER, capture_output=True, text=True, check=False)
        self.tell(
            what, time.perf_counter() - began, f"$ fastness {' '.join(map(str, words))}", done.stdout, done.stderr
        )
        if done.returncode != status:
            raise SystemExit(f"{what}: ended with {done.returncode}, not {status}; see {self._log.name}")
        return done.stdout

    def tell(self, what: str, seconds: float, *said: str) -> None:
        """Write down a step."""
        self.rows.append({"step": what, "seconds": round(seconds, 2)})
        print(f"{what}: {seconds:.1f} s", flush=True)
        self._log.write("\n".join([f"== {what} ({seconds:.2f} s)", *filter(None, map(str.strip, said)), ""]) + "\n")
        self._log.flush()


class Client(threading.Thread):
    """Asks for the neighbours of a picture without pause, and counts what is wrong with the answers."""

    def __init__(self, address: str, picture: str) -> None:
        super().__init__(daemon=True)
        self._address, self._body = address, json.dumps({"input": picture, "k": 3}).encode()
        self.answered: dict[tuple[str, str], int] = {}
        self.failed: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        """Ask until told to stop."""
        while not self.done.is_set():
            try:
                found = ask(f"{self._address}/v1/search", self._body)
                key = (found["version"], found["index"])
                self.answered[key] = self.answered.get(key, 0) + 1
            except (OSError, KeyError, ValueError) as error:
                self.failed.append(f"{type(error).__name__}: {error}")


def ask(url: str, body: bytes | None = None) -> dict[str, Any]:
    """Return what the service answers."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.loads(answer.read()))


@contextmanager
def service(story: Story) -> Iterator[str]:
    """Start the service, and yield its address once it answers."""
    began = time.perf_counter()
    words = ["serve", "shop@production", "--collection", "clothes", "--registry", "registry", "--port", "0"]
    with (FOLDER / "service.jsonl").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [FASTNESS, *words, "--poll", "0.25"], cwd=FOLDER, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split()[-1] if line else ""
        if not address:
            raise SystemExit(f"the service did not start; see {FOLDER / 'service.jsonl'}")
        ask(f"{address}/v1/about")
        story.tell("serve: until it answers", time.perf_counter() - began, f"$ fastness {' '.join(words)}", line)
        try:
            yield address
        finally:
            process.terminate()
            process.wait()


def until(story: Story, address: str, what: str, version: str) -> None:
    """Wait until the service answers by a version."""
    began = time.perf_counter()
    while ask(f"{address}/v1/about")["version"] != version:
        if time.perf_counter() - began > WAIT:
            raise SystemExit(f"{what}: {version} does not serve after {WAIT} s: {ask(f'{address}/v1/about')}")
        time.sleep(0.02)
    story.tell(what, time.perf_counter() - began, f"{version} answers")


def made(story: Story, name: str, number: int, *length: object) -> None:
    """Train, measure, fit, export and add a version, and embed the collection by it."""
    bundle = f"{name}/bundle"
    net = ("--encoder", "resnet18", "--width", 8, "--size", 32)
    story.run(f"{name}: train", "train", DATA, *net, *length, "--label", "none", "--out", name)
    story.run(f"{name}: evaluate", "evaluate", bundle, DATA, "--checks", "knn,linear")
    story.run(f"{name}: fit a head", "fit", bundle, DATA)
    story.run(f"{name}: export", "export", bundle, DATA, "--format", "onnx", "--head", "default")
    story.run(f"{name}: add to the registry", "registry", "add", bundle, "shop", "--registry", "registry")
    words = ("clothes", f"shop@{number}", DATA, "--previews", "--registry", "registry")
    story.run(f"{name}: embed the collection", "index", "rebuild", *words)


def promoted(story: Story, what: str, number: int, *more: str, status: int = 0) -> None:
    """Ask the gate to let a version serve."""
    gate = ("--gate", "policy.yaml", "--data", DATA, "--checks", "knn")
    words = ("registry", "promote", f"shop@{number}", "production", *gate, "--registry", "registry", *more)
    story.run(what, *words, status=status)


def main() -> None:
    """Go all the way, and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "policy.yaml").write_text(POLICY)
    with zipfile.ZipFile(DATA) as archive:
        first = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[0]
        picture = "data:image/jpeg;base64," + base64.b64encode(archive.read(first)).decode()
    story, began = Story(), time.perf_counter()
    made(story, "good", 1, "--steps", 300 if quick else 1500)  # steps: a loaded machine must not teach it less
    promoted(story, "the gate lets the first one in", 1, "--why", "the first")
    with service(story) as address:
        client = Client(address, picture)
        client.start()
        made(story, "worse", 2, "--steps", 1)
        promoted(story, "the gate refuses the worse one", 2, "--why", "newer", status=3)
        kept = ask(f"{address}/v1/about")["version"] == "shop@1"
        promoted(story, "an override lets it in", 2, "--override", "--why", "to see what happens")
        until(story, address, "the service has followed", "shop@2")
        story.run("roll back", "registry", "rollback", "shop", "production", "--why", "worse", "--registry", "registry")
        until(story, address, "the service has followed back", "shop@1")
        client.done.set()
        client.join()
    said = story.run("the log", "registry", "log", "shop", "--registry", "registry")
    told = [line for line in said.splitlines() if line.strip()]
    total = time.perf_counter() - began
    mixed = sorted({f"{version} with {index}" for version, index in client.answered})
    back = next(row["seconds"] for row in story.rows if row["step"] == "the service has followed back")
    common.save(
        "release" + ("_quick" if quick else ""),
        story.rows,
        [
            common.ask(
                "questions that failed meanwhile", "0", f"{len(client.failed)} of {asked(client)}", not client.failed
            ),
            common.ask("versions answered with one index each", "2", ", ".join(mixed), len(mixed) == 2),
            common.ask("the gate keeps the worse one out", "yes", "yes" if kept else "no", kept),
            common.ask("moves and the refusal in the log", "4", str(len(told)), len(told) == 4),
            common.ask("from the rollback until it serves, seconds", "stated", back, None),
            common.ask("all of it, seconds", "stated", round(total, 1), None),
        ],
    )


def asked(client: Client) -> int:
    """Return how many questions a client has put."""
    return sum(client.answered.values()) + len(client.failed)


if __name__ == "__main__":
    main()
