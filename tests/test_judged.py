"""Judged collections: folders as BEIR and TREC have them, pairs for training, rankings against naive loops."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastness as fs
from fastness.core.errors import BadInput
from fastness.data.sides import sides_of
from fastness.data.text import texts_of
from fastness.metrics.retrieval import ranking

DOCUMENTS = {
    "d1": ("Bread", "flour water and yeast in a hot oven"),
    "d2": ("", "a ship sails over the sea"),
    "d3": ("Boats", "Boats of wood sail on the sea"),
    "d4": ("", ""),
}
QUERIES = {"q1": "baking bread", "q2": "ships at sea", "q3": "", "q9": "nothing on it"}


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small collection as BEIR lays it out; a document and a query are empty, one judgement names nobody."""
    folder = tmp_path_factory.mktemp("beir")
    lines = [json.dumps({"_id": name, "title": title, "text": text}) for name, (title, text) in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": n, "text": t}) for n, t in QUERIES.items()))
    (folder / "qrels").mkdir()
    head = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "train.tsv").write_text(head + "q1\td1\t1\nq2\td3\t2\nq2\td1\t0\nq3\td1\t1\nqX\td1\t1\n")
    (folder / "qrels" / "test.tsv").write_text(head + "q2\td2\t1\nq1\td4\t1\n")
    return folder


@pytest.fixture(scope="module")
def trec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as TREC lays it out, with queries whose numbers are not those of the judgements."""
    folder = tmp_path_factory.mktemp("trec")
    items = DOCUMENTS.items()
    documents = [f"<doc>\n<docno>{n}</docno>\n<title>{t}</title>\n<text>{x}</text>\n</doc>" for n, (t, x) in items]
    (folder / "all.xml").write_text("\n".join(documents))
    queries = [
        f"<top>\n<num> Number: {7 * i + 4}\n<title>\n{q}\n</title>\n</top>" for i, q in enumerate(QUERIES.values())
    ]
    (folder / "topics.xml").write_text("<xml>\n" + "\n".join(queries) + "\n</xml>")
    (folder / "qrels.txt").write_text("1 0 d1 1\r\n2 0 d3 2\r\n2 0 d1 0\r\n3 0 d1 1\r\n2 0 d2 1\r\n1 0 d4 1\r\n")
    return folder


@pytest.mark.parametrize("kind", ["beir", "trec"])
def test_a_folder_is_documents_or_queries_or_pairs(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    documents = fs.open_data(folder)
    assert documents.modality == "text" and len(documents) == 3 and documents.quarantine[0].name == "d4"
    first = "Bread flour water and yeast in a hot oven"
    assert texts_of(documents) == [first, "a ship sails over the sea", "Boats of wood sail on the sea"]
    assert texts_of(fs.open_data(folder, text="query")) == ["baking bread", "ships at sea", "nothing on it"]
    pairs = fs.open_data(folder, text="query,document")
    sides = {name: texts_of(side) for name, side in sides_of(pairs).items()}
    found = set(zip(sides["query"], sides["document"], strict=True))
    assert found == {
        ("baking bread", first),
        ("ships at sea", DOCUMENTS["d3"][1]),
        ("ships at sea", DOCUMENTS["d2"][1]),
    }
    judged = documents.payloads.judgements
    assert len(judged.gain) == 5 and sorted(judged.gain) == [0, 1, 1, 1, 2]
    if kind == "beir":
        assert pairs.split_names == ("test", "train") and len(pairs.split("train")) == 2
        assert judged.held_out()[1] == "test" and len(judged.held_out()[0].gain) == 2
    else:
        assert pairs.split_names == () and judged.held_out()[1] == "all"


def test_wrong_collections_are_refused_in_a_line(beir: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no column 'answer'.*query, document"):
        fs.open_data(beir, text="answer")
    for name in ("corpus.jsonl", "queries.jsonl"):
        (tmp_path / name).write_bytes((beir / name).read_bytes())
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\tyes\n")
    with pytest.raises(BadInput, match="line 2 is no judgement"):
        fs.open_data(tmp_path)
    (tmp_path / "qrels" / "test.tsv").write_text("a\tb\t1\n")
    with pytest.raises(BadInput, match="no query and document that are there"):
        fs.open_data(tmp_path)
    (tmp_path / "qrels" / "test.tsv").write_text("q1\td1\t1\n")
    with (tmp_path / "corpus.jsonl").open("a") as file:
        file.write('\nno json\n{"_id": "d5", "text": "cut \\ud83d"}\n')
    opened = fs.open_data(tmp_path)
    assert len(opened) == 3 and {q.name for q in opened.quarantine} == {"line 5", "d4", "d5"}
    with (tmp_path / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d1", "text": "again"}\n')
    with pytest.raises(BadInput, match="two texts are called 'd1'"):
        fs.open_data(tmp_path)


def naive(scores: np.ndarray, gains: dict[int, float], lost: list[float]) -> dict[str, float]:
    """Walk down a ranking in which, of equals, the wrong come first, then the worse."""
    order = sorted(range(len(scores)), key=lambda d: (-scores[d], gains.get(d, 0.0)))
    dcg = precision = recall = reciprocal = 0.0
    hits = 0
    for rank, d in enumerate(order, 1):
        if d not in gains:
            continue
        hits += 1
        precision += hits / rank
        recall += rank <= 100
        dcg += gains[d] / math.log2(rank + 1) if rank <= 10 else 0
        if hits == 1 and rank <= 10:
            reciprocal = 1 / rank
    ideal = sum(g / math.log2(i + 2) for i, g in enumerate(sorted([*gains.values(), *lost], reverse=True)[:10]))
    total = len(gains) + len(lost)
    return {"ndcg@10": dcg / ideal, "map": precision / total, "recall@100": recall / total, "mrr@10": reciprocal}


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 150), st.integers(1, 60))
def test_rankings_are_those_of_a_loop(seed: int, q: int, n: int, j: int) -> None:
    draw = np.random.default_rng(seed)
    queries, documents = (draw.integers(-2, 3, (m, 3)).astype(np.float32) for m in (q, n))  # many equals
    query, document, gain = draw.integers(0, q, j), draw.integers(-1, n, j), draw.integers(-1, 4, j).astype(float)
    pairs = {(a, b) for a, b in zip(query.tolist(), document.tolist(), strict=True)}
    unique = [list(zip(query.tolist(), document.tolist(), strict=True)).index(pair) for pair in sorted(pairs)]
    query, document, gain = query[unique], document[unique], gain[unique]
    found = ranking(queries, documents, query, document, gain, block=2)
    asked = sorted({a for a, g in zip(query.tolist(), gain, strict=True) if g > 0})
    assert all(len(values) == len(asked) for values in found.values())
    for place, a in enumerate(asked):
        mine = [
            (b, g) for x, b, g in zip(query.tolist(), document.tolist(), gain.tolist(), strict=True) if x == a and g > 0
        ]
        wanted = naive(documents @ queries[a], {b: g for b, g in mine if b >= 0}, [g for b, g in mine if b < 0])
        for name, value in wanted.items():
            assert found[name][place] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize(
    ("above", "ndcg", "recall", "mrr"),
    [(0, 1, 1, 1), (9, 1 / math.log2(11), 1, 0.1), (10, 0, 1, 0), (99, 0, 1, 0), (100, 0, 0, 0)],
)
def test_depths_hold_their_last_place(above: int, ndcg: float, recall: float, mrr: float) -> None:
    """The right answer stands behind so many wrong ones."""
    documents = np.stack([np.cos(np.arange(150) / 100), np.sin(np.arange(150) / 100)], 1).astype(np.float32)
    query = np.array([[1, 0]], np.float32)
    found = ranking(query, documents, np.array([0]), np.array([above]), np.ones(1))
    wanted = {"ndcg@10": ndcg, "recall@100": recall, "mrr@10": mrr, "map": 1 / (above + 1)}
    assert {name: values[0] for name, values in found.items()} == pytest.approx(wanted)


def test_a_collapsed_encoder_ranks_nothing_first() -> None:
    same = np.ones((30, 4), np.float32) / 2
    found = ranking(same[:2], same, np.array([0, 1]), np.array([0, 5]), np.ones(2))
    assert found["ndcg@10"].max() == 0 and found["mrr@10"].max() == 0


def test_the_whole_way_from_pairs_to_rankings(beir: Path, tmp_path: Path) -> None:
    small = {"width": 16, "network": {"layers": 1}, "batch_size": 2, "quiet": True}
    run = fs.train(beir, text="query,document", steps=2, out=tmp_path / "run", **small)
    report = fs.evaluate(run.bundle, beir, checks=["ranking"])
    figures = {m.name: m for m in report.evidence.measurements}
    assert set(figures) == {
        f"ranking.{way}.{figure}" for way in ("encoder", "raw") for figure in ("ndcg@10", "map", "recall@100", "mrr@10")
    }
    assert (
        figures["ranking.raw.recall@100"].value == 0.5
    )  # of the two test queries one is answered by no usable document
    assert figures["ranking.raw.mrr@10"].n == 2 and "judgements: test" in figures["ranking.raw.mrr@10"].protocol
    assert {hit.item for hit in fs.search(run.bundle, beir, "the sea", k=3).hits} == {"d1", "d2", "d3"}


def test_a_collection_without_right_answers_is_not_ranked(beir: Path, tmp_path: Path) -> None:
    for name in ("corpus.jsonl", "queries.jsonl"):
        (tmp_path / name).write_bytes((beir / name).read_bytes())
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("q1\td1\t0\n")
    small = {"width": 16, "network": {"layers": 1}, "batch_size": 2, "quiet": True}
    run = fs.train(beir, steps=1, out=tmp_path / "run", **small)
    with pytest.raises(BadInput, match="right answer"):
        fs.evaluate(run.bundle, tmp_path, checks=["ranking"])


def test_cranfield(shared_data: Path) -> None:
    folder = shared_data / "text" / "cranfield"
    if not folder.exists():
        pytest.skip(f"{folder} is not there; its standard source is the Cranfield collection in TREC's format")
    documents = fs.open_data(folder)
    judged = documents.payloads.judgements
    assert len(documents.whole) == 1400 and {q.name for q in documents.quarantine} == {"471", "995"}
    assert len(judged.queries) == 225 and (judged.gain > 0).sum() == 1612
    of_first = judged.document[(judged.query == 0) & (judged.gain > 0)]
    assert documents.whole.names[of_first[0]] == "184" and judged.queries.payloads.read(0).startswith(
        "what similarity laws"
    )


def test_a_broken_query_is_lost_alone_and_named(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "of bread"}\n{"text": "of none"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "bread?"}\n{broken\n{"_id": "3", "text": "cats?"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "all.tsv").write_text("1 d1 1\n2 d1 1\n")
    pairs = fs.open_data(tmp_path, text="query,document")
    assert [texts_of(side) for side in sides_of(pairs).values()] == [["bread?"], ["of bread"]]
    assert sorted(q.reason for q in pairs.quarantine)[0] == "has no _id" and len(pairs.quarantine) == 2
