"""Texts: tokens, views, encoders, the folder that sentence-transformers loads, and what damaged texts come to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastness as fs
from fastness.core.errors import BadInput
from fastness.core.recipe import Recipe
from fastness.data.text import dataset_of, tokenised
from fastness.encoders import build, modality
from fastness.training import plan
from fastness.views.text import TextView, TextViews, uniform

quick = settings(max_examples=30, deadline=None, derandomize=True)
WORDS = ["a", "the", "red", "blue", "dog", "cat", "runs", "sleeps", "on", "under", "grass", "house", "small", "man"]
NETWORKS = [("transformer", "mean"), ("transformer", "cls"), ("transformer", "max"), ("static", "mean")]


def sentences(n: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 18))) for _ in range(n)]


def encoder_of(name: str = "transformer", pooling: str = "mean", **more):
    network = {"layers": 2, "pooling": pooling, "vocabulary": 100, **more}
    recipe = Recipe(encoder=name, width=16, size=24, network=network)
    torch.manual_seed(0)
    return build(modality("text").fit(recipe, dataset_of(sentences(200)))).eval()


@pytest.mark.parametrize(("name", "pooling"), NETWORKS)
@torch.no_grad()
def test_a_text_has_one_vector_whatever_its_batch_order_and_padding(name: str, pooling: str) -> None:
    encoder = encoder_of(name, pooling)
    items = encoder.prepare(dataset_of(sentences(40, 1)))
    together = encoder(items.batch(np.arange(40)))
    alone = torch.cat([encoder(items.batch(np.array([i]))) for i in range(40)])
    order = np.random.default_rng(0).permutation(40)
    padded = torch.nn.functional.pad(items.batch(order), (0, 7), value=-1)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together[order], encoder(padded), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_in_training_texts_of_like_length_go_together_and_nothing_else_changes(pooling: str) -> None:
    encoder = encoder_of(pooling=pooling, dropout=0.0).double()
    batch = encoder.prepare(dataset_of(sentences(75, 3))).batch(np.arange(75))
    batch = torch.nn.functional.pad(batch, (0, 2), value=-1)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(75, encoder.dim)))
    found = []
    for training in (False, True):
        vectors = encoder.train(training)(batch)
        encoder.zero_grad(set_to_none=True)
        (vectors * weights).sum().backward()
        found.append([vectors.detach(), *(p.grad for p in encoder.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in zip(*found, strict=True))


def test_batches_give_every_text_once_and_pad_little() -> None:
    encoder = encoder_of()
    items = encoder.prepare(dataset_of(sentences(300)))
    seen, places = [], 0
    for positions, batch in items.batches(32):
        seen += positions.tolist()
        places += batch.numel()
        assert torch.equal(batch, items.batch(positions))
    assert sorted(seen) == list(range(300))
    assert places < 1.3 * len(items.tokens)
    chosen = items.select(np.array([5, 3, 250]))
    assert [chosen.batch(np.array([i]))[0].tolist() for i in range(3)] == [
        items.batch(np.array([i]))[0].tolist() for i in (5, 3, 250)
    ]


@quick
@given(st.integers(0, 2**32), st.integers(1, 40), st.floats(0.05, 0.95), st.floats(0.05, 1.0))
def test_views_keep_marks_order_and_at_least_one_word(seed: int, length: int, delete: float, span: float) -> None:
    batch = torch.full((6, 40), -1, dtype=torch.int32)
    for row in range(6):
        batch[row, : length + 2] = torch.tensor([1, *range(10, 10 + length), 2])
    views = TextViews([TextView(count=2, delete=delete, span=span)], [0, 1, 2, 3], 3)
    for view in views(batch, torch.Generator().manual_seed(seed)):
        for row in view:
            kept = row[row >= 0].tolist()
            assert kept[0] == 1 and kept[-1] == 2 and len(kept) >= 3
            assert kept[1:-1] == sorted(kept[1:-1]) and set(kept[1:-1]) <= set(range(10, 10 + length))
            assert (row[len(kept) :] == -1).all()
            if delete == 0:
                assert kept[-2] - kept[1] == len(kept) - 3


def test_a_text_gets_the_same_view_however_long_the_others_are_and_in_whatever_part() -> None:
    short = torch.tensor([[1, 10, 11, 12, 13, 2]], dtype=torch.int32)
    batch = torch.cat(
        [torch.nn.functional.pad(short, (0, 20), value=-1), torch.arange(10, 36, dtype=torch.int32)[None]]
    )
    views = TextViews([TextView(count=2, delete=0.4, shuffle=0.5, mask=0.2)], [0, 1, 2], 3)

    def rows(view: torch.Tensor) -> list[list[int]]:
        return [row[row >= 0].tolist() for row in view]

    whole = views(batch, torch.Generator().manual_seed(3))
    part = views(short, torch.Generator().manual_seed(3), 0, 2)
    assert [rows(v)[0] for v in whole] == [rows(v)[0] for v in part]
    second = views(batch[1:], torch.Generator().manual_seed(3), 1, 2)
    assert [rows(v)[1] for v in whole] == [rows(v)[0] for v in second]


def test_shuffling_only_exchanges_places_and_shares_are_as_asked() -> None:
    batch = torch.arange(10, 60, dtype=torch.int32).repeat(400, 1)
    made = TextViews([TextView(count=1, shuffle=0.5)], [], None)(batch, torch.Generator().manual_seed(0))[0]
    assert torch.equal(made.sort(1).values, batch)
    assert 0.44 < float((made != batch).float().mean()) < 0.52
    kept = TextViews([TextView(count=1, delete=0.3)], [], None)(batch, torch.Generator().manual_seed(0))[0]
    assert abs(float((kept >= 0).sum()) / batch.numel() - 0.7) < 0.01
    hidden = TextViews([TextView(count=1, mask=0.3)], [], 5)(batch, torch.Generator().manual_seed(0))[0]
    assert abs(float((hidden == 5).float().mean()) - 0.3) < 0.01
    span = TextViews([TextView(count=1, span=0.4)], [], None)(batch, torch.Generator().manual_seed(0))[0]
    assert ((span >= 0).sum(1) == 20).all() and (span[:, 1:20] - span[:, :19] == 1).all()


def test_the_counter_based_numbers_are_uniform_and_independent() -> None:
    from scipy.stats import kstest

    keys = torch.randint(1 << 62, (300,), generator=torch.Generator().manual_seed(0))
    u = uniform(keys, 100).numpy()
    assert kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 0.2 and abs(np.corrcoef(u[0], u[1])[0, 1]) < 0.35
    assert np.array_equal(u[:, :10], uniform(keys, 10).numpy())


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("\n".join(sentences(120)) + "\n")
    return path


SMALL = {"width": 16, "network": {"layers": 1}, "batch_size": 16, "steps": 6, "quiet": True}


@pytest.fixture(scope="module")
def run(lines: Path, tmp_path_factory: pytest.TempPathFactory):
    return fs.train(lines, out=tmp_path_factory.mktemp("run"), **SMALL)


def test_sentence_transformers_loads_the_bundle_and_gives_the_same_vectors(run, lines: Path) -> None:
    import sentence_transformers

    theirs = sentence_transformers.SentenceTransformer(str(run.bundle), device="cpu")
    texts = sentences(30, 5)
    assert np.allclose(theirs.encode(texts), fs.load(run.bundle).embed(texts), atol=1e-5)


def test_a_static_bundle_loads_there_too_and_is_adopted_back(lines: Path, tmp_path: Path) -> None:
    import sentence_transformers

    made = fs.train(lines, encoder="static", out=tmp_path / "run", **{**SMALL, "network": {}})
    texts = sentences(30, 5)
    ours = fs.load(made.bundle).embed(texts)
    theirs = sentence_transformers.SentenceTransformer(str(made.bundle), device="cpu")
    assert np.allclose(theirs.encode(texts), ours, atol=1e-5)
    theirs.save(str(tmp_path / "theirs"))
    assert np.allclose(fs.adopt(str(tmp_path / "theirs"), tmp_path / "back").embed(texts), ours, atol=1e-5)


def test_what_sentence_transformers_saves_is_adopted_and_trained_on(run, lines: Path, tmp_path: Path) -> None:
    import sentence_transformers

    sentence_transformers.SentenceTransformer(str(run.bundle), device="cpu").save(str(tmp_path / "theirs"))
    texts = sentences(30, 5)
    adopted = fs.adopt(str(tmp_path / "theirs"), tmp_path / "adopted")
    assert np.allclose(adopted.embed(texts), fs.load(run.bundle).embed(texts), atol=1e-5)
    tuned = fs.train(lines, init=str(adopted.path), out=tmp_path / "tuned", batch_size=16, steps=3, quiet=True)
    assert not np.allclose(fs.load(tuned.bundle).embed(texts), adopted.embed(texts), atol=1e-4)


@pytest.mark.parametrize("method", ["masked", "denoise", "byol"])
def test_other_methods_learn_from_texts(method: str, lines: Path, tmp_path: Path) -> None:
    made = fs.train(lines, method=method, out=tmp_path / "run", **{**SMALL, "steps": 30, "lr": 3e-3})
    losses = [json.loads(line).get("loss") for line in (made.folder / "events.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    assert losses[-1] < losses[0]


def test_static_vectors_learn_to_say_texts_longer_than_their_places(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("\n".join(f"{'red blue green ' * 60}{i}" for i in range(40)))
    made = fs.train(path, method="denoise", encoder="static", out=tmp_path / "run", **{**SMALL, "steps": 2})
    assert fs.load(made.bundle).embed(["red"]).shape[0] == 1


@pytest.mark.parametrize("method", ["masked", "denoise"])
def test_a_gradient_cache_gives_predicting_methods_the_gradient_of_the_whole(method: str) -> None:
    """Dropout aside, which draws anew for each part."""
    from fastness.methods import METHODS, Known
    from fastness.training.batches import Batch
    from fastness.training.gradient_cache import cached_step

    encoder = encoder_of()
    made = METHODS.get(method)(encoder, 0.1).double().eval()
    batch = encoder.prepare(dataset_of(sentences(8))).batch(np.arange(8))
    parts = [Batch([batch[:4]], Known()), Batch([batch[4:]], Known())]
    loss = 0.0
    for number, part in enumerate(parts):
        torch.manual_seed(5 + number)
        outcome = made(part.views, part.known)
        (outcome.loss / 2).backward()
        loss += float(outcome.loss.detach()) / 2
    wanted = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    made.zero_grad(set_to_none=True)
    whole = cached_step(made, lambda: iter(parts), torch.Tensor.backward, 5)
    assert abs(float(whole.loss) - loss) < 1e-9
    for name, p in made.named_parameters():
        if name in wanted:
            assert torch.allclose(p.grad, wanted[name], rtol=1e-6, atol=1e-9), name


def test_the_same_texts_give_the_same_tokenizer() -> None:
    from fastness.encoders.tokens import train_tokenizer

    texts = [f"{word}{i} naïve-{word[::-1]}" for i, word in enumerate(sentences(300, 7))]
    made = [train_tokenizer(texts, 400, True) for _ in range(4)]
    assert len({tokenizer.to_str() for tokenizer in made}) == 1
    assert "##a" not in [token.content for token in made[0].get_added_tokens_decoder().values()]
    assert made[0].encode("naïve words").tokens[0] == "[CLS]"


def test_the_blocks_that_learn_are_in_training_mode_and_no_others() -> None:
    encoder = encoder_of()
    encoder.freeze_all_but(1)
    encoder.train()
    first, last = encoder.backbone.blocks
    assert last.training and all(module.training for module in last.modules())
    assert not any(module.training for module in first.modules())
    assert not encoder.backbone.net.embeddings.dropout.training


def test_an_adopted_model_is_float32_and_no_longer_than_its_places(run, tmp_path: Path) -> None:
    import sentence_transformers

    sentence_transformers.SentenceTransformer(str(run.bundle), device="cpu").half().save(str(tmp_path / "half"))
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    (tmp_path / "half" / "config.json").write_text(
        json.dumps({**config, "dtype": "float16", "auto_map": {"AutoModel": "x.y"}})
    )
    adopted = fs.adopt(str(tmp_path / "half"), tmp_path / "adopted")
    assert {p.dtype for p in adopted.encoder.parameters()} == {torch.float32}
    with pytest.raises(BadInput, match="places for 128 tokens"):
        fs.adopt(str(tmp_path / "half"), tmp_path / "long", size=1024)
    (tmp_path / "half" / "config.json").write_text(
        json.dumps({**config, "model_type": "t5", "architectures": ["T5Model"]})
    )
    with pytest.raises(BadInput, match="transformer: "):
        fs.adopt(str(tmp_path / "half"), tmp_path / "t5")


HOSTILE = {
    "empty": "",
    "blank": " \t\u200b ",
    "surrogate": "half \ud83d pair",
    "control": "\x00\x01",
}
ODD = ["שלום עולם, טקסט מימין לשמאל", "🙂🙃🙂", "word " * 200_000, "a\x00b", "İstanbul ǅ ﬁ", "=1+1", "漢字" * 50]


def test_odd_texts_are_embedded_and_damaged_ones_named(run) -> None:
    bundle = fs.load(run.bundle)
    assert np.isfinite(bundle.embed(ODD)).all()
    for name, text in HOSTILE.items():
        with pytest.raises(BadInput, match=r"item 1: (empty|half of a surrogate)") as error:
            bundle.embed(["fine", text])
        assert "\n" not in str(error.value), name
    with pytest.raises(BadInput, match="item 0: a int, not a text"):
        bundle.embed([3])
    assert bundle.embed([]).shape == (0, bundle.dim)


@quick
@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
def test_any_text_is_tokenised_or_refused_in_a_line(texts: list[str]) -> None:
    tokenizer = encoder_of().spec.load_tokenizer()
    try:
        items = tokenised(dataset_of(texts), tokenizer)
    except BadInput as error:
        assert "\n" not in str(error)
        return
    assert len(items) == len(texts) and (items.lengths <= 24).all()


def test_a_file_of_hostile_lines_is_read_and_counted(run, tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    good = [line for line in ODD if "\x00" not in line]
    path.write_bytes("\n".join([*good, "", "   ", "fine"]).encode() + b"\nlatin \xe9t\xe9\n")
    opened = fs.open_data(path)
    assert opened.modality == "text" and len(opened) >= len(good) + 1
    assert np.isfinite(fs.load(run.bundle).embed(path)).all()


def test_the_same_texts_give_the_same_tokenizer_though_signs_are_many(tmp_path: Path) -> None:
    """In processes of their own, since the trainer's order of signs differs from one to the next."""
    script = """
from fastness.encoders.tokens import train_tokenizer
greek = [chr(0x3B1 + i) for i in range(24)]
texts = [f"thing {i} über die naïve {greek[i % 24]}{greek[i * 7 % 24]} {i * 7919}" for i in range(60)]
print(train_tokenizer(texts, 64, True).to_str())
"""
    found = {subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in range(3)}
    assert len(found) == 1


def test_texts_have_no_head_unless_asked():
    """Methods that can do without one do; others keep theirs, and what is asked for wins."""
    texts = fs.open_data({"text": ["one thing", "another thing", "a third one"] * 20}, text="text")

    def options(**asked: Any) -> dict[str, Any]:
        return plan.complete(Recipe.parse({"steps": 1, **asked}), texts, torch.device("cpu")).options

    assert options() == {"projection": 0}
    assert options(options={"projection": 16, "mask": "similar"}) == {"projection": 16, "mask": "similar"}
    assert options(method="moco") == {}
    assert options(method="masked", encoder="transformer") == {}
