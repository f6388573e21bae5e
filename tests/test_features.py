"""Features: what was known when is what a naive search finds, in folders and on PostgreSQL; kills lose nothing."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fastness as fs
from conftest import fork
from fastness.core.errors import BadInput
from fastness.data.frame import Frame, frame_of
from fastness.features import fill
from fastness.features.events import events_of, names_in
from fastness.features.fill import add, backfill
from fastness.features.moments import EARLIEST, LATEST, NEVER, moment, moments, span
from fastness.features.spine import join
from fastness.features.table import Features
from fastness.registry import Registry
from served import sentences

DIM = 4
DAY = 86_400_000_000
Fresh = Callable[[], str]


@pytest.fixture(params=["folder", "postgres"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    """Return what gives the address of a table that is not there yet."""
    if request.param == "folder":
        return lambda: str(tmp_path / f"table-{uuid.uuid4().hex}")
    server = request.getfixturevalue("server")
    return lambda: f"{server}&table=t{uuid.uuid4().hex}"


@pytest.fixture
def table(fresh: Fresh) -> str:
    """Return the address of one."""
    return fresh()


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the folders of two bundles of texts, whose vectors differ; not to be changed."""
    folder = tmp_path_factory.mktemp("encoders")
    (folder / "lines.txt").write_text("\n".join(f"{text} {i}" for i, text in enumerate(sentences(80))))
    options = {"encoder": "static", "width": 16, "steps": 3, "batch_size": 16, "quiet": True}
    return [fs.train(folder / "lines.txt", out=folder / f"{seed}", seed=seed, **options).bundle for seed in (1, 2)]


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """Return a file with 40 notes on 8 people, of which 10 texts are said four times each."""
    return write_notes(tmp_path / "seen.csv", range(40))


def write_notes(path: Path, days: range) -> Path:
    """Write a note a day; the texts repeat themselves after ten days."""
    said = sentences(10)
    first = datetime.date(2026, 1, 1)
    rows = [f"p{day % 8},{first + datetime.timedelta(day)},{said[day % 10]}" for day in days]
    path.write_text("\n".join(["who,when,text", *rows]) + "\n")
    return path


def sha(text: str) -> np.ndarray:
    """Return the SHA-256 of a text, uint8 ``[32]``."""
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)


def put(table: Features, version: str, rows: list[tuple[str, int, str]]) -> int:
    """Keep rows of entity, moment and content; a vector is a function of content and encoder."""
    encoding = table.enter(version, DIM, version)
    vectors = np.array([vector(version, content) for _, _, content in rows], np.float32).reshape(-1, DIM)
    hashes = np.array([sha(content) for _, _, content in rows], np.uint8).reshape(-1, 32)
    return table.put(encoding, events_of([e for e, _, _ in rows], [t for _, t, _ in rows], hashes), vectors)


def vector(version: str, content: str) -> list[float]:
    return (sha(version + content)[:DIM] / 7).astype(np.float32).tolist()


def rows_of(table: Features, version: str) -> dict[tuple[str, int], list[float]]:
    """Return all vectors of an encoder by entity and moment."""
    held = table.held(table.encoding(version))
    keys = zip(held.events.entities.to_pylist(), held.events.times.tolist(), strict=True)
    return dict(zip(keys, held.vectors(np.arange(len(held.events))).tolist(), strict=True))


def known(table: Features, entities: list[str | None], times: list[int], **asked: Any) -> list[tuple[Any, Any]]:
    """Return the moment and the vector that each row is given."""
    found = table.join(entities, times, **asked)
    return [(None, None) if p < 0 else (int(found.times[p]), found.vectors[p].tolist()) for p in found.place]


# --- what was known when --------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "ab", "ä", " a", "a/b", "'; drop table x", "日本", "𝕏", "a\nb\t\\"])
MOMENTS = st.one_of(st.integers(-5, 5), st.sampled_from([EARLIEST, LATEST]), st.integers(EARLIEST, LATEST))
HELD = st.dictionaries(st.tuples(NAMES, MOMENTS), st.sampled_from("xyz"), max_size=25)
ASKED = st.lists(st.tuples(st.none() | NAMES, st.just(NEVER) | MOMENTS), max_size=25)


@given(HELD, ASKED, st.none() | st.integers(0, 6), st.integers(1, 4))
@example({}, [("a", 0)], None, 1)
@example({("a", 0): "x"}, [("a", 0), ("a", -1), ("b", 0), (None, 0), ("a", NEVER)], 0, 1)
def test_a_join_is_a_naive_search(fresh, events, asked, max_age, parts):
    """Whatever was kept in whichever parts: the newest that is not later, and not too old."""
    with Features.open(fresh(), create=True) as table:
        rows = [(entity, at, content) for (entity, at), content in events.items()]
        table.enter("one", DIM, "one")
        assert sum(put(table, "one", rows[part::parts]) for part in range(parts)) == len(rows)
        found = known(table, [e for e, _ in asked], [t for _, t in asked], max_age=max_age)
        for (entity, at), (when, given_) in zip(asked, found, strict=True):
            past = [t for e, t in events if e == entity and t <= at and at != NEVER]
            past = [t for t in past if max_age is None or at - t <= max_age]
            assert when == max(past, default=None)
            assert given_ == (vector("one", events[entity, when]) if past else None)
        assert rows_of(table, "one") == {key: vector("one", content) for key, content in events.items()}


@given(HELD, HELD)
def test_what_another_encoder_alone_has_seen_is_not_passed_over(fresh, mine, theirs):
    theirs = {key: mine.get(key, content) for key, content in theirs.items()}
    asked = [(entity, at) for entity, at in [*mine, *theirs]]
    with Features.open(fresh(), create=True) as table:
        for version, events in (("one", mine), ("two", theirs)):
            table.enter(version, DIM, version)
            put(table, version, [(e, t, c) for (e, t), c in events.items()])
        missing = table.missing(table.encoding("one"))
        lacking = list(zip(missing.entities.to_pylist(), missing.times.tolist(), strict=True))
        assert sorted(lacking) == sorted(set(theirs) - set(mine))
        behind = sum(
            max((t for e, t in theirs if e == entity and t <= at), default=NEVER)
            > max((t for e, t in mine if e == entity and t <= at), default=NEVER)
            for entity, at in asked
        )
        names, times = [e for e, _ in asked], [t for _, t in asked]
        if behind:
            with pytest.raises(fs.BadInput, match=f"no vector yet of what {behind} rows would be given"):
                table.join(names, times, "one")
        assert table.join(names, times, "one", partial=True).behind == behind
        assert len(table.join(names, times, "two", partial=True).place) == len(asked)


def test_what_is_held_never_changes(table: str) -> None:
    with Features.open(table, create=True) as opened:
        assert put(opened, "one", [("a", 1, "x"), ("b", 1, "x"), ("a", 1, "x")]) == 2  # said twice is once
        assert put(opened, "one", [("a", 1, "x"), ("a", 2, "y")]) == 1
        before = rows_of(opened, "one")
        for version in ("one", "two"):
            with pytest.raises(fs.BadInput, match=r"entity 'a' at 1970-01-01 .* has other content here"):
                put(opened, version, [("c", 1, "z"), ("a", 2, "z")])
        with pytest.raises(fs.BadInput, match="two things are of entity 'd'"):
            put(opened, "one", [("d", 1, "x"), ("d", 1, "y")])
        assert rows_of(opened, "one") == before and rows_of(opened, "two") == {}
        assert put(opened, "two", [("a", 1, "x")]) == 1
    with Features.open(table, create=True) as again:  # made is made
        assert rows_of(again, "one") == before
        assert [(e["events"], e["missing"]) for e in again.show()] == [(3, 0), (1, 2)]


def test_many_rows_in_many_groups(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever sizes rows are read, sent and written in."""
    from fastness.features import folder, postgres

    monkeypatch.setattr(folder, "_GROUP", 7)
    monkeypatch.setattr(postgres, "_BLOCK", 11)
    lots = np.random.default_rng(0)
    rows = [(f"e{i % 20}", int(i), str(i)) for i in lots.permutation(300)]
    with Features.open(table, create=True) as opened:
        for start in range(0, 300, 60):
            put(opened, "one", rows[start : start + 60])
        held = opened.held(opened.encoding())
        places = lots.integers(0, 300, 500)  # in no order, and again
        true = [vector("one", str(t)) for t in held.events.times[places]]
        assert held.vectors(places).tolist() == true
        some = opened.held(opened.encoding(), pa.array(["e3", None, "nobody"]))
        assert set(some.events.entities.to_pylist()) == {"e3"} and len(some.events) == 15
        assert some.vectors(np.array([2])).tolist() == [vector("one", str(some.events.times[2]))]


def _putting(address: str, version: str, seed: int) -> None:
    with Features.open(address) as table:
        for number in np.random.default_rng(seed).permutation(8).tolist():
            put(table, version, [(f"e{i}", number, f"{i} {number}") for i in range(5)])


def test_two_who_write_at_once_lose_and_double_nothing(table: str) -> None:
    with Features.open(table, create=True) as opened:
        opened.enter("one", DIM, "one")
        writers = [fork(_putting, table, version, i) for i, version in enumerate(("one", "one", "two"))]
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers] == [0, 0, 0]
        true = {(f"e{i}", n): f"{i} {n}" for i in range(5) for n in range(8)}
        for version in ("one", "two"):
            assert len(opened.held(opened.encoding(version)).events) == 40
            assert rows_of(opened, version) == {key: vector(version, content) for key, content in true.items()}


# --- with encoders --------------------------------------------------------------------------------


def naive(bundle: Path, days: range) -> dict[tuple[str, int], np.ndarray]:
    """Return the vector of each note by person and moment."""
    said, first = sentences(10), datetime.date(2026, 1, 1)
    vectors = fs.load(bundle).embed([said[day % 10] for day in days])
    moments_ = [moment(str(first + datetime.timedelta(day))) for day in days]
    return {(f"p{day % 8}", at): v for day, at, v in zip(days, moments_, vectors, strict=True)}


def same(rows: dict[tuple[str, int], list[float]], true: dict[tuple[str, int], np.ndarray]) -> bool:
    return rows.keys() == true.keys() and all(np.allclose(rows[key], true[key], atol=1e-6) for key in true)


def test_each_content_is_embedded_once(table: str, encoders: list[Path], seen: Path, tmp_path: Path) -> None:
    one, two = encoders
    asked = {"entity": "who", "time": "when", "text": "text"}
    first = add(table, one, seen, **asked)
    assert (first.events, first.embedded, first.kept, first.left) == (40, 10, 0, 0)
    again = add(table, one, seen, **asked)
    assert (again.events, again.embedded, again.kept) == (0, 0, 40)
    write_notes(seen, range(50))  # ten days on; nothing new is said
    more = add(table, one, seen, **asked)
    assert (more.events, more.embedded, more.kept) == (10, 0, 40)

    other = write_notes(tmp_path / "other.csv", range(50, 60))
    new = add(table, two, other, **asked)
    assert (new.events, new.embedded, new.left) == (10, 10, 50)
    filled = backfill(table, two)
    assert (filled.events, filled.embedded, filled.left) == (50, 0, 0)  # all of it was said before
    assert backfill(table, one).events == 10
    assert backfill(table, one).events == 0
    with Features.open(table) as opened:
        for bundle in (one, two):
            assert same(rows_of(opened, fs.load(bundle).id), naive(bundle, range(60)))
        assert [source["data"] for source in opened.sources()] == [str(seen), str(other)]


def test_a_backfill_is_what_an_add_makes(fresh: Fresh, encoders: list[Path], seen: Path, tmp_path: Path) -> None:
    one, two = encoders
    here, there, asked = fresh(), fresh(), {"entity": "who", "time": "when", "text": "text"}
    add(here, one, seen, **asked)
    filled = backfill(here, two)
    assert (filled.events, filled.embedded, filled.left) == (40, 10, 0)
    add(there, two, seen, **asked)
    with Features.open(here) as first, Features.open(there) as second:
        number = fs.load(two).id
        assert rows_of(first, number) == rows_of(second, number)
    gone = fresh()
    moved = write_notes(tmp_path / "moved.csv", range(20))
    add(gone, one, moved, **asked)
    moved.unlink()
    said: list[str] = []
    left = backfill(gone, two, say=said.append)
    assert (left.events, left.left) == (0, 20) and "passed over" in said[0]


def test_a_frame_in_memory_and_items_of_one_moment(table: str, encoders: list[Path]) -> None:
    frame = {"who": ["a", "b", "", "d"], "text": ["red rose", "sea ship", "tide", ""]}
    made = add(table, fs.load(encoders[0]), frame, entity="who", at="2026-05-01T02:00+02:00", text="text")
    assert (made.events, made.undated, made.damaged) == (2, 1, 1)
    with Features.open(table) as opened:
        assert opened.sources() == [] and opened.encoding().names == (fs.load(encoders[0]).id[:12],)
        assert {t for _, t in rows_of(opened, str(opened.encoding()))} == {moment("2026-05-01")}


def _filling(address: str, bundle: str, data: str | None, said: str) -> None:
    """Add or fill in small steps, saying how far it has come."""
    fill.CHUNK = 1
    with Path(said).open("w") as told:

        def say(line: str) -> None:
            print(line, file=told, flush=True)
            time.sleep(0.01)

        if data is None:
            backfill(address, bundle, say=say)
        else:
            add(address, bundle, data, entity="who", time="when", text="text", say=say)


def test_killed_at_any_moment_it_goes_on_where_it_was(
    table: str, encoders: list[Path], seen: Path, tmp_path: Path
) -> None:
    said, lots = tmp_path / "said", np.random.default_rng(0)
    for bundle, data in ((encoders[0], str(seen)), (encoders[1], None)):
        embedded = 0
        for _ in range(4):
            said.write_text("")
            process = fork(_filling, table, str(bundle), data, str(said))
            lines = int(lots.integers(0, 3))
            while process.is_alive() and said.read_text().count("\n") < lines:
                time.sleep(0.001)
            time.sleep(float(lots.uniform(0, 0.02)))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            embedded += said.read_text().count(" embedded")
        if data is None:
            backfill(table, bundle)
        else:
            add(table, bundle, data, entity="who", time="when", text="text")
        with Features.open(table) as opened:
            held = opened.held(opened.encoding(fs.load(bundle).id))
            assert len(held.events) == 40  # once each
            assert same(rows_of(opened, fs.load(bundle).id), naive(bundle, range(40)))
        assert embedded <= 10  # what was said to be kept was not embedded again


def test_versions_of_a_registry(table: str, encoders: list[Path], seen: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        for bundle in encoders:
            registry.add(bundle, "notes")
        registry.promote("notes@2", "production", override=True, why="a test")
    asked = {"entity": "who", "time": "when", "text": "text", "registry": tmp_path / "registry"}
    assert str(add(table, "notes@1", seen, **asked).encoding) == "notes@1"
    assert str(backfill(table, "notes@production", registry=tmp_path / "registry").encoding) == "notes@2"
    assert add(table, encoders[0], seen, **asked).kept == 40  # the same encoder by another name
    spine = {"who": ["p1", "p1", "nobody"], "when": ["2026-01-02", "2026-01-01T23:59:59.999999", "2027-01-01"]}
    for version, bundle in zip(("notes@1", "notes@2"), encoders, strict=True):
        join(table, spine, tmp_path / "out.parquet", entity="who", time="when", version=version)
        rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
        true = naive(bundle, range(40))["p1", moment("2026-01-02")]
        assert np.allclose(rows[0]["vector"], true, atol=1e-6)
        assert [row["vector"] for row in rows[1:]] == [None, None]
        assert rows[0]["vector_time"] == datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


# --- files ----------------------------------------------------------------------------------------


def test_the_spine_keeps_its_rows_and_types(table: str, tmp_path: Path) -> None:
    with Features.open(table, create=True) as opened:
        put(opened, "one", [("7", 0, "x"), ("7", 2 * DAY, "y"), ("8", 0, "z")])
    spine = pa.table(
        {
            "customer": pa.array([7, 8, 7, None, 9, 7], pa.int64()),
            "at": pa.array([DAY, 9 * DAY, 2 * DAY, 0, 0, -1], pa.int64()).cast(pa.timestamp("us", "UTC")),
            "price": [1.5, None, 3.0, 4.0, 5.0, 6.0],
        }
    )
    pq.write_table(spine, tmp_path / "spine.parquet")
    out = tmp_path / "out.parquet"
    join(table, tmp_path / "spine.parquet", out, entity="customer", time="at", max_age="7d", called="seen")
    rows = pq.read_table(out)
    assert rows.select(spine.column_names).equals(spine)
    true = [vector("one", "x"), None, vector("one", "y"), None, None, None]
    assert rows["seen"].to_pylist() == true
    assert rows["seen_time"].cast(pa.int64()).to_pylist() == [0, None, 2 * DAY, None, None, None]
    join(table, spine.slice(0, 0), out, entity="customer", time="at")
    assert pq.read_table(out).num_rows == 0 and pq.read_schema(out).names[-2:] == ["vector", "vector_time"]


def test_any_tool_reads_the_table(table: str) -> None:
    with Features.open(table, create=True) as opened:
        put(opened, "one", [("a", DAY, "x")])
        put(opened, "two", [("a", DAY, "x")])
    if "://" in table:
        import psycopg

        server, name = table.split("&table=")
        with psycopg.connect(server) as connection:
            text = f"select entity, time, vector::real[], bundle from {name} join {name}_encodings on number = encoding"
            rows = sorted(connection.execute(text).fetchall(), key=lambda row: row[3])
    else:
        rows = [
            (row["entity"], row["time"], row["vector"], row["version"])
            for row in sorted(pq.read_table(table).to_pylist(), key=lambda row: row["version"])
        ]
    when = datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC)
    assert [(e, t.astimezone(datetime.UTC), b) for e, t, _, b in rows] == [("a", when, "one"), ("a", when, "two")]
    assert [v for _, _, v, _ in rows] == [pytest.approx(vector(b, "x")) for b in ("one", "two")]


def test_what_a_killed_writer_left_is_no_part(tmp_path: Path) -> None:
    with Features.open(tmp_path / "table", create=True) as opened:
        put(opened, "one", [("a", 1, "x")])
        left = tmp_path / "table" / "version=one" / ".part-1.parquet.tmp"
        left.write_bytes(b"half")
        assert len(rows_of(opened, "one")) == 1
        put(opened, "one", [("a", 2, "x")])
        assert not left.exists()
        next((tmp_path / "table" / "version=one").glob("part-*")).write_bytes(b"damaged")
    with Features.open(tmp_path / "table") as opened, pytest.raises(fs.Failure, match="restore it"):
        rows_of(opened, "one")


# --- moments --------------------------------------------------------------------------------------


@given(st.lists(st.datetimes(timezones=st.just(datetime.UTC)) | st.none(), max_size=8), st.sampled_from("TZ "))
def test_moments_are_those_of_the_calendar(listed, style):
    zero = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    texts = [d and (d.isoformat(sep=" ")[:-6] if style == " " else d.isoformat()) for d in listed]
    texts = [t and t.replace("+00:00", "Z") if style == "Z" else t for t in texts]
    frame = Frame({"when": pa.array(texts, pa.large_string())}, [f"row {i}" for i in range(len(texts))])
    step = datetime.timedelta(microseconds=1)
    assert moments(frame, "when").tolist() == [NEVER if d is None else (d - zero) // step for d in listed]


@given(st.integers(-(10**18), 10**18), st.integers(0, 10**9))
def test_what_is_finer_than_a_microsecond_never_looks_ahead(row, later):
    """An event that is later than a row, be it by a nanosecond, is not known at the row."""
    event = row + later
    frames = [frame_of(pa.table({"t": pa.array([at], pa.timestamp("ns"))})) for at in (event, row)]
    first, then = moments(frames[0], "t", late=True)[0], moments(frames[1], "t")[0]
    assert (first > then) or event <= row
    assert then == row // 1000 and first == -(-event // 1000)
    seconds = [frame_of({"t": [f"{at // 10**9}.{at % 10**9:09}"]}) for at in (abs(event), abs(row))]
    assert moments(seconds[0], "t", late=True)[0] == -(-abs(event) // 1000)
    assert moments(seconds[1], "t")[0] == abs(row) // 1000


@pytest.mark.parametrize(
    ("texts", "unit", "true"),
    [
        (["20260102", "19700101"], None, ["2026-01-02", "1970-01-01"]),
        (["20260102", "3"], None, ["1970-08-23 11:48:22", "1970-01-01 00:00:03"]),
        (["20260102"], "s", ["1970-08-23 11:48:22"]),
        (["1767312000000"], "ms", ["2026-01-02"]),
        (["2026-01-02", "2026-01-02T02:00+02:00", "NA", " "], None, ["2026-01-02", "2026-01-02", None, None]),
        (["0.5", "-1"], None, ["1970-01-01 00:00:00.5", "1969-12-31 23:59:59"]),
        (["1767312000", "NA"], None, ["2026-01-02", None]),
        (["1.767312e+12", "n/a"], "ms", ["2026-01-02", None]),
    ],
)
def test_numbers_and_dates(texts, unit, true):
    found = moments(frame_of({"t": texts}), "t", unit)
    assert found.tolist() == [NEVER if t is None else moment(t) for t in true]


def test_spans() -> None:
    assert [span(text) for text in ("90s", "1.5h", "30d", "2 w")] == [90_000_000, 5_400_000_000, 30 * DAY, 14 * DAY]


# --- refusals and the command line ----------------------------------------------------------------


def test_refusals_are_one_line(table: str, encoders: list[Path], seen: Path, tmp_path: Path) -> None:
    one, asked = encoders[0], {"entity": "who", "time": "when", "text": "text"}
    out = tmp_path / "out.parquet"
    with pytest.raises(fs.BadInput, match="no features here; make a table with"):
        Features.open(table)
    add(table, one, seen, **asked)
    twice, odd, broken = tmp_path / "twice.csv", tmp_path / "odd.csv", tmp_path / "broken.csv"
    twice.write_text("who,when,text\np1,2030-01-01,red rose\np1,2030-01-01,sea ship\n")
    odd.write_text("who,when,text\np1,soon,red rose\np2,2030-01-01,sea\n")
    broken.write_text("who,when\np1,2030-01-01\np2\np3,2030-01-01\n")
    with Features.open(table) as opened:
        encoding = opened.encoding()
        one_event = events_of(["a"], [1], np.zeros((1, 32), np.uint8))
        cases: list[tuple[Callable[[], Any], str]] = [
            (lambda: add(table, one, seen, entity="who"), "--time COLUMN"),
            (lambda: add(table, one, seen, entity="who", time="when", at="2026-01-01"), "--at MOMENT"),
            (lambda: add(table, one, seen, **{**asked, "entity": "whom"}), "no column 'whom'; columns: who, when"),
            (lambda: add(table, one, twice, **asked), "two things are of entity 'p1' at 2030-01-01"),
            (lambda: add(table, one, odd, **asked), "column 'when', line 2: 'soon' is no moment"),
            (lambda: add(table, one, odd, **asked, unit="h"), "unit 'h' of a moment is not known; known: s, ms, us"),
            (lambda: add(table, one, odd, **asked, unit="s"), "leave --unit out for dates"),
            (lambda: add(table, one, seen, entity="who", at="", text="text"), "is no moment"),
            (lambda: add(table, tmp_path / "nowhere", seen, **asked), "nowhere"),
            (lambda: join(table, seen, tmp_path / "out.csv", entity="who", time="when"), "ends in .parquet"),
            (lambda: join(table, seen, out, entity="who", time="when", called="text"), "has a column 'text' already"),
            (lambda: join(table, seen, out, entity="who", time="when", version="photos@9"), "no vectors of 'photos@9'"),
            (lambda: join(table, seen, out, entity="who", time="when", max_age="soon"), "is no span of time"),
            (lambda: join(table, broken, out, entity="who", time="when"), "line 3: 1 cells .*mend it"),
            (lambda: moments(frame_of({"t": ["9999999999999"]}), "t"), "beyond the year 9999.*--unit ms"),
            (lambda: opened.put(encoding, one_event, np.full((1, encoding.dim), np.nan)), "not finite"),
            (lambda: opened.put(encoding, one_event, np.zeros((1, 3))), "of shape"),
            (lambda: opened.enter(encoding.bundle, 3, "other"), "numbers here, not 3"),
            (lambda: opened.enter("another", 3, str(encoding)), "is another encoder here"),
            (lambda: opened.enter("../up", 3, "up") if "://" not in table else opened.enter("", 3, "up"), "id"),
            (lambda: opened.join(["a"], [1, 2]), "1 entities and 2 moments"),
            (lambda: events_of([""], [1], np.zeros((1, 32))), "has no name"),
            (lambda: events_of(["a\0"], [1], np.zeros((1, 32))), "NUL"),
            (lambda: events_of(["a"], [LATEST + 1], np.zeros((1, 32))), "years 1 to 9999"),
            (lambda: events_of(["\ud800"], [1], np.zeros((1, 32))), "entities are texts"),
            (lambda: events_of(["a"], [1, 2], np.zeros((1, 32))), "give one each"),
            (lambda: backfill(tmp_path / "nowhere", one), "no features here"),
            (lambda: Features.open(tmp_path, create=True), "something else in it"),
            (lambda: Features.open("postgresql://ann:secret@host/d?table=T"), "small letters"),
        ]
        for call, said in cases:
            with pytest.raises(fs.BadInput, match=said) as told:
                call()
            assert "\n" not in str(told.value) and "secret" not in str(told.value)
        assert len(rows_of(opened, str(encoding))) == 40 and not out.exists()
        backfill(table, encoders[1])
        with pytest.raises(fs.BadInput, match="say of which encoder"):
            opened.join(["a"], [1])


def test_the_command_line(fastness, encoders: list[Path], seen: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        for bundle in encoders:
            registry.add(bundle, "notes")
    asked = ["--entity", "who", "--time", "when"]
    made = fastness("features", "add", "table", "notes@1", "seen.csv", *asked, "--text", "text", "--json")
    assert made.status == 0 and "10 of 10 embedded" in made.err, made.err
    assert json.loads(made.out)["events"] == 40
    filled = fastness("features", "backfill", "table", "notes@2")
    assert filled.status == 0 and "40 events of notes@2, 10 embedded" in filled.out
    joined = ["features", "join", "table", "seen.csv", *asked]
    told = fastness(*joined, "--out", "out.parquet", "--version", "notes@2", "--max-age", "1d", "--json")
    assert told.status == 0 and json.loads(told.out)["known"] == 40, told.err
    assert pq.read_table(tmp_path / "out.parquet")["vector_time"][3].as_py().isoformat() == "2026-01-04T00:00:00+00:00"
    refused = fastness(*joined, "--out", "out.parquet")
    assert refused.status == 2 and refused.err.startswith("fastness: table: say of which encoder (--version)")
    listed = json.loads(fastness("features", "list", "table", "--json").out)["encoders"]
    assert [(e["version"], e["events"], e["entities"], e["missing"]) for e in listed] == [
        ("notes@1", 40, 8, 0),
        ("notes@2", 40, 8, 0),
    ]
    assert "notes@1" in fastness("features", "list", "table").out


def test_a_table_needs_no_torch() -> None:
    names = ("", ".table", ".folder", ".postgres", ".spine", ".fill")
    code = f"import sys, {', '.join(f'fastness.features{n}' for n in names)}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_whole_numbers_that_became_floats_name_the_same_entities(table: str, tmp_path: Path) -> None:
    with Features.open(table, create=True) as opened:
        put(opened, "one", [("7", 0, "x"), ("12345678901", 0, "y")])
    floats = pa.table({"who": pa.array([7.0, None, 12345678901.0], pa.float64()), "at": pa.array([DAY] * 3)})
    found = join(table, floats, tmp_path / "out.parquet", entity="who", time="at", unit="us")
    assert (found.place >= 0).tolist() == [True, False, True]
    assert names_in(pa.array(["007", "1.5", None])).to_pylist() == ["007", "1.5", None]


def test_an_age_that_is_too_old_is_no_gap(table: str) -> None:
    with Features.open(table, create=True) as opened:
        put(opened, "old", [("a", 0, "x")])
        put(opened, "new", [("b", 9 * DAY, "y")])
        with pytest.raises(BadInput, match="no vector yet"):
            opened.join(["a", "b"], [10 * DAY] * 2, "new")
        assert known(opened, ["a", "b"], [10 * DAY] * 2, version="new", max_age=2 * DAY)[0] == (None, None)
