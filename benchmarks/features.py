"""What a table of features costs: 100,000 entities with ten moments each, a join of 1,000,000 rows, a new encoder.

In Parquet and on PostgreSQL; the join beside pandas' merge_asof, which has to say the same of every row, and Arrow's
join_asof. A tenth of the texts are distinct, as orders or notes that come again are. The quick size has a tenth of it.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import common
import fastness as fs
from fastness.core.seeds import numpy_generator
from fastness.features.events import Events, events_of
from fastness.features.fill import add, backfill
from fastness.features.table import Features

MOMENTS, SPAN, DIM = 10, 365 * 86_400_000_000, 64
WORDS = ("red", "rose", "ruby", "wine", "fire", "coral", "cherry", "sea", "ship", "wave", "sail", "gull", "shore")


def seconds(call: Callable[[], Any], times: int = 1) -> tuple[float, Any]:
    """Return the median seconds of calls, and what the last gave."""
    took, found = [], None
    for _ in range(times):
        began = time.perf_counter()
        found = call()
        took.append(time.perf_counter() - began)
    return round(statistics.median(took), 2), found


def named(numbers: np.ndarray) -> pa.Array:
    """Return what entities are called."""
    return pa.array([f"customer-{number}" for number in numbers.tolist()], pa.large_string())


def drawn(entities: int, folder: Path) -> tuple[Events, pa.Array, np.ndarray]:
    """Return events, and the entities and moments of rows, which are kept for the peer as well."""
    lots = numpy_generator(0, "events")
    whose = np.repeat(np.arange(entities), MOMENTS)
    when = lots.integers(0, SPAN, len(whose))
    asked = lots.integers(0, round(entities * 1.05), len(whose))  # of some nothing is known
    at = lots.integers(0, SPAN, len(whose))
    np.savez(folder / "events.npz", entity=whose, time=when)
    np.savez(folder / "spine.npz", entity=asked, time=at)
    hashes = lots.integers(0, 256, (len(whose), 32), np.uint8)
    return events_of(named(whose), when, hashes), named(asked), at


def pandas(folder: Path) -> tuple[float, np.ndarray]:
    """Return the seconds that merge_asof takes, and the place of each row's event."""
    script = common.PEERS / "features_pandas.py"
    files = [folder / name for name in ("events.npz", "spine.npz", "found.npz")]
    subprocess.run([common.peer_python("features_pandas"), script, *files], check=True)
    with np.load(files[2]) as found:
        return round(float(found["seconds"]), 2), found["place"]


def arrow(events: Events, entities: pa.Array, times: np.ndarray) -> None:
    """Join with Arrow's join_asof."""
    left = pa.table({"entity": entities, "time": times}).sort_by("time")
    right = pa.table({"entity": events.entities, "time": events.times, "event": np.arange(len(events))})
    left.join_asof(right.sort_by("time"), on="time", by="entity", tolerance=-2 * SPAN)


def stored(address: str, drawn_: tuple[Events, pa.Array, np.ndarray], true: np.ndarray) -> dict[str, Any]:
    """Keep given vectors, a moment of all entities at a time, and join; the table is opened anew for each."""
    events, entities, times = drawn_
    vectors = numpy_generator(1, "vectors").normal(size=(len(events), DIM)).astype(np.float32)

    def kept() -> None:
        with Features.open(address, create=True) as table:
            encoding = table.enter("given", DIM, "given")
            for number in range(MOMENTS):
                part = np.arange(number, len(events), MOMENTS)
                table.put(encoding, events.take(part), vectors[part])

    def joined() -> Any:
        with Features.open(address) as table:
            return table.join(entities, times)

    put_s, _ = seconds(kept)
    join_s, found = seconds(joined, 3)
    given = found.place
    there = true >= 0
    equal = bool(((given >= 0) == there).all() and (found.vectors[given[there]] == vectors[true[there]]).all())
    return {"put_s": put_s, "join_s": join_s, "rows": len(times), "same_as_pandas": equal}


def written(path: Path, entities: int, days: range) -> Path:
    """Write a text of each entity on each day; of ten one is new."""
    lots = numpy_generator(2, "texts", days.start)
    rows = entities * len(days)
    words = lots.choice(WORDS, (rows, 3))
    which = lots.integers(0, max(1, rows // 10), rows) + days.start * rows
    first = np.datetime64("2026-01-01")
    with path.open("w") as file:
        file.write("customer,day,text\n")
        for row in range(rows):
            day = first + days.start + row % len(days)
            content = which[row]
            said = " ".join(words[content % rows])
            file.write(f"customer-{row // len(days)},{day},{said} {content}\n")
    return path


def encoded(address: str, encoders: list[Path], folder: Path, entities: int) -> dict[str, Any]:
    """Add texts, let a new encoder have what the first has, and do so again when little is new."""
    asked = {"entity": "customer", "time": "day", "text": "text"}
    texts = written(folder / "texts.csv", entities, range(MOMENTS))
    more = written(folder / "more.csv", max(1, entities // 10), range(MOMENTS, MOMENTS + 1))
    add_s, added = seconds(lambda: add(address, encoders[0], texts, **asked))
    backfill_s, filled = seconds(lambda: backfill(address, encoders[1]))
    nothing_s, nothing = seconds(lambda: backfill(address, encoders[1]))
    new = add(address, encoders[0], more, **asked)
    little_s, little = seconds(lambda: backfill(address, encoders[1]))
    assert (filled.events, nothing.events, little.events) == (added.events, 0, new.events)
    return {
        "add_s": add_s,
        "events": added.events,
        "embedded": added.embedded,
        "backfill_s": backfill_s,
        "backfill_embedded": filled.embedded,
        "backfill_of_nothing_s": nothing_s,
        "backfill_of_little_s": little_s,
        "little_events": little.events,
        "little_embedded": little.embedded,
        "new_embedded": new.embedded,
        "left": little.left,
    }


def trained(folder: Path) -> list[Path]:
    """Return two bundles of texts with vectors of 64 numbers; what they have learnt does not matter here."""
    lots = numpy_generator(3, "lines")
    lines = [" ".join(lots.choice(WORDS, 5)) + f" {i}" for i in range(500)]
    (folder / "lines.txt").write_text("\n".join(lines))
    options = {"encoder": "static", "width": DIM, "steps": 5, "batch_size": 64, "quiet": True}
    return [fs.train(folder / "lines.txt", out=folder / f"run{s}", seed=s, **options).bundle for s in (1, 2)]


def main() -> None:
    """Measure both stores, and write the result file."""
    import pgserver

    quick = common.arguments(__doc__ or "").quick
    entities = 10_000 if quick else 100_000
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fastness-features-") as place:
        folder = Path(place)
        given = drawn(entities, folder)
        pandas_s, true = pandas(folder)
        arrow_s, _ = seconds(lambda: arrow(*given))
        rows += [{"on": "pandas merge_asof", "join_s": pandas_s}, {"on": "Arrow join_asof", "join_s": arrow_s}]
        encoders = trained(folder)
        server = pgserver.get_server(folder / "postgres")
        stores = {"Parquet": str(folder / "{}"), "PostgreSQL": server.get_uri() + "&table={}"}
        for on, address in stores.items():
            row = {"on": on, **stored(address.format("given"), given, true)}
            row |= encoded(address.format("texts"), encoders, folder, entities)
            rows.append({**row, "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)})
        server.cleanup()
    asks = []
    for row in rows[2:]:
        on, same, took = row["on"], row["same_as_pandas"], f"{row['join_s']} s beside {pandas_s} s"
        embedded, new = row["little_embedded"], row["new_embedded"]
        asks += [
            common.ask(f"{on}: rows that pandas says the same of", "all", "all" if same else "not all", same),
            common.ask(f"{on}: a join from a table opened anew, pandas' in memory", "stated", took, None),
            common.ask(f"{on}: contents that a backfill embeds", f"the {new} new ones", embedded, embedded <= new),
        ]
    common.save("features" + ("_quick" if quick else ""), rows, asks, entities=entities, moments=MOMENTS, dim=DIM)


if __name__ == "__main__":
    main()
