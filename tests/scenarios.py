"""What a service is put through, in tests a few times and in ``benchmarks/switching.py`` as often as is published."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import fastness as fs
from conftest import fork
from fastness.registry import Registry
from fastness.registry.reindex import rebuild
from fastness.registry.tables import indexes, moves
from served import COLLECTION, YES, Clients, Made, Truth, listening, serving, start, until

NAME, ALIAS = "words", "production"
SPEC = f"{NAME}@{ALIAS}"
SEARCHING = ("--collection", COLLECTION)


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        times: how often it was done, by what was done.
        answered: right answers by version.
        wrong: what was wrong with others: a request that failed, an answer that mixes versions.
        seconds: that requests took.
        switched: seconds from the move of the alias to the first answer that names the version.
        broken: what else was not as it must be.
    """

    times: dict[str, int]
    answered: Mapping[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    switched: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def heard(self, clients: Clients) -> Outcome:
        """Take over what clients were told."""
        self.answered, self.wrong, self.seconds = clients.answered, clients.wrong, clients.seconds
        return self

    def held(self, holds: bool, said: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.broken.append(said)


def to(registry: Registry, number: int) -> None:
    """Let the alias name a version."""
    registry.promote(f"{NAME}@{number}", ALIAS, why=YES, override=True)


def other(lots: random.Random, now: int) -> int:
    """Return one of three versions that is not this one."""
    return lots.choice([number for number in (1, 2, 3) if number != now])


def switches_under_load(registry: Registry, truth: Truth, folder: Path, switches: int, rollbacks: int) -> Outcome:
    """Move an alias to and fro and back while clients ask without pause; every move is waited for."""
    lots, done = random.Random(1), Outcome({"switches": switches, "rollbacks": rollbacks})
    back = set(lots.sample(range(switches), rollbacks))  # after these switches
    plan = [what for turn in range(switches) for what in ("switch", "rollback") if what == "switch" or turn in back]
    with serving(SPEC, registry.address, folder, *SEARCHING) as service:
        with Clients(service.port, truth) as clients:
            now = 1
            for what in plan:
                began = time.perf_counter()
                if what == "switch":
                    now = other(lots, now)
                    to(registry, now)
                else:
                    now = int(registry.rollback(NAME, ALIAS, why=YES).number or 0)
                about = service.until(lambda about, now=now: about["version"] == f"{NAME}@{now}")
                done.switched.append(time.perf_counter() - began)
                done.held(about["index"] == truth.index[f"{NAME}@{now}"], f"{about['version']} with {about['index']}")
                done.held(about["trouble"] is None, f"trouble: {about['trouble']}")
                clients.progress()
        done.held(service.metric("fastness_behind") == 0, "behind")
        done.held(service.metric("fastness_serving") == 1, "several serve")
        refused = sum(service.metric("fastness_requests_total", status=status) for status in ("500", "503"))
        done.held(refused == 0, f"{refused} requests refused")
        seen = service.metric("fastness_switches_total", result="done") - 1
        done.held(seen == switches + rollbacks, f"{seen} switches")
    for line in service.lines:
        if line["event"] == "request" and line["index"] != truth.index[line["version"]]:
            done.broken.append(f"the log has {line}")
    return done.heard(clients)


def killed_services(registry: Registry, truth: Truth, folder: Path, times: int) -> Outcome:
    """Kill a service at random moments about a switch; when it is back it serves what the alias names."""
    lots, now, done = random.Random(2), 1, Outcome({"kills of the service": times})
    service = listening(start(SPEC, registry.address, folder, *SEARCHING))
    port = service.port
    with Clients(port, truth, 2, patient=True) as clients:
        for turn in range(times):
            now = other(lots, now)
            to(registry, now)
            time.sleep(lots.random() * 0.3)
            done.held(service.kill() == -signal.SIGKILL, "it ended before it was killed")
            service = listening(start(SPEC, registry.address, folder / str(turn), *SEARCHING, port=port))
            about = service.about()
            expected = (f"{NAME}@{now}", truth.index[f"{NAME}@{now}"])
            done.held((about["version"], about["index"]) == expected, f"came back with {about}, not {expected}")
            clients.progress(2)
    status = service.kill(signal.SIGTERM)
    done.held(status == 0, f"told to stop, it ended with {status}")
    return done.heard(clients)


def _rebuild(place: str, spec: str, data: str, columns: dict[str, str]) -> None:
    with Registry(place) as registry:
        rebuild(registry, spec, data, collection=COLLECTION, previews=True, **columns)


def killed_rebuilds(registry: Registry, made: Made, truth: Truth, folder: Path, times: int) -> Outcome:
    """Kill the making of an index for the next version at random moments, beside a service; then let it be made."""
    lots, base, done = random.Random(3), made.data.read_text(), Outcome({"kills of a rebuild": times})
    assert registry.folder is not None
    with serving(SPEC, registry.address, folder, *SEARCHING) as service:
        with Clients(service.port, truth, 1) as clients:
            for turn in range(times):
                data = folder / f"more{turn // 3}.csv"  # thrice the same, so that it goes on where it was
                data.write_text(base + "".join(f"\nred wine {turn // 3} {i},red,{i}" for i in range(3000)))
                process = fork(_rebuild, registry.address, f"{NAME}@2", str(data), dict(made.columns))
                time.sleep(lots.random() * 2)
                process.kill()
                process.join()
                done.held(service.about()["index"] == truth.index[f"{NAME}@1"], "what serves has changed")
            clients.progress()
        last = rebuild(registry, f"{NAME}@2", data, collection=COLLECTION, previews=True, **made.columns)
        done.held(last.items == 3240, f"{last} holds {last.items}")
        with registry.database.reading() as connection:
            rows = connection.execute(sa.select(indexes)).all()
        for row in rows:  # what is written down is whole, whenever who wrote it was killed
            with fs.Index.open(registry.folder / row.address) as index:
                done.held(len(index) == row.items, f"{row.collection}#{row.id}: {len(index)} of {row.items} items")
        to(registry, 2)
        service.until(lambda about: about["index"] == str(last))
    return done.heard(clients)


def _write_for_ever(address: str, folder: str, seed: int) -> None:
    """Add versions, promote them and go back, and write down what was acknowledged."""
    lots = random.Random(seed)
    with Registry(address) as registry, (Path(folder) / f"acknowledged-{seed}").open("w") as said:
        for turn in range(100_000):
            copy = Path(folder) / f"bundle-{seed}-{turn}"
            shutil.copytree(Path(folder) / "bundle", copy)
            (copy / "card.md").write_text(f"{seed} {turn}")
            version = registry.add(copy, NAME)
            shutil.rmtree(copy)
            said.write(f"version {version.number} {version.manifest}\n")
            said.flush()
            move = registry.promote(str(version), ALIAS, why=YES, override=True)
            said.write(f"move {move.id} {move.number}\n")
            said.flush()
            if lots.random() < 0.3:
                move = registry.rollback(NAME, ALIAS, why=YES)
                said.write(f"move {move.id} {move.number}\n")
                said.flush()


def killed_writers(registry: Registry, made: Made, folder: Path, times: int) -> Outcome:
    """Kill who adds, promotes and goes back at random moments, beside a service that follows the alias."""
    lots, done = random.Random(4), Outcome({"kills of a writer": times})
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(made.bundle, folder / "bundle")
    first = registry.find(SPEC).bundle
    with serving(SPEC, registry.address, folder) as service, _watched(service, done):
        for seed in range(times):
            process = fork(_write_for_ever, registry.address, str(folder), seed)
            before = len(registry.log())
            until(lambda before=before: len(registry.log()) > before)
            time.sleep(lots.random() * 0.3)
            process.kill()
            process.join()
        number = registry.now_at(NAME, ALIAS)
        service.until(lambda about: about["version"] == f"{NAME}@{number}")
    log = {move.id: move.number for move in registry.log()}
    kept = {version.number: version.manifest for version in registry.versions(NAME)}
    told = [line.split() for path in folder.glob("acknowledged-*") for line in _whole(path)]
    for what, one, two in told:
        there = kept.get(int(one)) == two if what == "version" else log.get(int(one)) == int(two)
        done.held(there, f"acknowledged and lost: {what} {one} {two}")
    done.times["acknowledged"] = len(told)
    with registry.database.reading() as connection:
        named = connection.execute(sa.select(moves.c.number).distinct()).scalars().all()
    for number in named:
        pulled = registry.pull(f"{NAME}@{number}", folder / f"pulled-{number}")
        done.held(fs.load(pulled).id in (first, made.encoder.about["bundle"]), f"{number} is another bundle")
        shutil.rmtree(pulled)
    done.times["versions that the alias named, pulled and loaded"] = len(named)
    return done


def _whole(path: Path) -> list[str]:
    """Return the lines of a file that end."""
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def _watched(service: Any, done: Outcome) -> Iterator[None]:
    """Note every trouble that a service says it has meanwhile."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            trouble = service.about()["trouble"]
            done.held(trouble is None, f"trouble: {trouble}")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
