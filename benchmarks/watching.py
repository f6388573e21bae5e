"""What is served drifts, is noticed, explained, trained anew and healthy again: command by command, with the seconds.

An encoder of two vendors' emoji is trained, released, served and watched. Its clients send held-out emoji of these two,
which nobody may complain about, and then those of a third vendor. (Two pictures of an emoji are alike, and there are
but few emoji: so one picture of each is in the reference or in the traffic, both have as many of each category, and
clients ask about every one before they ask again.) The monitor opens an incident that says who it is, its policy runs a
pipeline on old and new data, the gate lets the new version in, the service follows, and the third vendor is usual. In a
second act somebody releases an encoder of the old data over the gate's no, and a policy with rollback takes it back.
Clients ask without pause from the first answer to the last: none of their requests may fail.

All processes are the commands of a user's terminal. What they said lies in ``.bench/watching/log.txt``, and the
incidents' timelines are in the result file as well.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import common
from fastness.core.seeds import numpy_generator
from fastness.registry import Registry, incidents
from fastness.registry.incidents import Incident
from fastness.registry.says import moment
from fastness.registry.watched import Watched, history

FOLDER = common.WORK / "watching"
FASTNESS = Path(sys.executable).with_name("fastness")
KNOWN, NEW = ("google", "twitter"), "fluent3d"
NAME, ALIAS = "emoji", "production"
PARTS = {"train": 0.5, "held": 0.25, "traffic": 0.25}  # of the emoji, so that no picture of one is in two of them
COLUMNS = ("--image", "image", "--label", "category")
NET = {"encoder": "resnet18", "width": 8, "size": 32, "method": "simclr"}
WINDOW = 10  # seconds
BATCH, EVERY, ASKERS = 8, 0.5, 2  # items in a request; seconds between a client's requests; clients
PATIENCE = 600  # seconds until something must have happened
GATE = "rules:\n  - {measure: knn.accuracy, floor: 0.2, drop: 0.03}\n"
WATCHED = """\
least: 150
healthy: 2
signals:
  drift: {level: 0.01, persist: 2 of 3}
  errors: {ceiling: 0.01}
actions:
"""
RETRAINS = WATCHED + "  - {do: retrain, plan: ci.yaml, 'on': [drift], cooldown: 1, timeout: 1}\n"
ROLLS_BACK = WATCHED + "  - {do: rollback, 'on': [drift, errors]}\n"
Row = dict[str, Any]


# -- data --------------------------------------------------------------------------------------------------------------


def prepared() -> tuple[list[Row], list[Row]]:
    """Write the files that the commands are given; return the traffic of the known vendors, and of the new one."""
    table = pq.read_table(common.DATA / "emoji" / "emoji.parquet", columns=["image", "vendor", "emoji_id", "category"])
    vendor, emoji = np.array(table["vendor"].to_pylist()), table["emoji_id"].to_numpy()
    table = table.drop_columns(["emoji_id"]).set_column(1, "vendor", pa.array(vendor.tolist()))
    table = table.set_column(2, "category", pa.array(table["category"].to_pylist()))
    names, first = np.unique(emoji, return_index=True)
    place = np.zeros(emoji.max() + 1)
    category = np.array(table["category"].to_pylist())[first]
    for name in np.unique(category):
        mine = names[category == name]
        place[mine] = numpy_generator(0, "parts", str(name)).permutation(len(mine)) / len(mine)
    place = place[emoji]
    edges = np.cumsum([0.0, *PARTS.values()])
    part = {name: (place >= low) & (place < high) for name, low, high in zip(PARTS, edges, edges[1:], strict=False)}
    old, new = np.isin(vendor, KNOWN), vendor == NEW
    alone = vendor == np.array(KNOWN)[numpy_generator(0, "vendor").integers(0, 2, emoji.max() + 1)][emoji]
    for name, rows in {
        "old": part["train"] & old,  # what the first version learns from, and what is searched
        "old-held": part["held"] & alone,  # what it is measured on, and how production looks at first
        "all": part["train"],
        "all-held": part["held"],
        "new-held": part["held"] & new,  # how production looks once the third vendor has taken over
    }.items():
        pq.write_table(table.filter(pa.array(rows)), FOLDER / f"{name}.parquet")
    known, fresh = (table.filter(pa.array(part["traffic"] & rows)).to_pylist() for rows in (alone, new))
    return known, fresh


def plan(steps: int) -> str:
    """Return the pipeline that the policy runs: on old and new data together."""
    train = ", ".join(f"{name}: {value}" for name, value in {**NET, "steps": steps}.items())
    return f"""\
name: {NAME}
data: all.parquet
columns: {{image: image, label: category}}
train: {{{train}}}
evaluate: {{data: all-held.parquet, checks: [knn]}}
head: {{data: all.parquet}}
export: [onnx]
sketch: {{data: new-held.parquet, form: onnx}}
collection: {{name: pictures, data: old.parquet, previews: true}}
gate: gate.yaml
alias: {ALIAS}
"""


# -- the story ---------------------------------------------------------------------------------------------------------


class Story:
    """Runs commands, keeps what they said, and how long they took."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._log = (FOLDER / "log.txt").open("w", encoding="utf-8")

    def run(self, what: str, *words: object, status: int = 0) -> str:
        """Run ``fastness WORDS``, which must end with a status; return what it printed."""
        began = time.perf_counter()
        done = subprocess.run([FASTNESS, *map(str, words)], cwd=FOLDER, capture_output=True, text=True, check=False)
        said = f"$ fastness {' '.join(map(str, words))}"
        self.tell(what, time.perf_counter() - began, said, done.stdout, done.stderr)
        if done.returncode != status:
            raise SystemExit(f"{what}: ended with {done.returncode}, not {status}; see {self._log.name}")
        return done.stdout

    def tell(self, what: str, seconds: float, *said: str) -> None:
        """Write down a step."""
        self.rows.append({"step": what, "seconds": round(seconds, 2)})
        print(f"{what}: {seconds:.1f} s", flush=True)
        self._log.write("\n".join([f"== {what} ({seconds:.2f} s)", *filter(None, map(str.strip, said)), ""]) + "\n")
        self._log.flush()

    def until(self, what: str, since: float, holds: Callable[[], Any], said: Callable[[Any], str] = str) -> Any:
        """Wait until something is there, and write down how long it took; return it.

        Args:
            what: is waited for.
            since: when the wait began, as of ``time.time()``.
            holds: gives what is there, something false as long as it is not.
            said: tells what came, for the log.
        """
        while not (found := holds()):
            if time.time() - since > PATIENCE:
                raise SystemExit(f"{what}: not within {PATIENCE} s; see {FOLDER}")
            time.sleep(0.1)
        self.tell(what, time.time() - since, said(found))
        return found


@contextmanager
def process(name: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Yield ``fastness WORDS``, whose stderr is kept in a file of that name, and end it."""
    with (FOLDER / f"{name}.log").open("w", encoding="utf-8") as log:
        running = subprocess.Popen(
            [FASTNESS, *map(str, words)], cwd=FOLDER, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            yield running
        finally:
            running.terminate()
            running.wait()


@contextmanager
def service(story: Story) -> Iterator[str]:
    """Start the service, and yield its address once it answers.

    It shares the machine with the training that it is to outlive, and so lets requests wait for longer than usual.
    """
    began = time.perf_counter()
    words = ["serve", f"{NAME}@{ALIAS}", "--collection", "pictures", "--registry", "registry", "--port", 0]
    words += ["--watch", "watched", "--window", WINDOW, "--poll", 0.25, "--wait-ms", 10_000, "--timeout", 60]
    with process("service", *words) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        if not line:
            raise SystemExit(f"the service did not start; see {FOLDER / 'service.log'}")
        story.tell("serve: until it answers", time.perf_counter() - began, f"$ fastness {' '.join(map(str, words))}")
        yield line.split()[-1].removeprefix("http://")


class Clients:
    """Ask for classes and neighbours without pause, of whatever the shop has just then, and count what fails."""

    def __init__(self, address: str, items: Sequence[Row]) -> None:
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self.seconds: list[float] = []
        self._address, self._items = address, items
        self._over, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(ASKERS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def now_of(self, items: Sequence[Row]) -> float:
        """Ask about other items from now on; return the moment."""
        self._items = items
        return time.time()

    def _ask(self, number: int) -> None:
        lots, items, left = numpy_generator(0, "client", number), self._items, list[int]()
        for turn in itertools.count():
            if self._over.wait(EVERY):
                return
            if items is not self._items or len(left) < BATCH:
                items = self._items
                left = list(lots.permutation(np.arange(number, len(items), ASKERS)))
            rows = [items[left.pop()] for _ in range(BATCH)]
            body = {
                "input": ["data:image/webp;base64," + base64.b64encode(row["image"]["bytes"]).decode() for row in rows],
                "metadata": [{"vendor": row["vendor"]} for row in rows],
            }
            began = time.perf_counter()
            try:
                answer = post(self._address, "/v1/search" if turn % 4 == 3 else "/v1/classify", body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                with self._lock:
                    self.failed.append(f"{moment(time.time_ns() // 1000)} {type(error).__name__}: {error}")
                continue
            with self._lock:
                self.answered[answer["version"]] += 1
                self.seconds.append(time.perf_counter() - began)


def post(address: str, path: str, body: Row) -> Row:
    """Return what the service answers."""
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"{answer.status} {content[:200].decode('utf-8', 'replace')}")
    return dict(json.loads(content))


# -- what the registry tells -------------------------------------------------------------------------------------------


def newest(registry: Registry, version: str | None = None) -> Incident | None:
    """Return the newest incident, of a version if one is named."""
    found = incidents.incidents(registry, NAME, ALIAS)
    return next((one for one in found if version in (None, one.version)), None)


def judged(registry: Registry, version: str, since: float) -> list[Watched]:
    """Return the windows of a version that began after a moment and were judged for drift."""
    return [
        window
        for window in history(registry, NAME, ALIAS)
        if window.version == version and window.start >= since * 1e6 and window.alarmed("drift") is not None
    ]


def alarms(windows: Sequence[Watched]) -> int:
    """Return how many windows alarmed."""
    return sum(bool(window.alarmed("drift")) for window in windows)


def explained(registry: Registry, incident: Incident) -> Row:
    """Return what an incident's opening says of the verdict and its causes."""
    opened = incidents.timeline(registry, incident.id)[0].detail or {}
    return dict(opened.get("detail", {}))


def told(story: Story, registry: Registry, incident: Incident) -> list[Row]:
    """Print an incident's story, and return it for the result file."""
    print(story.run(f"the story of incident {incident.id}", "incident", "show", incident.id, "--registry", "registry"))
    return [
        {"at": moment(one.at), "what": one.what, "by": one.by, "said": one.said}
        for one in incidents.timeline(registry, incident.id)
    ]


# -- the acts ----------------------------------------------------------------------------------------------------------


def made(story: Story, name: str, number: int, data: str, *length: object) -> None:
    """Train, measure, fit, export, sketch and add a version, and embed the collection by it."""
    bundle, held = f"{name}/bundle", f"{data}-held.parquet"
    net = itertools.chain.from_iterable((f"--{option}", value) for option, value in NET.items())
    story.run(f"{name}: train", "train", f"{data}.parquet", *net, *length, *COLUMNS, "--out", name)
    story.run(f"{name}: fit a head", "fit", bundle, f"{data}.parquet", *COLUMNS)
    story.run(f"{name}: export", "export", bundle, held, "--head", "default", *COLUMNS)
    story.run(f"{name}: sketch", "sketch", bundle, held, "--form", "onnx", *COLUMNS)
    story.run(f"{name}: add to the registry", "registry", "add", bundle, NAME, "--registry", "registry")
    words = ("pictures", f"{NAME}@{number}", "old.parquet", "--previews", "--registry", "registry", *COLUMNS)
    story.run(f"{name}: embed the collection", "index", "rebuild", *words)


def promoted(story: Story, what: str, number: int, data: str, *more: str, status: int = 0) -> None:
    """Ask the gate to let a version serve."""
    gate = ("--gate", "gate.yaml", "--data", data, "--checks", "knn", *COLUMNS)
    words = ("registry", "promote", f"{NAME}@{number}", ALIAS, *gate, "--registry", "registry", *more)
    story.run(what, *words, status=status)


def watching(policy: str) -> Any:
    """Start the monitor with a policy."""
    words = ("monitor", f"{NAME}@{ALIAS}", "--watch", "watched", "--policy", policy, "--every", 1)
    return process(policy.partition(".")[0], *words, "--registry", "registry")


def drifts(story: Story, registry: Registry, clients: Clients, known: Sequence[Row], new: Sequence[Row]) -> Row:
    """Act one: the known vendors, the new one, an alarm that says so, a training, and peace."""
    peace, old = clients.now_of(known), f"{NAME}@1"
    calm = story.until(
        "the known vendors: three windows are judged",
        peace,
        lambda: (seen := judged(registry, old, peace))[2:] and seen,
        lambda seen: f"{alarms(seen)} of {len(seen)} alarmed",
    )
    quiet = newest(registry) is None
    began = clients.now_of(new)
    incident = story.until("the third vendor: until the alarm", began, lambda: newest(registry), lambda i: i.title)
    story.until(
        "the alarm: until the pipeline runs",
        incident_time(registry, incident, "opened"),
        lambda: incident_time(registry, incident, "running"),
    )
    started = incident_time(registry, incident, "running")
    story.until("the pipeline: until the alias moves", started, lambda: registry.now_at(NAME, ALIAS) == 2)
    moved = registry.log(NAME, ALIAS, 1)[0].at / 1e6
    story.until("until the service has followed", moved, lambda: clients.answered[f"{NAME}@2"])
    over = story.until(
        "until the incident is closed",
        moved,
        lambda: (now := incidents.incident(registry, incident.id)).closed and now,
    )
    usual = judged(registry, f"{NAME}@2", moved)
    return {
        "incident": over,
        "quiet": quiet,
        "calm": calm,
        "usual": usual,
        "verdict": explained(registry, incident),
        "detect": incident_time(registry, incident, "opened") - began,
        "retrain": moved - incident_time(registry, incident, "opened"),
        "recover": (over.closed or 0) / 1e6 - moved,
    }


def rolls_back(story: Story, registry: Registry, clients: Clients) -> Row:
    """Act two: an encoder that learnt next to nothing, of the old data, is let in by override, and taken back."""
    made(story, "old-again", 3, "old", "--steps", 1)
    data, why = "all-held.parquet", "it was fine in spring"
    promoted(story, "the gate refuses an encoder that learnt next to nothing", 3, data, "--why", why, status=3)
    refused = registry.now_at(NAME, ALIAS) == 2
    promoted(story, "an override lets it in", 3, data, "--override", "--why", why)
    moved = registry.log(NAME, ALIAS, 1)[0].at / 1e6
    incident = story.until(
        "until the alarm", moved, lambda: newest(registry, f"{NAME}@3"), lambda incident: incident.title
    )
    story.until("until it is rolled back", moved, lambda: registry.now_at(NAME, ALIAS) == 2)
    back = registry.log(NAME, ALIAS, 1)[0].at / 1e6
    before = clients.answered[f"{NAME}@2"]
    story.until("until the service has followed back", back, lambda: clients.answered[f"{NAME}@2"] > before)
    over = story.until(
        "until the incident is closed again",
        back,
        lambda: (now := incidents.incident(registry, incident.id)).closed and now,
    )
    return {
        "incident": over,
        "refused": refused,
        "detect": incident_time(registry, incident, "opened") - moved,
        "rollback": back - moved,
        "recover": (over.closed or 0) / 1e6 - back,
    }


def incident_time(registry: Registry, incident: Incident, what: str) -> float:
    """Return when something first happened to an incident, as of ``time.time()``; 0 if it has not."""
    happened = (one.at for one in incidents.timeline(registry, incident.id) if one.what == what)
    return next(happened, 0) / 1e6


def main() -> None:
    """Play both acts, and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    steps = 250 if quick else 800  # rather than minutes, as others compute here too
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    known, new = prepared()
    for name, text in {"gate": GATE, "retrains": RETRAINS, "rolls-back": ROLLS_BACK, "ci": plan(steps)}.items():
        (FOLDER / f"{name}.yaml").write_text(text)
    story, began = Story(), time.perf_counter()
    made(story, "first", 1, "old", "--steps", steps)
    promoted(story, "the gate lets the first one in", 1, "old-held.parquet", "--why", "the first")
    with Registry(FOLDER / "registry") as registry, service(story) as address, Clients(address, known) as clients:
        with watching("retrains.yaml"):
            first = drifts(story, registry, clients, known, new)
        with watching("rolls-back.yaml"):
            second = rolls_back(story, registry, clients)
        stories = [told(story, registry, act["incident"]) for act in (first, second)]
    story.run("the log", "registry", "log", NAME, "--registry", "registry")
    story.tell("all of it", time.perf_counter() - began)
    common.save(
        "watching" + ("_quick" if quick else ""),
        story.rows,
        asks(clients, first, second),
        incidents=stories,
        explanation=first["verdict"].get("explanation"),
        findings=first["verdict"].get("findings"),
        failed=clients.failed[:20],
        protocol=(
            f"two cores for all processes; {ASKERS} clients, {BATCH} items a request, windows of {WINDOW} s; "
            f"train {PARTS['train']:.0%} of the emoji, the rest held out; {steps} steps"
        ),
    )


def asks(clients: Clients, first: Row, second: Row) -> list[Row]:
    """Return what was asked and what came of it."""
    requests = sum(clients.answered.values()) + len(clients.failed)
    quiet, refused = first["quiet"], second["refused"]
    causes = first["verdict"].get("explanation", {}).get("causes", [])
    named = str(causes[0]["said"]) if causes else "nobody"
    embedded = [finding for finding in first["verdict"].get("findings", ()) if finding["what"] == "embeddings"]
    felt = min((float(finding["p"]) for finding in embedded), default=1.0)
    calm, usual = first["calm"], first["usual"]
    slowest = float(np.quantile(clients.seconds, 0.99))
    return [
        common.ask("requests that failed", "0", f"{len(clients.failed)} of {requests}", not clients.failed),
        common.ask("incidents while the known vendors were asked about", "0", "0" if quiet else "1", quiet),
        common.ask("windows of them that alarmed", "stated", f"{alarms(calm)} of {len(calm)}", None),
        common.ask("the first cause names the new vendor", NEW, named, NEW in named),
        common.ask("the embeddings alone tell it too, adjusted p", "< 0.01", felt, felt < 0.01),
        common.ask("third vendor: seconds until the alarm", "stated", round(first["detect"], 1), None),
        common.ask("alarm: seconds until a new version serves", "stated", round(first["retrain"], 1), None),
        common.ask("new version: seconds until the incident is closed", "stated", round(first["recover"], 1), None),
        common.ask("windows of the third vendor that alarmed then", "stated", f"{alarms(usual)} of {len(usual)}", None),
        common.ask("the gate refuses one that learnt next to nothing", "yes", "yes" if refused else "no", refused),
        common.ask("let in by override: seconds until the alarm", "stated", round(second["detect"], 1), None),
        common.ask("let in by override: seconds until it is rolled back", "stated", round(second["rollback"], 1), None),
        common.ask("rolled back: seconds until the incident is closed", "stated", round(second["recover"], 1), None),
        common.ask("99 of 100 requests took less than, seconds", "stated", round(slowest, 3), None),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
