"""Tables: reading what people have, schemas, coded cells, SCARF's views, encoders, and the whole way to a bundle."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastness as fs
from conftest import PIXELS, Ended, write_parquet
from fastness.core.errors import BadInput
from fastness.core.seeds import torch_generator
from fastness.data import open_data
from fastness.data.frame import frame_of, read_frame
from fastness.data.learn import learn
from fastness.data.schema import Category, Date, Ignored, Number, Schema
from fastness.data.table import TableItems, coded
from fastness.data.values import days, number
from fastness.encoders import build, modality
from fastness.encoders.table import TableEncoder, TableSpec
from fastness.views.table import TableView, TableViews

NAMES = ("age", "pay", "job", "since", "gap")
JOBS = ("baker", "smith", "cook")


def people(n: int = 120, seed: int = 0) -> dict[str, list[str | None]]:
    """Return columns of every kind, some cells missing, and a label that two of them decide."""
    draw = np.random.default_rng(seed)
    age, job = draw.integers(18, 70, n), draw.integers(0, 3, n)
    return {
        "age": [str(a) for a in age],
        "pay": [f"{p:,.2f} €" for p in draw.lognormal(8, 1, n)],
        "job": [JOBS[j] for j in job],
        "since": [f"20{y:02}-{m:02}-{d:02}" for y, m, d in draw.integers(1, 13, (n, 3))],
        "gap": [
            None if lost else f"{v:.3f}" for lost, v in zip(draw.random(n) < 0.3, draw.normal(size=n), strict=True)
        ],
        "label": ["old" if a > 40 + 5 * j else "young" for a, j in zip(age, job, strict=True)],
    }


def write_csv(path: Path, columns: dict[str, list[str | None]], **style: str) -> Path:
    """Write columns as a delimited file."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, **style)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of `people`; not to be changed."""
    return write_csv(tmp_path_factory.mktemp("table") / "people.csv", people())


@pytest.fixture(scope="session")
def items(table: Path) -> TableItems:
    """The rows of `table` as numbers."""
    dataset = open_data(table)
    return coded(dataset, learn(dataset.payloads.frame))


def encoder(schema: Schema, name: str = "mlp") -> TableEncoder:
    """Return a small encoder in eval mode, its batch statistics not those it starts with."""
    torch.manual_seed(0)
    made = build(TableSpec(name, schema, {"width": 32, "layers": 2}))
    with torch.no_grad():
        for part in made.modules():
            if isinstance(part, torch.nn.BatchNorm1d):
                part.running_mean.normal_(std=0.1)
                part.running_var.uniform_(0.5, 2)
    return made.eval()


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "first", "columns"),
    [
        ("adult_train.csv", 32561, "c0", 15),
        ("adult_test.csv", 16281, "c0", 15),
        ("german_credit.csv", 1000, "c0", 21),
        ("mall_customers.csv", 200, "CustomerID", 5),
        ("marketing_campaign.tsv", 2240, "ID", 29),
        ("telco_churn.csv", 7043, "customerID", 21),
    ],
)
def test_real_files_open(shared_data: Path, name: str, rows: int, first: str, columns: int) -> None:
    frame = read_frame(shared_data / "table" / name)
    assert (len(frame), next(iter(frame.columns)), len(frame.columns)) == (rows, first, columns)
    assert not frame.quarantine
    schema = learn(frame)
    found = schema.code(frame)
    assert found.cells.shape == (rows, len(schema.used)) and not np.isinf(found.cells).any()
    assert not found.outside and not found.unreadable


def test_half_a_million_rows_open(shared_data: Path) -> None:
    frame = read_frame(shared_data / "table" / "online_retail.csv.gz")
    assert len(frame) == 541_909 and not frame.quarantine
    assert frame["Country"].unique().to_pylist()[0] == "United Kingdom"


def test_real_columns_are_what_they_are(shared_data: Path) -> None:
    campaign = learn(read_frame(shared_data / "table" / "marketing_campaign.tsv")).columns
    assert isinstance(campaign["Dt_Customer"], Date) and campaign["Dt_Customer"].order == "ymd"
    assert isinstance(campaign["Education"], Category) and len(campaign["Education"].values) == 5
    assert isinstance(campaign["ID"], Ignored) and isinstance(campaign["Z_Revenue"], Ignored)
    churn = learn(read_frame(shared_data / "table" / "telco_churn.csv")).columns
    assert isinstance(churn["customerID"], Ignored)
    charges = churn["TotalCharges"]
    assert isinstance(charges, Number) and charges.missing == pytest.approx(11 / 7043, abs=1e-5)


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252")
CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8).filter(lambda s: s.strip() == s)


@given(
    rows=st.lists(st.tuples(st.integers(0, 999), CELLS, CELLS), min_size=3, max_size=20),
    delimiter=st.sampled_from(",;\t|"),
)
def test_what_csv_writes_is_read(tmp_path: Path, rows: list[tuple[int, str, str]], delimiter: str) -> None:
    path = tmp_path / "file.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter=delimiter, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["number", "one", "other"])
        writer.writerows(rows)
    frame = read_frame(path)
    assert list(frame.columns) == ["number", "one", "other"]
    assert list(zip(*(frame.texts(name) for name in frame.columns), strict=True)) == [
        (str(n), a, b) for n, a, b in rows
    ]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("packed", [False, True])
def test_encodings(tmp_path: Path, encoding: str, packed: bool, caplog: pytest.LogCaptureFixture) -> None:
    content = ("name;size\n" + "Zoë;1,5\nMüller;2\n" * 20).encode(encoding)
    path = tmp_path / ("file.csv.gz" if packed else "file.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_frame(path).texts("name")[:2] == ["Zoë", "Müller"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (encoding == "cp1252") and all("line 2" in text and str(path) in text for text in said)


def test_quotes_that_hold_lines(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text('id,text\n1,"two\nlines, ""quoted"""\n2,one\n')
    frame = read_frame(path)
    assert frame.texts("text") == ['two\nlines, "quoted"', "one"]
    assert frame.names == ["line 2", "line 4"]


@pytest.mark.parametrize("stray", ['7,"never closed', '7,"never closed,1,2'])
def test_a_stray_quote_swallows_one_line(tmp_path: Path, stray: str) -> None:
    lines = [f'{i},"text {i}"' for i in range(2000)]
    lines[700] = stray
    path = tmp_path / "file.csv"
    path.write_text("id,text\n" + "\n".join(lines))
    frame = read_frame(path)
    assert [q.name for q in frame.quarantine] == ["line 702"]
    assert frame.texts("id") == [str(i) for i in range(2000) if i != 700]


def test_too_many_stray_quotes_are_said(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("id,text\n" + '1,"open\n2,b\n' * 150)
    with pytest.raises(BadInput, match=r"file\.csv: line \d+: the 101th quote"):
        read_frame(path)


def test_ragged_rows_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("a,b,c\n1,2,3\n\n4,5\n6,7,8,\n9,9,9,9\n   \n5,5,5\n" + "1,1,1\n" * 20)
    frame = read_frame(path)
    assert [(q.name, q.reason) for q in frame.quarantine] == [
        ("line 4", "2 cells where the columns are 3"),
        ("line 6", "4 cells where the columns are 3"),
    ]
    assert frame.texts("a")[:4] == ["1", "6", "5", "1"]
    opened = open_data(path)
    assert len(opened) == 23 and len(opened.quarantine) == 2


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2\n3,4\n", ["c0", "c1"]),
        ("2024-01-01,x\n2024-01-02,y\n", ["c0", "c1"]),
        ("a,a,,b\n1,2,3,4\n", ["a", "a_2", "c2", "b"]),
        ("A plane is taking off.,An air plane takes off.\nA man plays a flute.,A man is playing it.\n", ["c0", "c1"]),
        ("ham\tok then\nspam\tfree\nham\tsee you\n", ["c0", "c1"]),
        ("text\nhello, you\nbye\n", ["text"]),
        ("\ufeffid;x\n1;2\n", ["id", "x"]),
    ],
)
def test_header_or_not(tmp_path: Path, text: str, names: list[str]) -> None:
    path = tmp_path / "file.csv"
    path.write_text(text)
    assert list(read_frame(path).columns) == names


def test_flags_are_the_same_whatever_holds_them(tmp_path: Path) -> None:
    flags = [True, False, None, True]
    columns = {"paid": flags, "n": [1, 2, 3, 4]}
    lines = tmp_path / "x.jsonl"
    lines.write_text(
        "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in zip(*columns.values(), strict=True))
    )
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    forms = [columns, pa.table(columns), Pandas(columns), {"paid": [np.True_, np.False_, None, np.True_]}]
    frames = [*map(frame_of, forms), read_frame(lines), read_frame(tmp_path / "x.parquet")]
    assert [frame.texts("paid") for frame in frames] == [["true", "false", None, "true"]] * len(frames)


@pytest.mark.parametrize("values", [("True", "False"), ("true", "false"), ("True", "true", "False", "false")])
def test_flags_are_found_where_the_training_rows_wrote_them_as_python_does(values: tuple[str, ...]) -> None:
    schema = Schema({"paid": Category(values=values)})
    found = schema.code(frame_of({"paid": [True, False, *values, "TRUE"]}))
    flags = [values.index(flag if flag in values else flag.title()) for flag in ("true", "false")]
    assert found.cells[:, 0].tolist() == [*flags, *range(len(values)), len(values)]
    assert found.unseen == {"paid": 1}


def test_odd_content_opens(tmp_path: Path) -> None:
    long = "x" * (1 << 20)
    path = tmp_path / "file.csv"
    path.write_bytes(f"a,b\n1,{long}\n2,\0y\0\n3,z\r\n".encode())
    frame = read_frame(path)
    assert frame.texts("b") == [long, "y", "z"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.csv", b"", "holds no rows"),
        ("blank.csv", b"\n \n", "holds no rows"),
        ("cut.csv.gz", gzip.compress(b"a,b\n" * 9999, mtime=0)[:40], "no whole gzip"),
        ("none.jsonl", b"not json\n", "no usable rows; 1 unreadable, e.g. line 1"),
        ("one.parquet", b"PAR1", "not readable as Parquet"),
    ],
)
def test_unusable_files_are_said_in_a_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=said) as caught:
        open_data(str(tmp_path / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": "x"}, {"b": None, "c": [1, 2]}, {"a": True, "c": float("nan")}]
    path = tmp_path / "file.jsonl.gz"
    path.write_bytes(gzip.compress(("\n".join(map(json.dumps, rows)) + "\n\n[1]\n{oops\n" + "[" * 9999).encode()))
    frame = read_frame(path)
    assert {n: frame.texts(n) for n in frame.columns} == {
        "a": ["1", None, "true"],
        "b": ["x", None, None],
        "c": [None, "[1, 2]", None],
    }
    assert [q.name for q in frame.quarantine] == ["line 5", "line 6", "line 7"]


@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "txt", "jsonl", "csv.gz"]))
def test_any_bytes_are_rows_or_one_line(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / f"file.{kind}"
    path.write_bytes(content)
    try:
        frame = read_frame(path)
    except BadInput as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    assert {len(cells) for cells in frame.columns.values()} <= {len(frame)}


@settings(max_examples=300)
@given(st.text(st.sampled_from('ab",;\t\n\r'), max_size=60))
def test_no_line_is_lost(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.csv"
    text = f"x,y\n{text}"
    path.write_text(text, newline="")
    frame = read_frame(path)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    numbers = [int(name.split()[1]) for name in frame.names + [q.name for q in frame.quarantine]]
    assert len(set(numbers)) == len(numbers) and all(1 <= n <= len(lines) for n in numbers)
    inside = sum(
        cell.count("\n") + cell.count("\r") - cell.count("\r\n") for c in frame.columns for cell in frame.texts(c)
    )
    filled = sum("a" in line or "b" in line for line in lines)
    assert len(numbers) + inside + 1 >= filled  # all but the header


class Pandas:
    """What a pandas data frame is to the reader."""

    def __init__(self, columns: dict[str, list[object]]) -> None:
        self.columns, self.iloc = list(columns), self
        self._arrays = [np.array(values, object) for values in columns.values()]

    def __len__(self) -> int:
        return len(self._arrays[0])

    def __getitem__(self, key: tuple[slice, int]) -> np.ndarray:
        return self._arrays[key[1]]


@pytest.mark.parametrize(
    "make",
    [
        lambda c: c,
        Pandas,
        pa.table,
        lambda c: [dict(zip(c, row, strict=True)) for row in zip(*c.values(), strict=True)],
    ],
)
def test_objects_are_one(make: Callable[[dict[str, list[object]]], object]) -> None:
    columns: dict[object, list[object]] = {"a": [1, 2, 3], "b": ["x", None, "y"], "c": [0.5, math.nan, 1e300]}
    frame = frame_of(make(columns))
    assert frame.texts("b") == ["x", None, "y"]
    assert [number(t or "") for t in frame.texts("c")] == [0.5, None, 1e300]
    assert open_data(make(columns)).modality == "table"


def test_odd_objects() -> None:
    frame = frame_of([{0: 1, "x\ud800": "\ud800"}, {0: None, "0": 5}])
    assert {name: frame.texts(name) for name in frame.columns} == {
        "0": ["1", None],
        "x\uffff": ["\uffff", None],
        "0_2": [None, "5"],
    }
    assert len(frame_of(pa.table({"a": pa.array([], pa.int8())}))) == 0
    assert frame_of(pa.table({"a": pa.array(["x\0", None]).dictionary_encode()})).texts("a") == ["x", None]
    for wrong in (5, "text", {"a": 1}, {"a": [1], "b": [1, 2]}, np.zeros((2, 2, 2))):
        with pytest.raises(BadInput):
            frame_of(wrong)


def test_files_of_one_content_have_one_fingerprint(tmp_path: Path) -> None:
    columns = people(30)
    by_name = {
        "comma": write_csv(tmp_path / "a.csv", columns),
        "tab": write_csv(tmp_path / "b.tsv", columns, delimiter="\t"),
    }
    prints = {name: open_data(path).fingerprint for name, path in by_name.items()}
    assert prints["comma"] == prints["tab"]
    columns["age"][3] = "999"
    assert open_data(write_csv(tmp_path / "c.csv", columns)).fingerprint != prints["comma"]


# --- what a file is opened as ---------------------------------------------------------------------


def test_roles_are_taken_out(tmp_path: Path) -> None:
    columns = people(40)
    columns["who"] = [str(i // 2) for i in range(40)]
    columns["split"] = ["train"] * 30 + ["val"] * 10
    columns["score"] = ["1.5", "", "n/a", "high", *["0"] * 36]
    opened = open_data(write_csv(tmp_path / "a.csv", columns), group="who", score="score")
    assert set(opened.payloads.frame.columns) == set(NAMES)
    assert opened.class_names == ("old", "young") and opened.split_names == ("train", "validation")
    assert len(opened) == 39 and opened.quarantine[0].reason == "the score 'high' is no number"
    assert opened.manifest.scores is not None
    np.testing.assert_array_equal(opened.manifest.scores[:3], [1.5, np.nan, np.nan])
    plain = open_data(tmp_path / "a.csv", label="none", split="none")
    assert {"label", "split"} <= set(plain.payloads.frame.columns) and plain.labels is None
    with pytest.raises(BadInput, match="no column 'nobody'; columns: age"):
        open_data(tmp_path / "a.csv", label="nobody")


@pytest.mark.parametrize("values", [["Training", "PrivateTest"], ["", ""], ["1", "2"]])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_split_that_holds_nothing_out_is_refused(tmp_path: Path, kind: str, values: list[str]) -> None:
    columns = {"x": [str(i) for i in range(20)], "usage": values * 10}
    path = tmp_path / f"x.{kind}"
    if kind == "csv":
        write_csv(path, columns)
    else:
        pq.write_table(pa.table(columns), path)
    with pytest.raises(BadInput, match=r"--split usage says .* of no item \(.*\); rename") as refused:
        open_data(path, split="usage")
    assert (values[0] or "nothing") in str(refused.value) and "\n" not in str(refused.value)
    assert open_data(path).split_names == open_data(path, split="none").split_names == ()


@pytest.mark.parametrize("asked", [{}, {"text": "said"}])
def test_a_label_that_says_nothing_is_none(tmp_path: Path, asked: dict[str, str]) -> None:
    labels = ["cat", "NA", "dog", "", "NaN", "n/a", "cat", "null"]
    columns = {"said": [f"x{i}" for i in range(8)], "size": [str(i) for i in range(8)], "label": labels}
    opened = open_data(write_csv(tmp_path / "x.csv", columns), **asked)
    assert opened.class_names == ("cat", "dog") and len(opened.labelled()) == 3
    assert opened.manifest.summary()["classes"] == {"(unlabelled)": 5, "cat": 2, "dog": 1}


def test_a_column_that_is_asked_for_is_no_label_too(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("source,target,class\n" + "".join(f"one {i},two {i},{i % 2}\n" for i in range(9)))
    assert open_data(path, text="source,target").class_names == ("0", "1")
    assert open_data(path, text="source,target", group="class").labels is None
    beside = open_data((pa.table({"a": list(range(9)), "class": ["u"] * 9}), ["k", "l", "l"] * 3))
    assert beside.class_names == ("k", "l")


def test_texts_are_recognised(tmp_path: Path) -> None:
    said = [f"the {a} cat sat on a mat number {i}" for i, a in enumerate(["old", "big", "red", "shy"])]
    assert open_data({"text": said, "kind": ["a", "b", "a", "b"]}).modality == "text"
    assert open_data({"what": said, "label": ["a", "b", "a", "b"]}).class_names == ("a", "b")
    assert open_data({"what": said, "n": [1, 2, 3, 4]}, modality="table").modality == "table"
    assert open_data({"name": ["a b", "c d"], "n": [1, 2]}).modality == "table"
    with pytest.raises(BadInput, match="which column holds the texts"):
        open_data({"a": ["x", "y"], "b": ["z", "w"]}, modality="text")


def test_unusable_texts_leave_rows_in_step() -> None:
    columns = {"q": ["a b", "", "c\ud800", "d", "e"], "a": ["1", "2", "3", " \x01", "5"]}
    both = open_data(columns, text="q,a")
    assert both.rows.tolist() == [0, 4]
    assert [both.payloads.read(int(row)) for row in both.rows] == [{"q": "a b", "a": "1"}, {"q": "e", "a": "5"}]
    assert len(both.quarantine) == 3


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_bytes("one, two\n\n  three\0 \r\nna\xefve\n".encode("cp1252"))
    opened = open_data(path)
    assert opened.modality == "text" and opened.ignored == 1
    assert [opened.payloads.read(i) for i in range(3)] == ["one, two", "three", "naïve"]
    assert opened.manifest.names == ["line 1", "line 3", "line 4"]
    for name in ("train", "val"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{name}.txt").write_text(f"{name} a\n{name} b\n")
    assert open_data(tmp_path / "set").split_names == ("train", "validation")
    (tmp_path / "cells.txt").write_text("a\tb\n1\t2\n3\t4\n")
    assert open_data(tmp_path / "cells.txt").modality == "table"


def test_a_folder_of_splits(tmp_path: Path) -> None:
    for name, seed in (("train", 0), ("test", 1)):
        write_csv(tmp_path / f"{name}.csv", people(20, seed))
    opened = open_data(tmp_path)
    assert opened.split_names == ("test", "train") and len(opened) == 40
    write_csv(tmp_path / "test.csv", {"age": ["1"], "other": ["2"]})
    with pytest.raises(BadInput, match="columns differ"):
        open_data(tmp_path)


def test_pictures_stay_pictures(tmp_path: Path) -> None:
    assert open_data(write_parquet(tmp_path / "a.parquet", range(4))).modality == "image"
    pq.write_table(pa.table(people(9)), tmp_path / "b.parquet")
    assert open_data(tmp_path / "b.parquet").modality == "table"
    assert open_data(PIXELS).modality == "image"


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sign", "value"),
    [
        ("1,234.5", ".", 1234.5),
        ("1.234,5", ",", 1234.5),
        ("1 234,5", ",", 1234.5),
        ("$ -3", ".", -3),
        ("(12)", ".", -12),
        ("−7 €", ".", -7),
        ("45%", ".", 45),
        ("1e308", ".", 1e308),
        ("1e999", ".", None),
        ("inf", ".", None),
        ("=1+1", ".", None),
        ("1_000", ".", None),
        ("1,2,3", ".", None),
        ("0x1F", ".", None),
        ("", ".", None),
    ],
)
def test_numbers(text: str, sign: str, value: float | None) -> None:
    assert number(text, sign) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_a_number(value: float) -> None:
    assert number(repr(value)) == value
    assert number(repr(value).replace(".", ","), ",") == value


@given(st.text(max_size=20))
def test_no_cell_crashes(text: str) -> None:
    for sign in (".", ","):
        found = number(text, sign)
        assert found is None or math.isfinite(found)
    for order in ("ymd", "dmy", "mdy", "compact", "named"):
        moment = days(text, order)
        assert moment is None or math.isfinite(moment)


@given(st.datetimes(min_value=datetime(1900, 1, 1)))
def test_dates_in_every_order(moment: datetime) -> None:
    exact = (moment.replace(microsecond=0) - datetime(1970, 1, 1)).total_seconds() / 86400
    for order, form in {
        "ymd": "%Y-%m-%d %H:%M:%S",
        "dmy": "%d.%m.%Y %H:%M:%S",
        "mdy": "%m/%d/%Y %I:%M:%S %p",
    }.items():
        assert days(moment.strftime(form), order) == pytest.approx(exact, abs=1e-9)
    assert days(moment.strftime("%d %b %Y"), "named") == math.floor(exact)
    assert days(moment.strftime("%Y-%m-%dT%H:%M:%S+02:00"), "ymd") == pytest.approx(exact - 2 / 24, abs=1e-9)


# --- schemas --------------------------------------------------------------------------------------


def column(cells: list[str | None]) -> object:
    """Return what a column is, beside one that is surely of use."""
    n = len(cells)
    return learn(frame_of({"x": cells, "sure": [str(i % 3) for i in range(n)]})).columns["x"]


def test_kinds() -> None:
    many = range(200)
    assert isinstance(column([f"{i / 7:.3f}" for i in many]), Number)
    assert column([f"{i},{i % 10}" for i in many]).decimal == ","
    assert isinstance(column([f"0{1000 + i % 50}" for i in many]), Category)  # postcodes
    assert column([f"{1 + i % 28}/0{1 + i % 5}/2020" for i in many]).order == "dmy"
    assert column([f"0{1 + i % 5}/{1 + i % 28}/2020" for i in many]).order == "mdy"
    assert column([f"0{1 + i % 9}/03/2020" for i in many]).order == "dmy"  # ten days of March, not nine months
    assert column([f"202001{1 + i % 28:02}" for i in many]).order == "compact"
    assert "never repeat" in column([str(5000 + 3 * i) for i in many]).reason
    assert "free text" in column([f"they said {i} things" for i in many]).reason
    assert "every cell" in column(["?", "NA", None, ""] * 5).reason
    assert column(["5"] * 20).reason == "always '5'"
    assert isinstance(column(["5", None] * 10), Category)
    with pytest.raises(BadInput, match="no column to learn from"):
        learn(frame_of({"x": ["a"] * 5}))


def test_rare_values_are_others() -> None:
    cells = [f"v{i % 30}" for i in range(300)] + [f"once{i}" for i in range(9)]
    found = column(cells)
    assert isinstance(found, Category) and len(found.values) == 30
    assert len(column([f"v{i % 600}" for i in range(6000)]).values) == 256


def test_schema_round_trip(tmp_path: Path, items: TableItems) -> None:
    schema = items.schema
    assert [c.kind for c in schema.columns.values()] == ["number", "number", "category", "date", "number"]
    schema.write(tmp_path / "schema.yaml")
    assert Schema.read(tmp_path / "schema.yaml") == schema == Schema.from_bytes(schema.to_bytes())


def test_a_person_corrects_the_schema(tmp_path: Path, items: TableItems) -> None:
    frame = items.dataset.payloads.frame
    path = tmp_path / "schema.yaml"
    path.write_text("format: 1\ncolumns:\n  age: {kind: category}\n  pay: {kind: ignore}\n")
    corrected = learn(frame, Schema.read(path))
    assert isinstance(corrected.columns["age"], Category) and list(corrected.used) == ["age", "job", "since", "gap"]
    with pytest.raises(BadInput, match="'age' says only its kind"):
        Schema.read(path).code(frame)
    for wrong, said in {
        "age: {kind: numbr}": "age",
        "age: {kind: number, points: [[2, 0], [1, 1]]}": "rise",
        "age: {kind: category, values: [yes, no]}": "age",
        "nobody: {kind: number}": "no column 'nobody'",
        "job: {kind: number}": "'job' cannot be a number",
    }.items():
        path.write_text(f"format: 1\ncolumns:\n  {wrong}\n")
        with pytest.raises(BadInput, match=said):
            learn(frame, Schema.read(path))


COLUMN_NAMES = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).map(str.strip).filter(bool)
)


@given(
    st.lists(
        COLUMN_NAMES | st.sampled_from(["yes", "null", "1", "- a", "x: y", "#", "'"]),
        min_size=3,
        max_size=3,
        unique=True,
    )
)
def test_what_a_person_is_shown_gives_the_same_schema_again(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    cells = [
        ["1,5", "2,25", "3,125", ""] * 5,
        ["31.12.2020", "01.02.2021", "", "03.02.2021"] * 5,
        ["a", "b\n#c", "", "d"] * 5,
    ]
    frame = frame_of(dict(zip(names, cells, strict=True)))
    schema = learn(frame)
    assert [c.kind for c in schema.columns.values()] == ["number", "date", "category"]
    path = tmp_path_factory.mktemp("sketch") / "schema.yaml"
    path.write_text(schema.sketch(), encoding="utf-8")
    assert learn(frame, Schema.read(path)) == schema


def test_how_numbers_and_dates_are_written_can_be_corrected() -> None:
    frame = frame_of({"x": ["1.250", "2.500", "3.750"] * 4, "day": ["01/02/2020", "03/04/2020", "05/06/2020"] * 4})
    asked = Schema.from_dict(
        {"columns": {"x": {"kind": "number", "decimal": ","}, "day": {"kind": "date", "order": "dmy"}}}
    )
    found, usual = learn(frame, asked).columns, learn(frame).columns
    assert usual["x"].high == 3.75 and found["x"].high == 3750
    assert found["day"].order == "dmy" and usual["day"].order == "mdy" and found["day"].high != usual["day"].high


def test_a_corrected_schema_is_trained_with(fastness: Callable[..., Ended], table: Path, tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    assert fastness("schema", table, "--out", path).status == 0
    text = path.read_text()
    assert "  age: {kind: number" in text
    path.write_text(text.replace("  age: {kind: number", "  age: {kind: category").replace(", decimal: .}", "}"))
    out = tmp_path / "run"
    made = fastness("train", table, "--schema", path, "--steps", 2, "--width", 16, "--batch-size", 16, "--out", out)
    assert made.status == 0, made.err
    assert fs.load(out / "bundle").encoder.spec.schema.columns["age"].kind == "category"
    refused = fastness("train", "digits", "--schema", path, "--steps", 2)
    assert refused.status == 2 and "has no option 'schema'" in refused.err
    refused = fastness("train", table, "--schema", path, "--init", out / "bundle", "--steps", 2)
    assert refused.status == 2 and "--init" in refused.err


def test_strange_cells_are_counted_from_training_to_evidence(fastness: Callable[..., Ended], tmp_path: Path) -> None:
    path, later, out = tmp_path / "x.csv", tmp_path / "later.csv", tmp_path / "run"
    rows = [f"{'abc' if i % 50 == 7 else i % 40},{'xy'[i % 2]},{i % 2}" for i in range(200)]
    path.write_text("price,kind,label\n" + "\n".join(rows))
    later.write_text("price,kind,label\n" + "\n".join(rows[:60]) + "\n900,z,0\n-5,z,1\n")
    assert fastness("train", path, "--steps", 2, "--width", 8, "--batch-size", 16, "--out", out).status == 0
    start = json.loads((out / "events.jsonl").read_text().splitlines()[0])
    assert start["handled"] == {"column 'price': cells that cannot be read": 4}
    wanted = {
        "column 'kind': values that training did not list": 2,
        "column 'price': values beyond those of training": 2,
        "column 'price': cells that cannot be read": 2,
    }
    embedded = fastness("embed", out / "bundle", later, "--out", tmp_path / "z.npy", "--json")
    assert json.loads(embedded.out)["handled"] == wanted
    report = fs.evaluate(out / "bundle", later, checks=["knn"])
    assert report.evidence.about["handled"] == wanted
    assert "values that training did not list: 2" in report.html.read_text()


def test_strange_cells_are_counted(items: TableItems) -> None:
    strange = frame_of(
        {
            "age": ["1e308", "-1e308", "=1+1", "inf", "nan"],
            "pay": ["oops", None, "", "1e999", "5"],
            "job": ["pilot", "baker", "", "BAKER", "smith"],
            "since": ["2011-11-11", "31.12.2020", "never", "2199-01-01", None],
            "gap": [None] * 5,
            "extra": ["x"] * 5,
        }
    )
    found = items.schema.code(strange)
    assert found.unseen == {"job": 2}
    assert found.outside == {"age": 2, "pay": 1, "since": 1}
    assert found.unreadable == {"age": 2, "pay": 2, "since": 2}
    assert not np.isinf(found.cells).any() and found.cells.dtype == np.float32
    assert encoder(items.schema)(torch.from_numpy(found.cells)).isfinite().all()
    with pytest.raises(BadInput, match="no column 'since', 'gap'"):
        items.schema.code(strange.only(["age", "pay", "job"]))


@given(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=40).filter(lambda v: len(set(v)) > 1), st.integers(0, 99))
def test_scores_rise_with_the_numbers(values: list[float], seed: int) -> None:
    frame = frame_of({"x": [repr(v) for v in values], "y": [str(i % 2) for i in range(len(values))]})
    schema = learn(frame, Schema({"x": Number(), "y": Category()})) if len(set(np.float32(values))) > 1 else None
    if schema is None:
        return
    cells = schema.code(frame).cells
    scores = encoder(schema).backbone.cells(torch.from_numpy(cells))[0][:, 0]
    order = np.argsort(values, kind="stable")
    assert (scores[torch.from_numpy(order)].diff() >= -1e-5).all() and scores.abs().max() <= 2.6


def test_small_differences_of_large_numbers_survive() -> None:
    cells = [str(1_700_000_000 + i % 7 + 0.5) for i in range(100)]
    schema = learn(frame_of({"x": cells, "y": ["a", "b"] * 50}))
    assert len(np.unique(schema.code(frame_of({"x": cells, "y": ["a", "b"] * 50})).cells[:, 0])) == 7


# --- items ----------------------------------------------------------------------------------------


def test_items_are_in_step(items: TableItems) -> None:
    every = torch.cat([batch for _, batch in items.batches(7)])
    torch.testing.assert_close(every, items.batch(np.arange(len(items))), equal_nan=True)
    rows = np.array([5, 3, 99])
    torch.testing.assert_close(items.select(rows).batch(np.arange(3)), every[rows], equal_nan=True)
    assert items.select(rows).dataset.manifest.names == [items.dataset.manifest.names[i] for i in rows]
    again = coded(items.dataset.select(rows), items.schema)
    np.testing.assert_array_equal(again.cells, items.cells[rows])


def test_plain_features(items: TableItems) -> None:
    found = items.plain(items)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    assert found.shape[1] == 1 + 1 + (3 + 1) + 1 + 2  # job: its values and others; gap: and whether it is missing
    np.testing.assert_allclose(found[:, 0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(found[:, 0].std(), 1, atol=1e-5)
    assert set(np.unique(found[:, 2:6].sum(1))) == {1.0}
    one = items.select(np.array([0])).plain(items)
    np.testing.assert_allclose(one, found[:1], atol=1e-6)


# --- views ----------------------------------------------------------------------------------------


def views_of(items: TableItems, *specs: TableView) -> TableViews:
    return TableViews.make(specs, TableSpec("mlp", items.schema), items)


@given(share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_corruption_takes_training_cells(items: TableItems, share: float, seed: int) -> None:
    known = items.select(np.arange(60))
    batch = items.batch(np.arange(60, 120))
    (view,) = views_of(known, TableView(count=1, corrupt=share, untouched=0))(batch, torch_generator(seed))
    columns = batch.shape[1]
    changed = ~((view == batch) | (view.isnan() & batch.isnan()))
    assert changed.sum(1).max() <= int(share * columns + 1e-9)
    for place in range(columns):
        there = np.unique(known.cells[:, place])
        assert np.isin(view[:, place][changed[:, place]], there, assume_unique=False).all() or np.isnan(there).any()
        taken = view[:, place][changed[:, place]]
        assert np.isin(taken[~taken.isnan()], there).all()


def test_exactly_so_many_columns_change(items: TableItems) -> None:
    n, columns = 500, 10
    batch = torch.zeros(n, columns)
    views = TableViews([TableView(count=1, corrupt=0.65, untouched=0)], torch.ones(3, columns))
    (view,) = views(batch, torch_generator(0))
    assert (view.sum(1) == 6).all()
    share = view.mean(0)  # every column as often: 0.6 in each, five standard errors
    assert ((share - 0.6).abs() < 5 * math.sqrt(0.24 / n)).all()


def test_cells_come_from_the_marginals() -> None:
    known = torch.cat([torch.zeros(75, 2), torch.ones(25, 2)])
    batch = torch.full((64, 2), 7.0)
    views = TableViews([TableView(count=1, corrupt=1.0, untouched=0)], known)
    drawn = torch.cat([views(batch, torch_generator(seed))[0] for seed in range(50)])
    assert ((drawn.mean(0) - 0.25).abs() < 5 * math.sqrt(0.1875 / len(drawn))).all()
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 5 / math.sqrt(len(drawn))  # each cell from a row of its own


def test_one_view_is_the_row_itself(items: TableItems) -> None:
    batch = items.batch(np.arange(8))
    views = views_of(items, *TableViews.usual)
    first, second = views(batch, torch_generator(0))
    torch.testing.assert_close(first, batch, equal_nan=True)
    assert not torch.equal(first.nan_to_num(), second.nan_to_num())
    again = views(batch, torch_generator(0))[1]
    torch.testing.assert_close(second, again, equal_nan=True)
    part = views(batch[3:6], torch_generator(0), 3, 8)[1]
    torch.testing.assert_close(part, second[3:6], equal_nan=True)
    before = batch.clone()
    views(batch, torch_generator(1))
    torch.testing.assert_close(batch, before, equal_nan=True)


# --- encoders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "ft-transformer"])
def test_alone_or_in_any_batch(items: TableItems, name: str) -> None:
    made = encoder(items.schema, name)
    batch = items.batch(np.arange(50))
    with torch.no_grad():
        together = made(batch)
        order = torch.randperm(50)
        torch.testing.assert_close(made(batch[order]), together[order], atol=1e-5, rtol=1e-5)
        for i in range(5):
            torch.testing.assert_close(made(batch[i : i + 1])[0], together[i], atol=1e-5, rtol=1e-5)
    assert together.dtype == torch.float32 and together.shape == (50, made.dim)
    assert made.spec == TableSpec.from_dict(json.loads(json.dumps(made.spec.to_dict())), made.spec.files)


@pytest.mark.parametrize("name", ["mlp", "ft-transformer"])
def test_every_column_counts(items: TableItems, name: str) -> None:
    made = encoder(items.schema, name)
    row = items.batch(np.flatnonzero(~np.isnan(items.cells).any(1))[:1])
    with torch.no_grad():
        before = made(row)
        for place, other in enumerate([60.0, 9000.0, 2.0, 12000.0, 0.9]):
            changed = row.clone()
            changed[0, place] = other if changed[0, place] != other else other / 2
            assert (made(changed) - before).abs().max() > 1e-4
            changed[0, place] = math.nan
            assert torch.isfinite(made(changed)).all()


@pytest.mark.parametrize("name", ["mlp", "ft-transformer"])
def test_forward_is_tensor_operations_only(items: TableItems, name: str) -> None:
    made = encoder(items.schema, name)
    rows = torch.export.Dim("rows", min=2, max=4096)
    program = torch.export.export(made, (items.batch(np.arange(4)),), dynamic_shapes={"x": {0: rows}})
    batch = items.batch(np.arange(9))
    torch.testing.assert_close(program.module()(batch), made(batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kinds", ["numbers", "categories"])
@pytest.mark.parametrize("name", ["mlp", "ft-transformer"])
def test_tables_of_one_kind(kinds: str, name: str) -> None:
    cells = [str(i % 9) for i in range(40)] if kinds == "numbers" else [f"v{i % 9}" for i in range(40)]
    schema = learn(frame_of({"a": cells, "b": cells[::-1]}))
    out = encoder(schema, name)(torch.from_numpy(schema.code(frame_of({"a": cells, "b": cells[::-1]})).cells))
    assert out.shape == (40, 32) and out.isfinite().all()


# --- the whole way --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a short run on `table`; not to be changed."""
    out = tmp_path_factory.mktemp("tables")
    return fs.train(table, steps=20, width=32, batch_size=32, out=out, quiet=True).bundle


def test_train_bundle_embed(trained: Path, table: Path, tmp_path: Path) -> None:
    bundle = fs.load(trained)
    assert bundle.modality == "table" and (trained / "schema.json").exists()
    z = bundle.embed(table)
    assert z.shape == (120, 32) and z.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    columns = people()
    for data in (columns, pa.table(columns), Pandas(columns), frame_of(columns)):
        np.testing.assert_allclose(bundle.embed(data), z, atol=1e-5)
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    np.testing.assert_allclose(bundle.embed(records[7:8])[0], z[7], atol=1e-5)
    strange = [{**records[0], "job": "pilot", "age": "1e9", "since": "??"}]
    assert np.isfinite(bundle.embed(strange)).all()
    with pytest.raises(BadInput, match="no column 'gap'"):
        bundle.embed([{name: records[0][name] for name in NAMES[:-1]}])
    hits = fs.search(bundle, table, json.dumps({name: records[7][name] for name in NAMES}), k=1).hits
    assert hits[0].item == "line 9"
    assert fs.evaluate(bundle, table, checks=["knn"]).evidence.measurements
    item, asked = bundle.ask('{"age": 30, "job": "cook"}')
    assert item["age"] == 30 and asked.shape == (1, 32)
    for wrong, said in {"{": "no JSON", "[1]": "JSON object", '{"x": 1}': "no column 'x'"}.items():
        with pytest.raises(BadInput, match=said):
            bundle.ask(wrong)


def test_the_schema_is_that_of_the_training_rows(tmp_path: Path) -> None:
    columns = people(60)
    columns["split"] = ["train"] * 40 + ["test"] * 20
    columns["age"][50] = "999"
    columns["job"][51] = "pilot"
    path = write_csv(tmp_path / "a.csv", columns)
    run = fs.train(path, steps=2, width=16, batch_size=16, out=tmp_path / "run", quiet=True)
    schema = fs.load(run.bundle).encoder.spec.schema
    assert schema.columns["age"].high < 100 and "pilot" not in schema.columns["job"].values


@pytest.mark.parametrize("method", ["supcon", "byol", "supervised"])
def test_other_methods(table: Path, tmp_path: Path, method: str) -> None:
    run = fs.train(table, method=method, steps=2, width=16, batch_size=16, out=tmp_path, quiet=True)
    assert run.steps == 2


def test_it_learns(tmp_path: Path) -> None:
    """Where columns are copies of one hidden kind, corrupted rows find each other, and kinds lie apart."""
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 2, 400)
    columns = {
        f"x{i}": [f"{4 * k + v:.3f}" for k, v in zip(kind, draw.normal(size=400), strict=True)] for i in range(6)
    }
    columns["label"] = [str(k) for k in kind]
    run = fs.train(frame_of(columns), steps=60, width=32, batch_size=64, out=tmp_path, quiet=True)
    assert run.knn is not None and run.knn > 0.95
    spec = modality("table").draft(run.recipe, open_data(frame_of(columns)))
    assert spec.options == {"width": 32, "layers": 3}


def test_options_that_mean_nothing_are_refused(table: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"size": 32}, "--size means nothing for tables"),
        ({"encoder": "resnet18"}, "unknown encoder"),
        ({"encoder": "ft-transformer", "width": 12}, "multiple of 8"),
        ({"network": {"depth": 3}}, "no option 'depth'"),
        ({"views": {"flip": 1.0}}, "unknown view option 'flip'"),
    ):
        with pytest.raises(BadInput, match=said):
            fs.train(table, steps=2, out=tmp_path / "run", quiet=True, **options)


def test_command_line(fastness: Callable[..., Ended], table: Path, tmp_path: Path) -> None:
    content = table.read_text() + "1,2\n"
    (tmp_path / "people.csv").write_text(content)
    ended = fastness("train", "people.csv", "--steps", 2, "--width", 16, "--batch-size", 16, "--out", "run", "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["quarantined"] == 1
    assert "2 cells where the columns are 6" in (tmp_path / "run" / "quarantine.csv").read_text()
    ended = fastness("embed", "run", "people.csv", "--out", "vectors.npy")
    assert ended.status == 0, ended.err
    assert len(np.load(tmp_path / "vectors.npy")) == 120
    ended = fastness("train", "people.csv", "--label", "nobody")
    assert ended.status == 2 and "no column 'nobody'" in ended.err and ended.err.count("\n") == 1
