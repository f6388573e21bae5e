"""Things with several sides: rows stay in step, encoders of each side, retrieval both ways, scores."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fastness as fs
from fastness.core.errors import BadInput
from fastness.data.sides import sides_of
from fastness.encoders import ready
from fastness.metrics.intervals import wilson
from fastness.metrics.retrieval import best_ranks

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220), "white": (250, 250, 250)}
TEXT = {"width": 16, "network": {"layers": 1}, "batch_size": 16, "quiet": True}


def picture(colour: str, seed: int) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 12, (16, 16, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a colour with their captions; two rows have a damaged side each."""
    path = tmp_path_factory.mktemp("captioned") / "all.parquet"
    names = list(COLOURS) * 12
    images = [{"bytes": picture(name, i), "path": None} for i, name in enumerate(names)]
    captions = [f"a {name} square" for name in names]
    images[5], captions[9] = {"bytes": b"no picture", "path": None}, ""
    pq.write_table(pa.table({"image": images, "caption": captions, "label": names, "who": names}), path)
    return path


COLUMNS = {"image": "image", "text": "caption", "group": "who", "label": "label"}


@pytest.fixture(scope="module")
def run(captioned: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("run")
    return fs.train(captioned, columns=COLUMNS, steps=40, batch_size=16, out=out, quiet=True)


def test_a_damaged_side_takes_the_thing_away_and_rows_stay_in_step(run, captioned: Path) -> None:
    bundle, opened = fs.load(run.bundle), fs.open_data(captioned, **COLUMNS)
    assert opened.modality == "sides" and list(sides_of(opened)) == ["image", "caption"]
    items = ready(bundle.encoder, opened)
    assert len(items) == 46 and run.quarantined == 2
    names = [row for row in range(48) if row not in (5, 9)]
    assert items.dataset.rows.tolist() == names
    reasons = (run.folder / "quarantine.csv").read_text()
    assert "row 5" in reasons and "row 9" in reasons
    texts = [side.payloads.read(int(row)) for side in [items.sides["caption"].dataset] for row in side.rows]
    assert texts == [f"a {list(COLOURS)[row % 4]} square" for row in names]
    assert all(len(side) == 46 for side in items.sides.values())


def test_sides_share_a_space_and_keep_their_order_in_the_bundle(run, captioned: Path) -> None:
    bundle = fs.load(run.bundle)
    assert list(bundle.encoder.spec.sides) == ["image", "caption"]
    words = bundle.embed([f"a {name} square" for name in COLOURS], side="text")
    assert np.array_equal(words, bundle.embed([f"a {name} square" for name in COLOURS], side="caption"))
    pictures = [np.array(Image.open(io.BytesIO(picture(name, 99)))) for name in COLOURS]
    seen = bundle.embed(pictures, side="image")
    assert (seen @ words.T).argmax(1).tolist() == [0, 1, 2, 3]
    alone = np.concatenate([bundle.embed([one], side="image") for one in pictures])
    assert np.allclose(alone, seen, atol=1e-5)
    with pytest.raises(BadInput, match="no side is called 'sound'; choose one of: image, caption"):
        bundle.embed(["x"], side="sound")
    with pytest.raises(BadInput, match="say which"):
        bundle.embed(["x"])


def test_a_side_with_new_weights_takes_the_old_ones(run) -> None:
    """So that it can be tuned, or held against one that knows nothing: its linear layer is part of it."""
    side = fs.load(run.bundle).one_side("image").encoder
    fresh = side.untrained()
    assert fresh.dim == side.dim
    batch = torch.zeros(2, 3, side.spec.size, side.spec.size, dtype=torch.uint8)
    with torch.inference_mode():
        wanted = side(side.preprocess(batch))
        assert not torch.allclose(fresh.eval()(fresh.preprocess(batch)), wanted)
        fresh.load_weights(side.weights())
        torch.testing.assert_close(fresh(fresh.preprocess(batch)), wanted)


def test_retrieval_zero_shot_and_search_by_words(run, captioned: Path, tmp_path: Path) -> None:
    report = fs.evaluate(run.bundle, captioned, checks=["retrieval", "zero_shot", "knn"], **COLUMNS)
    assert report["retrieval.image_to_caption.recall@1"] > 0.9
    assert report["retrieval.caption_to_image.recall@1"] > 0.9
    assert report["zero_shot.accuracy"] > 0.6
    for way in ("image_to_caption", "caption_to_image"):
        shares = []
        for depth in (1, 5, 10):
            found = report.evidence.get(f"retrieval.{way}.recall@{depth}")
            assert (found.low, found.high) == pytest.approx(wilson(round(found.value * found.n), found.n))
            shares.append(found.value)
        assert shares == sorted(shares)
    answers = fs.search(run.bundle, captioned, "a blue square", k=5, image="image", label="label")
    assert {hit.label for hit in answers.hits} == {"blue"}
    with Image.open(answers.contact_sheet(tmp_path / "sheet.png")) as sheet:
        assert sheet.size[0] > 100


def test_data_with_several_sides_are_not_embedded_by_chance(run, captioned: Path, questions: Path) -> None:
    bundle = fs.load(run.bundle)
    with pytest.raises(BadInput, match="name the column of one: image, caption"):
        bundle.embed(captioned, image="image", text="caption")
    with pytest.raises(BadInput, match="name the column of one: question, answer"):
        bundle.of_side("caption").embed(questions, text="question,answer")


def test_what_stands_together_or_in_one_group_is_right_and_nothing_further(tmp_path: Path) -> None:
    from fastness.data.sides import right_answers

    path = tmp_path / "pairs.csv"
    path.write_text("q,a,g\nx,one,\nx,two,\ny,two,\nz,three,k\nw,four,k\nv,five,\n")
    things = fs.open_data(path, text="q,a", group="g")
    wanted = np.eye(6, dtype=bool)
    wanted[:2, :3] = True  # x has the answers one and two, and two stands there twice
    wanted[2, 1] = True  # y has two alone, though x, which has it too, has one as well
    wanted[3:5, 3:5] = True
    right = right_answers(things, "q", "a")
    assert (right(np.arange(6)) == wanted).all() and (right(np.array([4, 2])) == wanted[[4, 2]]).all()
    assert (right_answers(things, "a", "q")(np.arange(6)) == wanted.T).all()


def test_many_answers_to_many_questions_do_not_all_become_right(tmp_path: Path) -> None:
    from fastness.data.sides import right_answers

    path = tmp_path / "chain.csv"  # question i has the answers i and i + 1: one chain from the first to the last
    path.write_text("q,a\n" + "".join(f"q{i},a{i + j}\n" for i in range(200) for j in (0, 1)))
    right = right_answers(fs.open_data(path, text="q,a"), "q", "a")(np.arange(400))
    assert right.sum(1).max() <= 4
    vectors = np.random.default_rng(0).normal(size=(2, 400, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    assert (best_ranks(*vectors, lambda places: right[places]) <= 10).mean() < 0.2


def test_the_size_and_the_preprocessing_come_from_the_training_part_of_both_sides(tmp_path: Path) -> None:
    from fastness.core.recipe import Recipe
    from fastness.data.sides import sides_of, stacked
    from fastness.training import plan

    path = tmp_path / "pairs.csv"
    lines = [f"short {i},{'word ' * 60}end,{'train' if i < 6 else 'test'}" for i in range(9)]
    path.write_text("\n".join(["question,answer,part", *lines]))
    part = fs.open_data(path, text="question,answer", split="part").training_part()
    assert len(stacked(part)) == 12 and all(len(side) == 6 for side in sides_of(part).values())
    assert plan.complete(Recipe(), part, torch.device("cpu")).size > 60


def naive_ranks(queries: np.ndarray, answers: np.ndarray, wanted: np.ndarray, keys: np.ndarray) -> list[int]:
    out = []
    for q, want in zip(queries, wanted, strict=True):
        best = [float(q @ a) for a, key in zip(answers, keys, strict=True) if key == want]
        if not best:
            out.append(len(answers) + 1)
            continue
        ahead = [a for a, key in zip(answers, keys, strict=True) if key != want and float(q @ a) >= max(best)]
        out.append(1 + len(ahead))
    return out


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 12))
def test_ranks_are_those_of_a_loop_and_ties_count_against(seed: int, q: int, a: int) -> None:
    draw = np.random.default_rng(seed)
    queries, answers = (draw.integers(-2, 3, (n, 3)).astype(np.float32) for n in (q, a))
    wanted, keys = draw.integers(0, 4, q), draw.integers(0, 4, a)
    found = best_ranks(queries, answers, lambda places: wanted[places, None] == keys, block=5)
    assert found.tolist() == naive_ranks(queries, answers, wanted, keys)
    alike = np.ones((4, 3), np.float32), np.ones((9, 3), np.float32)
    collapsed = best_ranks(*alike, lambda places: places[:, None] == np.arange(9))
    assert (collapsed == 9).all()


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    things = ["card", "rate", "cash", "app", "fee", "pin", "bank", "top up", "refund", "limit"]
    lines = ["question,answer,score"]
    for i in range(60):
        asked, told = things[i % 10], things[i % 10 if i % 2 else (i + 3) % 10]
        lines.append(f"where is my {asked} number {i},your {told} is here {i},{5.0 if i % 2 else 1.0}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_sides_of_one_kind_share_an_encoder_that_is_an_ordinary_one(questions: Path, tmp_path: Path) -> None:
    run = fs.train(questions, columns={"text": "question,answer"}, steps=30, out=tmp_path / "run", **TEXT)
    bundle = fs.load(run.bundle)
    assert run.recipe.method == "pairs" and bundle.modality == "text"
    assert bundle.embed(["a text"]).shape == (1, 16)
    report = fs.evaluate(bundle, questions, checks=["retrieval"], text="question,answer")
    assert 0 <= report["retrieval.question_to_answer.recall@10"] <= 1


def test_scored_pairs_learn_their_order(questions: Path, tmp_path: Path) -> None:
    columns = {"text": "question,answer", "score": "score"}
    run = fs.train(questions, columns=columns, steps=80, lr=3e-3, out=tmp_path / "run", **TEXT)
    assert run.recipe.method == "scored"
    report = fs.evaluate(run.bundle, questions, checks=["similarity"], **columns)
    assert report["similarity.spearman"] > 0.6
    with pytest.raises(BadInput, match="needs scores; give --score"):
        fs.train(questions, method="scored", columns={"text": "question,answer"}, out=tmp_path / "no", **TEXT)
    with pytest.raises(BadInput, match="learns from pairs"):
        fs.train(questions, method="pairs", columns={"text": "question"}, steps=2, out=tmp_path / "no", **TEXT)


def test_further_sides_can_be_negatives_of_other_things(tmp_path: Path) -> None:
    path = tmp_path / "triplets.csv"
    rows = [f"red thing {i},a red one {i},a blue one {i}" for i in range(40)]
    path.write_text("\n".join(["anchor,positive,negative", *rows]) + "\n")
    columns = {"text": "anchor,positive,negative"}
    run = fs.train(path, columns=columns, steps=40, lr=3e-3, out=tmp_path / "run", **TEXT)
    assert run.recipe.options == {"negatives": 1}  # by the column's name
    z = fs.load(run.bundle).embed(["red thing 3", "a red one 3", "a blue one 3"])
    assert z[0] @ z[1] > z[0] @ z[2]


def test_the_gradient_of_hard_negatives_flows(questions: Path) -> None:
    from fastness.losses import LOSSES
    from fastness.losses.pairs import between

    torch.manual_seed(0)
    x, y, n = (torch.randn(6, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    loss = LOSSES.get("nt-xent")()(between(x, y, torch.arange(6), torch.nn.functional.normalize(n, dim=1)), 10.0)
    loss.backward()
    unit = [torch.nn.functional.normalize(t.detach().requires_grad_(), dim=1) for t in (x, y, n)]
    logits = 10 * unit[0] @ torch.cat(unit[1:]).T
    wanted = torch.nn.functional.cross_entropy(logits, torch.arange(6))
    assert torch.allclose(loss, wanted) and n.grad.abs().max() > 0


def test_hard_negatives_are_those_of_a_loop_also_below_zero() -> None:
    from fastness.index.mining import hard_negatives

    draw = np.random.default_rng(0)
    x, y = (draw.normal(size=(40, 4)).astype(np.float32) for _ in range(2))
    x, y = x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)
    keys = draw.integers(0, 25, 40)
    found = hard_negatives(x, y, lambda places: keys[places, None] == keys, number=3, margin=0.1)
    below = 0
    for i in range(40):
        right = float(x[i] @ y[i])
        below += right < 0
        wrong = [(float(x[i] @ y[j]), j) for j in range(40) if keys[j] != keys[i]]
        allowed = sorted((s, j) for s, j in wrong if s <= right - 0.1 * abs(right))[::-1][:3]
        assert [j for j in found.rows[i] if j >= 0] == [j for _, j in allowed]
        assert np.allclose([s for s in found.scores[i] if not np.isnan(s)], [s for s, _ in allowed], atol=1e-5)
    assert below > 5


def test_held_out_pairs_are_not_mined(questions: Path, tmp_path: Path) -> None:
    from fastness.tasks.mine import mine

    head, *lines = questions.read_text().splitlines()
    parted = tmp_path / "parted.csv"
    rows = [f"{line},{'test' if i < 20 else 'train'}" for i, line in enumerate(lines)]
    parted.write_text("\n".join([f"{head},split", *rows]))
    run = fs.train(questions, text="question,answer", steps=1, out=tmp_path / "run", **TEXT)
    mine(run.bundle, parted, tmp_path / "triplets.parquet", text="question,answer")
    found = pq.read_table(tmp_path / "triplets.parquet").to_pylist()
    held_out = {cell for line in lines[:20] for cell in line.split(",")[:2]}
    assert found and not held_out & {cell for row in found for cell in row.values()}


def test_pairs_become_triplets_that_can_be_trained_on(questions: Path, tmp_path: Path) -> None:
    from fastness.tasks.mine import mine

    run = fs.train(questions, columns={"text": "question,answer"}, steps=10, out=tmp_path / "run", **TEXT)
    made, without = mine(run.bundle, questions, tmp_path / "triplets.parquet", text="question,answer")
    rows = pq.read_table(tmp_path / "triplets.parquet").to_pylist()
    assert made == len(rows) and made + without == 60 and made > 10
    assert all(row["negative"] != row["positive"] for row in rows)
    columns = {"text": "anchor,positive,negative"}
    fs.train(tmp_path / "triplets.parquet", columns=columns, steps=3, out=tmp_path / "x", **TEXT)
    with pytest.raises(BadInput, match="two columns of texts"):
        mine(run.bundle, questions, tmp_path / "t.csv", text="question")


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a colour with columns that tell it too, a title, and one column that tells nothing."""
    path = tmp_path_factory.mktemp("products") / "all.parquet"
    names = list(COLOURS) * 20
    draw = np.random.default_rng(0)
    columns = {
        "photo": [{"bytes": picture(name, i), "path": None} for i, name in enumerate(names)],
        "title": [f"a {name} square" for name in names],
        "brightness": [sum(COLOURS[name]) / 3 + draw.normal(0, 2) for name in names],
        "paint": names,
        "shelf": draw.integers(0, 9, len(names)),
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_a_picture_and_a_row_share_a_space(products: Path, tmp_path: Path) -> None:
    columns = {"image": "photo", "row": "brightness,paint", "group": "paint"}
    with pytest.raises(BadInput, match="'paint' is no part of the row"):
        fs.open_data(products, **columns)
    columns["group"] = "title"
    run = fs.train(products, columns=columns, steps=60, batch_size=16, out=tmp_path / "run", quiet=True)
    report = fs.evaluate(run.bundle, products, checks=["retrieval"], **columns)
    assert report["retrieval.row_to_photo.recall@1"] > 0.9
    bundle = fs.load(run.bundle)
    row = {"brightness": sum(COLOURS["blue"]) / 3, "paint": "blue"}
    assert bundle.embed([row], side="row").shape == bundle.embed([row], side="table").shape == (1, 128)
    answers = fs.search(run.bundle, products, '{"paint": "blue"}', k=5, image="photo", label="paint")
    assert {hit.label for hit in answers.hits} == {"blue"}


def test_the_columns_of_a_row_are_those_that_mean_nothing_else(products: Path) -> None:
    opened = sides_of(fs.open_data(products, image="photo", text="title", row="rest", label="paint"))
    assert list(opened) == ["photo", "title", "row"] and set(opened["row"].payloads.read(0)) == {"brightness", "shelf"}
    alone = fs.open_data(products, row="paint,shelf")
    assert alone.modality == "table" and set(alone.payloads.read(0)) == {"paint", "shelf"}
    with pytest.raises(BadInput, match="no column 'prize'"):
        fs.open_data(products, row="prize")
    with pytest.raises(BadInput, match="two sides of one name"):
        fs.open_data(products, text="title,title")


def test_what_each_side_took_for_something_else_is_counted(tmp_path: Path) -> None:
    from fastness.evaluation.subject import Subject

    path = tmp_path / "things.csv"
    rows = [f"thing number {i},{'abc' if i % 50 == 7 else i % 40},{'xy'[i % 2]}" for i in range(100)]
    path.write_text("\n".join(["said,price,kind", *rows]))
    columns = {"text": "said", "row": "price,kind"}
    made = fs.train(path, columns=columns, steps=1, batch_size=16, width=8, out=tmp_path / "run", quiet=True)
    subject = Subject.of(fs.load(made.bundle), fs.open_data(path, **columns), 0)
    assert dict(subject.held_out.handled) == {"column 'price': cells that cannot be read": 2}


def test_recall_is_the_share_of_first_right_answers_that_stand_high_enough(run, captioned: Path) -> None:
    """Both ways between random vectors, with Wilson's interval; of each item its rank and whether it is within."""
    from fastness.data.sides import right_answers
    from fastness.evaluation.checks.retrieval import Retrieval
    from fastness.evaluation.subject import Subject

    real = Subject.of(fs.load(run.bundle), fs.open_data(captioned, **COLUMNS), 0)
    names, n = list(real.sides), len(real.unfitted)
    draw = np.random.default_rng(0)
    vectors = {name: draw.normal(size=(n, 4)).astype(np.float32) for name in names}
    vectors = {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in vectors.items()}

    class Drawn(Subject):
        def side_vectors(self, name: str) -> np.ndarray:
            return vectors[name]

    found = Retrieval().run(Drawn(**{name: getattr(real, name) for name in real.__dataclass_fields__}))
    assert found.dataset is real.unfitted and len(found.measurements) == 6
    by_name = {m.name: m for m in found.measurements}
    for asking, answering in (names, names[::-1]):
        right = right_answers(real.unfitted, asking, answering)(np.arange(n))
        scores = vectors[asking] @ vectors[answering].T
        ranks = np.array([1 + (s[~r] >= s[r].max()).sum() for s, r in zip(scores, right, strict=True)])
        way = f"{asking}_to_{answering}"
        assert np.array_equal(found.items[f"{way}_rank"], ranks)
        shares = []
        for depth in (1, 5, 10):
            hits, m = int((ranks <= depth).sum()), by_name[f"retrieval.{way}.recall@{depth}"]
            assert np.array_equal(found.items[f"{way}.recall@{depth}"], ranks <= depth)
            assert (m.value, m.low, m.high, m.n) == (hits / n, *wilson(hits, n), n)
            assert (m.over, m.unit, m.data, m.better) == ("items", "share", real.unfitted.fingerprint, "higher")
            shares.append(m.value)
        assert 0 < shares[0] < shares[1] < shares[2] <= 1
    alone = {names[0]: real.sides[names[0]]}
    assert "several sides" in str(Retrieval().missing(replace(real, sides=alone)))
    assert Retrieval().missing(real) is None
