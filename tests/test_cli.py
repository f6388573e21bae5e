"""The command line: one line and a remedy for every mistake, one JSON object where it is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import fastness as fs
from conftest import PIXELS, Ended, installed, write_classes, write_pictures
from fastness.cli.recipe import _CHANGES, _FIELDS, _changes, read
from fastness.core.recipe import Recipe, read_mapping
from fastness.evaluation import evidence

Call = Callable[..., Ended]
# Strict: whoever mends these is told to take the mark away.
VERBS = ["train", "adopt", "embed", "evaluate", "search", "demo"]
TINY = ["--width", 4, "--size", 16, "--batch-size", 8]


@pytest.fixture
def place(tmp_path: Path, run: Path, labelled: Path) -> Path:
    """The folder in which commands run: ``data``, ``one`` picture, ``empty``, ``words.png`` and the run ``run``."""
    write_pictures(tmp_path / "one", PIXELS[:1])
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.png").write_text("no picture")
    (tmp_path / "query.png").write_bytes((labelled / "a" / "00.png").read_bytes())
    (tmp_path / "data").symlink_to(labelled)
    (tmp_path / "run").symlink_to(run)
    return tmp_path


def refused(ended: Ended, said: str) -> None:
    """Check that a command was refused in one line which says what is wrong and what to do."""
    assert ended.status == 2, ended.err
    assert re.fullmatch(r"fastness: [^\n]+\n", ended.err) and "Traceback" not in ended.err
    assert re.search(said, ended.err), ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train empty", r"empty: holds no pictures; give data that holds some"),
        ("train one --steps 2", r"one: 1 usable item; .* needs at least 2"),
        ("train nowhere", r"nowhere: no such file or folder"),
        ("train data --method simclrr", r"unknown method 'simclrr'; did you mean 'simclr'\? known: simclr, moco"),
        pytest.param(
            "train data --encoder resnet19 --steps 1", r"unknown encoder 'resnet19'; did you mean 'resnet18'\?"
        ),
        pytest.param("train data --encoder timm:resnet_18x --steps 1", r"timm has no model 'resnet_18x'; (near|see)"),
        pytest.param("train data --epoch 3", r"No such option.*--epoch.*--epochs.* --help"),
        ("train data --epochs 1 --steps 2", r"--epochs and --steps contradict each other; give one of them"),
        ("train data --steps 2 --budget 1m", r"--steps and --budget contradict each other; give one of them"),
        ("train data --budget soon", r"budget 'soon' is no duration; write for example 90s"),
        ("train data --budget 0m", r"budget '0m' is no duration; write for example 90s"),
        ("train data --checkpoint-every often", r"'often' is no duration; write for example"),
        ("train data --unfreeze 1", r"--unfreeze makes sense only with --init BUNDLE; give one or drop"),
        ("train data --init nowhere --steps 1", r"nowhere: no bundle here .*; train or adopt one"),
        ("train data --width 0", r"width = 0: .*greater than or equal to 1"),
        pytest.param("train data --seed x", r"--seed.*valid integer.* --help"),
        ("train data --view flip", r"--view flip: write NAME=VALUE"),
        ("train data --view scale=[0.2,1", r"--view scale=\[0\.2,1: not readable as YAML \(.*\); close what is open"),
        ("train data --option teacher=@x", r"--option teacher=@x: .*'@'.*quotes, e\.g\. --option teacher='\"TEXT\"'"),
        ("train data --option teacher=2024-13-01", r"--option teacher=2024-13-01: not readable as YAML \(month must"),
        pytest.param("train data --view flop=1 --steps 1", r"flop.*known: .*flip"),
        pytest.param("train data --option quux=1 --steps 1", r"no option 'quux'; it has: "),
        pytest.param(
            "train data --method supervised --label none --steps 1",
            r"needs labels; put the items in one folder a class",
        ),
        ("train data --steps 3 --width 4 --size 16 --batch-size 8 --out run", r"run: holds a run with .*another --out"),
        ("train data --steps 2 --out words.png", r"words\.png: .*; choose another"),
        ("train recipe.yaml", r"recipe\.yaml: no such file"),
        ("embed nowhere data", r"nowhere: no bundle here .*; train or adopt one"),
        ("embed data data", r"data: no bundle here .*; train or adopt one"),
        ("embed run empty", r"empty: holds no pictures; give data that"),
        ("embed run words.png", r"none of 1 items can be decoded, e\.g\. words\.png: no picture"),
        ("embed run data --out vectors.txt", r"vectors\.txt: give a name that ends in \.parquet or \.npy"),
        ("embed run data --out words.png/x.npy", r"x\.npy: a file .* is in the way; choose another name"),
        ("evaluate run data --checks knn,colour", r"unknown check 'colour'; known: answers, knn"),
        ("evaluate run one --checks knn", r"cannot be divided into two splits; add more data"),
        (
            "evaluate run data --label none --checks knn",
            r"check 'knn' needs a label on every item \(--label\); leave it out",
        ),
        ("search run data --query words.png", r"words\.png: no picture in any known format; leave it out"),
        ("search run data --query nowhere.png", r"nowhere\.png: no such picture; --query takes a file"),
        ("search run data --query query.png -k 0", r"-k 0: ask for at least one"),
        pytest.param("search run data", r"Missing option '--query'.* --help"),
        ("adopt resnet18 --out new", r"resnet18: give its weights with --weights FILE"),
        ("adopt resnet18 --out new --weights nowhere.pt", r"nowhere\.pt: no such weights file"),
        ("demo --data mnist", r"--data mnist: known: digits"),
        pytest.param("trian data", r"No such command 'trian'.* --help"),
    ],
)
def test_mistakes_end_in_one_line_with_a_remedy(fastness: Call, place: Path, words: str, said: str) -> None:
    refused(fastness(*words.split()), said)


def test_the_installed_command_ends_alike(place: Path) -> None:
    refused(installed("train", "data", "--budget", "soon", cwd=place), "budget 'soon' is no duration")


def test_debug_shows_the_traceback(fastness: Call, place: Path) -> None:
    ended = fastness("--debug", "train", "nowhere")
    assert ended.status != 0 and "Traceback" in ended.err


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_verb_explains_itself(fastness: Call, verb: str) -> None:
    ended = fastness(*verb.split(), "--help")

    assert ended.status == 0 and ended.err == ""
    assert "Usage: fastness" in ended.out
    assert verb or all(name in ended.out for name in VERBS)


def test_without_words_it_explains_itself_and_says_its_version(tmp_path: Path) -> None:
    bare, version = installed(cwd=tmp_path), installed("--version", cwd=tmp_path)

    assert bare.status == 2 and "Usage: fastness" in bare.out
    assert (version.status, version.out) == (0, f"fastness {fs.__version__}\n")


def answer(ended: Ended) -> dict[str, object]:
    """Return the one JSON object that a command printed."""
    assert ended.status == 0, ended.err
    assert ended.out.count("\n") == 1
    return json.loads(ended.out)


def test_train_json(fastness: Call, place: Path) -> None:
    said = answer(fastness("train", "data", "--steps", 2, *TINY, "--out", "new", "--json"))

    assert said["steps"] == 2 and said["quarantined"] == 0
    assert fs.load(place / str(said["bundle"])).id == said["id"]
    assert {"bundle", "events.jsonl", "quarantine.csv"} <= {path.name for path in (place / "new").iterdir()}


def test_embed_writes_ids_and_vectors(fastness: Call, place: Path, bundle: Path) -> None:
    (write_classes(place / "some") / "b" / "bad.png").write_text("words")
    expected = fs.load(bundle).embed_dataset(fs.open_data(place / "some"))

    said = answer(fastness("embed", "run", "some", "--out", "new/z.parquet", "--json"))
    plain = fastness("embed", "run/bundle", "some", "--out", "z.npy", "--no-normalize")

    assert said == {
        "out": "new/z.parquet",
        "items": 8,
        "dim": expected.vectors.shape[1],
        "quarantined": 1,
        "handled": {},
    }
    table = pq.read_table(place / "new" / "z.parquet")
    assert table["id"].to_pylist() == expected.ids
    assert np.allclose(np.stack(table["vector"].to_numpy()), expected.vectors, atol=1e-5)
    assert (place / "new" / "z.quarantine.csv").read_text().startswith("item,reason\nb/bad.png,no picture")
    raw = np.load(place / "z.npy")
    assert plain.status == 0 and "8 vectors" in plain.out and "1 damaged" in plain.out
    assert np.allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), expected.vectors, atol=1e-5)


def test_search_finds_the_picture_itself_first(fastness: Call, place: Path) -> None:
    said = answer(fastness("search", "run", "data", "--query", "query.png", "-k", 5, "--sheet", "sheet.png", "--json"))

    assert len(said["hits"]) == 5
    assert said["hits"][0] == {"item": "a/00.png", "similarity": 1.0, "position": 0, "label": "a", "text": None}
    found = [hit["similarity"] for hit in said["hits"]]
    assert found == sorted(found, reverse=True)
    with Image.open(place / "sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.size > (100, 100) and sheet.getextrema()[0][0] < 255


def test_adopt_json(fastness: Call, place: Path, bundle: Path) -> None:
    words = ["--weights", bundle / "weights.safetensors", "--width", 4, "--size", 16, "--out", "new", "--json"]
    said = answer(fastness("adopt", "resnet18", *words))

    found = fs.load(place / "new")
    assert said == {"bundle": "new", "id": found.id, "dim": found.dim} and found.encoder.spec.size == 16


def test_columns_are_named_with_commas_or_one_by_one(fastness: Call, place: Path) -> None:
    (place / "pairs.csv").write_text("a,b\n" + "".join(f"question {i} of ten,answer {i}\n" for i in range(10)))
    ids = []
    for number, words in enumerate((["--text", "a,b"], ["--text", "a", "--text", "b"])):
        done = fastness("train", "pairs.csv", *words, "--steps", 1, "--batch-size", 4, "--out", f"pairs{number}")
        assert done.status == 0, done.err
        ids.append(fs.load(place / f"pairs{number}").id)
    assert ids[0] == ids[1]


def test_evaluate_writes_evidence_and_a_page_that_needs_no_network(fastness: Call, place: Path) -> None:
    words = ["--checks", "knn", "--checks", "geometry", "--out", "new", "--json"]
    said = answer(fastness("evaluate", "run", "data", *words))

    lines = [json.loads(line) for line in (place / "new" / "measurements.jsonl").read_text().splitlines()]
    assert lines == said["measurements"]
    names = [line["name"] for line in lines]
    assert names == ["knn.accuracy", "geometry.alignment", "geometry.uniformity", "geometry.effective_rank"]
    for line in lines:
        assert line["protocol"] and line["n"] > 0 and line["low"] <= line["value"] <= line["high"]
    assert evidence.read(place / "new").about["bundle"] == fs.load(place / "run").id
    outcomes = pq.read_table(place / "new" / "knn.parquet")
    assert np.mean(outcomes["accuracy"].to_pylist()) == pytest.approx(lines[0]["value"])

    page = (place / "new" / "report.html").read_text()
    assert all(name in page for name in names)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", page) and "@import" not in page


def test_each_field_of_a_recipe_is_one_option():
    told = [*_FIELDS, *_CHANGES]
    assert sorted(told) == sorted([*Recipe.model_fields, "loss"])
    for name, (kind, _) in _FIELDS.items():
        if name == "loss":
            continue  # of the options of methods
        said = str(Recipe.model_fields[name].annotation)
        assert kind.__name__ in said or (kind is str and "Literal" in said), name


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2.5E6", -2.5e6), (".5e1", 5.0), ("1.0e+2", 100.0), ("3", 3), ("0.5", 0.5), ("'1e-3'", "1e-3"),
     ("1e", "1e"), ("e3", "e3"), ("nan", "nan"), ("inf", "inf"), ("1e3/x", "1e3/x"), ("[1e-3, 1]", [0.001, 1]),
     ("", None)],
)  # fmt: skip
def test_values_are_numbers_where_they_are_written_as_such(tmp_path: Path, text: str, value: object) -> None:
    """On the command line, and in a recipe's file."""
    (tmp_path / "recipe.yaml").write_text(f"data: digits\noptions: {{name: {text}}}\n")
    file = read_mapping(tmp_path / "recipe.yaml")["options"]["name"]
    for found in (_changes([f"name={text}"], "--option")["name"], file):
        assert found == value and type(found) is type(value)


def test_options_override_a_recipe_file_however_the_loss_is_said(tmp_path: Path) -> None:
    for saved in ("loss: decoupled", "options: {loss: decoupled, projection: 8}"):
        (tmp_path / "recipe.yaml").write_text(f"data: digits\n{saved}\n")
        for asked in ({"loss": "sigmoid"}, {"options": {"loss": "sigmoid"}}):
            data, made = read(str(tmp_path / "recipe.yaml"), dict(asked), None)
            assert data == "digits" and made.options["loss"] == "sigmoid"
            assert ("projection" in made.options) == ("projection" in saved)
