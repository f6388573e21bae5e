"""How fast is a registry that has seen much: 10,000 versions, 100,000 moves of aliases, on SQLite and on PostgreSQL?

Rows are written straight into the tables, as ``restore`` does; what is timed are the registry's own calls. The quick
size has a tenth of it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import common
from fastness.core.seeds import numpy_generator
from fastness.registry import Registry
from fastness.registry.tables import aliases, moves, versions

NAMES, ALIASES = 50, ("production", "canary")
HOUR = 3_600_000_000  # microseconds


def filled(registry: Registry, listed: int, moved: int) -> None:
    """Write versions and moves: each move lets one alias name one version, an hour after the move before."""
    lots = numpy_generator(0, "moves")
    each = listed // NAMES
    row = {"files": 9, "bytes": 10_000_000, "by": "ann@host", "note": "retrained on last week's pictures"}
    rows = [
        {**row, "name": f"model-{i % NAMES}", "number": i // NAMES + 1, "at": i * HOUR, "manifest": f"{i:064x}"}
        for i in range(listed)
    ]
    gate = {"passed": True, "said": "the gate says yes: 40 judgements by 3 rules", "judgements": [{"rule": 1}] * 5}
    last: dict[tuple[str, str], dict[str, Any]] = {}
    history = []
    for i in range(moved):
        key = (f"model-{lots.integers(NAMES)}", ALIASES[lots.integers(2)])
        before = last.get(key, {}).get("number")
        told = {"what": "promote", "by": "ann@host", "why": "better", "gate": gate, "override": False, "at": i * HOUR}
        number = int(lots.integers(1, each + 1))
        last[key] = {"id": i + 1, "name": key[0], "alias": key[1], "before": before, "number": number, **told}
        history.append(last[key])
    with registry.database.writing() as connection:
        for start in range(0, listed, 1000):
            connection.execute(versions.insert(), [{**r, "bundle": r["manifest"]} for r in rows[start : start + 1000]])
        for start in range(0, moved, 1000):
            connection.execute(moves.insert(), history[start : start + 1000])
        named = [{**{k: m[k] for k in ("name", "alias", "number")}, "move": m["id"]} for m in last.values()]
        connection.execute(aliases.insert(), named)
        registry.database.count_on(connection, versions, moves)


def milliseconds(call: Callable[[int], Any], times: int) -> dict[str, float]:
    """Return median and 99th percentile of calls, each with another number."""
    found = []
    for number in range(times):
        began = time.perf_counter()
        call(number)
        found.append(1000 * (time.perf_counter() - began))
    return {"median_ms": round(statistics.median(found), 2), "p99_ms": round(float(np.quantile(found, 0.99)), 2)}


def measured(registry: Registry, where: str, moved: int) -> list[dict[str, Any]]:
    """Return a row for each call."""
    lots = numpy_generator(1, "asked")
    moments = lots.integers(0, moved * HOUR, 500).tolist()
    name = f"model-{NAMES // 2}"
    calls: dict[str, tuple[Callable[[int], Any], int]] = {
        "log --at": (lambda i: registry.serving(f"model-{i % NAMES}", moments[i]), 500),
        "find NAME@production": (lambda i: registry.find(f"model-{i % NAMES}@production"), 500),
        "log NAME, the last 30": (lambda i: registry.log(f"model-{i % NAMES}", limit=30), 100),
        "promote": (lambda i: registry.promote(f"{name}@{i % 20 + 1}", "canary", override=True, why="timed"), 50),
        "rollback": (lambda i: registry.rollback(name, "canary", why="timed"), 10),
    }
    return [{"on": where, "call": said, **milliseconds(call, times)} for said, (call, times) in calls.items()]


def main() -> None:
    """Fill, measure, and write the result file."""
    import pgserver

    quick = common.arguments(__doc__ or "").quick
    listed, moved = (1000, 10_000) if quick else (10_000, 100_000)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fastness-registry-") as place:
        server = pgserver.get_server(Path(place) / "postgres")
        for where, address in (("SQLite", str(Path(place) / "folder")), ("PostgreSQL", server.get_uri())):
            with Registry(address, str(Path(place) / "store") if "://" in address else None) as registry:
                filled(registry, listed, moved)
                rows += measured(registry, where, moved)
        server.cleanup()
    asks = [
        common.ask(
            f"log --at on {row['on']}", "< 50 ms", f"{row['median_ms']} ms, p99 {row['p99_ms']}", row["p99_ms"] < 50
        )
        for row in rows
        if row["call"] == "log --at"
    ]
    common.save("registry" + ("_quick" if quick else ""), rows, asks, versions_kept=listed, moves_kept=moved)


if __name__ == "__main__":
    main()
