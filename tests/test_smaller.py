"""Smaller encoders: what distilling, pruning and narrowing must keep, and what they must take away."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import fastness as fs
from conftest import Ended, pictures, required, teacher
from fastness.bundle import Bundle, write
from fastness.core.errors import BadInput, GateRefused
from fastness.data import Dataset
from fastness.data.manifest import Manifest
from fastness.delivery.narrowing import narrow
from fastness.delivery.prune import prune
from fastness.encoders import Encoder, Spec, build
from fastness.encoders.image import ImageSpec
from fastness.encoders.text_spec import TextSpec
from fastness.encoders.tokens import train_tokenizer
from fastness.losses.relation import relation
from fastness.methods import METHODS
from fastness.methods.distil import Distil, _as_read_by, _lengths

NOTHING = Manifest([], np.zeros((0, 32), np.uint8))
PICTURES = pictures(60, 16)
SENTENCES = [
    " ".join(np.random.default_rng(i).choice(["a", "red", "cat", "sees", "two", "dogs"], 7)) for i in range(60)
]
PRUNABLE = ("resnet18", "resnet50", "vit-tiny", "transformer")


def saved(encoder: Encoder, folder: Path) -> Path:
    write(folder, encoder, {"method": "none"}, NOTHING)
    return folder


def text_spec(**config: Any) -> TextSpec:
    tokenizer = train_tokenizer(SENTENCES, 100, True)
    values = {"model_type": "bert", "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 32,
              "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48,
              "max_position_embeddings": 32, "type_vocab_size": 1, "pad_token_id": 0}  # fmt: skip
    return TextSpec("transformer", 16, tokenizer.to_str(), values | config)


def spec_of(name: str) -> Spec:
    if name == "transformer":
        return text_spec()
    return ImageSpec(name, 16, {"width": 32, "depth": 3} if name.startswith("vit") else {"width": 8, "stem": "small"})


def encoder_of(name: str, seed: int = 0) -> Encoder:
    """Random, its batch statistics those of the pictures, and with biases other than 0."""
    torch.manual_seed(seed)
    encoder = build(spec_of(name))
    with torch.no_grad():
        for key, parameter in encoder.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(std=0.1)
        if name != "transformer":
            for _ in range(20):
                encoder.train()(encoder.preprocess(torch.from_numpy(PICTURES).permute(0, 3, 1, 2)))
    return encoder.eval()


def items(name: str) -> Any:
    return {"text": SENTENCES} if name == "transformer" else PICTURES


def embedded(bundle: Path | str) -> np.ndarray:
    loaded = fs.load(bundle)
    return loaded.embed(SENTENCES if loaded.modality == "text" else PICTURES)


# --- the relation of items ------------------------------------------------------------------------


def naive(student: torch.Tensor, theirs: torch.Tensor, temperature: float) -> float:
    found = 0.0
    for i in range(len(student)):
        others = [j for j in range(len(student)) if j != i]
        p, q = (
            torch.softmax(torch.stack([F.cosine_similarity(z[i], z[j], 0) for j in others]) / temperature, 0)
            for z in (theirs, student)
        )
        found += float((p * (p / q).log()).sum())
    return found / len(student)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_relation_is_the_divergence_from_whom_the_teacher_finds_near(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    theirs = torch.randn(7, 9, generator=generator, dtype=torch.float64)
    loss = relation(student, theirs, temperature)
    assert float(loss.detach()) == pytest.approx(naive(student.detach(), theirs, temperature), rel=1e-9)
    loss.backward()
    assert student.grad is not None and student.grad.isfinite().all() and student.grad.abs().sum() > 0


def test_the_relation_is_nothing_where_all_cosines_agree_whatever_lengths_and_axes() -> None:
    theirs = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q[:5]
    assert abs(float(relation(3 * theirs @ turned, theirs, 0.1))) < 1e-12
    assert float(relation(theirs.roll(1, 0), theirs, 0.1)) > 0.01


# --- distillation ---------------------------------------------------------------------------------


def distilling(student: Encoder | None = None, **options: Any) -> Distil:
    torch.manual_seed(0)
    student = student or build(ImageSpec("resnet18", 16, {"width": 4}))
    made = METHODS.get("distil")(student, 0.1, **{**required("distil"), **options})
    assert isinstance(made, Distil)
    return made


@pytest.mark.parametrize("size", [8, 16, 32])
def test_the_teacher_sees_the_students_view_in_its_own_normalisation_and_size(size: int) -> None:
    pixels = torch.from_numpy(pictures(3, size)).permute(0, 3, 1, 2)
    ours = build(ImageSpec("resnet18", size, {"width": 4}, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    theirs = build(ImageSpec("resnet18", 16, {"width": 4}, (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)))
    seen = _as_read_by(theirs, ours, ours.preprocess(pixels))
    # Its own resizing rounds to bytes, which a view has not been.
    torch.testing.assert_close(seen, theirs.preprocess(pixels), rtol=0, atol=1e-5 if size == 16 else 0.05)
    half = _as_read_by(theirs, ours, ours.preprocess(pixels)[..., : size // 2, : size // 2])
    assert half.shape[-1] == 8  # a small view stays as small to the teacher as it is to the student


def test_the_teacher_never_changes() -> None:
    method = distilling().train()
    before = {name: tensor.clone() for name, tensor in method.teacher.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        method([torch.randn(6, 3, 16, 16)]).loss.backward()
        optimizer.step()
    assert not method.teacher.training and method.encoder.training
    assert all(torch.equal(before[name], tensor) for name, tensor in method.teacher.state_dict().items())


@given(st.integers(1, 600), st.integers(0, 700))
def test_nested_lengths_are_halves_down_to_the_shortest(dim: int, shortest: int) -> None:
    if shortest > dim:
        with pytest.raises(BadInput, match="nested"):
            _lengths(dim, shortest)
        return
    found = _lengths(dim, shortest)
    assert found[0] == dim and all(b == a // 2 for a, b in itertools.pairwise(found))
    assert min(found) >= shortest and (not shortest or found[-1] // 2 < shortest)


def test_the_nested_loss_is_the_mean_over_the_starts_of_the_vectors() -> None:
    views = [torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))]
    method = distilling(nested=8, regress=0.0).eval()
    found = method.represent(views)
    z, t = found["vectors"][:, 0], found["target"][:, 0]
    expected = torch.stack([relation(z[:, :length], t, 0.1) for length in (32, 16, 8)]).mean()
    torch.testing.assert_close(method(views).loss, expected)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return fs.open_data("digits").split("train").select(np.arange(400))


@pytest.fixture(scope="module")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle whose neighbours are worth learning."""
    folder = tmp_path_factory.mktemp("trained")
    return fs.train(digits, method="supervised", width=8, size=16, batch_size=50, steps=60, out=folder / "run",
                    quiet=True).bundle  # fmt: skip


def shared(student: Bundle, whole: Path, items: Dataset) -> float:
    """Return how many of its 10 nearest items an item has in common with the teacher, on average."""
    nearest = [np.argsort(-(z @ z.T), 1)[:, 1:11] for z in (b.embed(items) for b in (student, fs.load(whole)))]
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(*nearest, strict=True)]))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_students_neighbours_are_its_teachers_more_than_an_untrained_ones(
    seed: int, digits: Dataset, trained: Path, tmp_path: Path
) -> None:
    made = fs.train(digits, method="distil", options={"teacher": str(trained)}, width=4, size=16, batch_size=50,
                    steps=80, seed=seed, out=tmp_path / "run", quiet=True)  # fmt: skip
    bundle = fs.load(made.bundle)
    untrained = Bundle(tmp_path, "", bundle.encoder.untrained(), {}, {})
    assert shared(bundle, trained, digits) > 1.5 * shared(untrained, trained, digits)
    assert bundle.recipe["parents"] == {"teacher": fs.load(trained).id}


def test_a_run_whose_teacher_was_replaced_is_not_resumed(tmp_path: Path) -> None:
    place = saved(build(ImageSpec("resnet18", 16, {"width": 2})), tmp_path / "teacher")

    def run() -> None:
        fs.train(PICTURES, method="distil", options={"teacher": str(place)}, width=2, size=16, batch_size=10, steps=1,
                 out=tmp_path / "run", quiet=True)  # fmt: skip

    run()
    saved(encoder_of("resnet18", seed=5), place)
    with pytest.raises(BadInput, match="another bundle"):
        run()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"teacher": ""}, "--option teacher=BUNDLE"),
        ({"teacher": "nowhere"}, "no bundle here"),
        ({"regress": 0.0, "relate": 0.0}, "both 0"),
        ({"nested": 1000}, "more than the 32"),
    ],
)
def test_what_cannot_be_distilled_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        distilling(**options)


def test_a_teacher_that_reads_otherwise_is_refused(tmp_path: Path) -> None:
    texts = saved(build(text_spec()), tmp_path / "texts")
    with pytest.raises(BadInput, match="cannot teach"):
        distilling(teacher=str(texts))
    other = train_tokenizer(["wholly other words"], 80, True)
    student = build(TextSpec("transformer", 16, other.to_str(), text_spec(vocab_size=other.get_vocab_size()).config))
    with pytest.raises(BadInput, match="fastness prune"):
        distilling(student, teacher=str(texts))
    assert distilling(build(text_spec(num_hidden_layers=1)), teacher=str(texts)).teacher.dim == 32


# --- pruning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRUNABLE)
def test_keeping_all_changes_nothing(name: str, tmp_path: Path) -> None:
    whole = saved(encoder_of(name), tmp_path / "whole")
    made = prune(whole, items(name), 1.0, out=tmp_path / "same")
    assert made.before == made.after and made.gone == ()
    assert np.array_equal(embedded(tmp_path / "same"), embedded(whole))
    assert fs.load(tmp_path / "same").recipe["parents"] == {"pruned": fs.load(whole).id}


def still(encoder: Encoder, name: str, share: float) -> None:
    """Make every unit but a share of each block give the same whatever comes in."""
    with torch.no_grad():
        for block in (m for m in encoder.modules() if isinstance(m, nn.Module)):
            for norm in (getattr(block, "bn1", None), getattr(block, "bn2", None) if hasattr(block, "bn3") else None):
                if norm is not None:
                    quiet = torch.arange(len(norm.weight)) % round(1 / share) > 0
                    norm.weight[quiet], norm.bias[quiet] = 0.0, -0.1  # ReLU makes 0 of it, borders' padding too
            for key in ("mlp", "intermediate"):
                first = getattr(getattr(block, key, None), "fc1" if key == "mlp" else "dense", None)
                if first is not None:
                    quiet = torch.arange(len(first.weight)) % round(1 / share) > 0
                    first.weight[quiet], first.bias[quiet] = 0.0, 0.7  # a constant, which the next bias takes up


@pytest.mark.parametrize("name", PRUNABLE)
def test_units_that_always_give_the_same_go_without_a_trace(name: str, tmp_path: Path) -> None:
    encoder = encoder_of(name)
    still(encoder, name, 0.5)
    if name.startswith("vit"):  # its only head would go with them
        encoder = build(ImageSpec(name, 16, {"width": 128, "depth": 2}))
        still(encoder, name, 0.5)
        with torch.no_grad():
            for block in encoder.backbone.blocks:
                block.attn.qkv.weight[-64:], block.attn.qkv.bias[-64:] = 0.0, 0.3  # the second head's values
    whole = saved(encoder, tmp_path / "whole")
    made = prune(whole, items(name), 0.5, out=tmp_path / "half")
    assert made.after.parameters < 0.9 * made.before.parameters and made.after.operations < 0.8 * made.before.operations
    assert np.allclose(embedded(tmp_path / "half"), embedded(whole), atol=2e-5)


def test_parameters_fall_as_the_shapes_say(tmp_path: Path) -> None:
    whole = saved(encoder_of("resnet18"), tmp_path / "whole")
    made = prune(whole, PICTURES, 0.25, layers=1, out=tmp_path / "small")
    encoder = fs.load(tmp_path / "small").encoder
    expected = 3 * 8 * 9 + 16  # the stem
    inputs = 8
    for number in range(8):
        width = 8 << number // 2
        if number in made.gone:
            assert isinstance(encoder.backbone.blocks[number], nn.Identity)
            continue
        inner = width // 4
        expected += 9 * inner * (inputs + width) + 2 * (inner + width)
        expected += inputs * width + 2 * width if inputs != width else 0
        inputs = width
    assert made.after.parameters == expected == sum(p.numel() for p in encoder.parameters())


def test_channels_stay_in_the_numbers_that_kernels_are_made_for(tmp_path: Path) -> None:
    whole = saved(build(ImageSpec("resnet18", 16, {"width": 16})), tmp_path / "whole")
    for keep, expected in ((0.35, [6, 8, 24, 48]), (0.97, [16, 32, 64, 128]), (1.0, [16, 32, 64, 128])):
        prune(whole, PICTURES, keep, out=tmp_path / f"{keep}")
        blocks = fs.load(tmp_path / f"{keep}").encoder.backbone.blocks
        assert [len(block.bn1.weight) for block in blocks[::2]] == expected


@pytest.mark.parametrize("name", ["resnet18", "vit-tiny"])
def test_the_block_that_does_nothing_goes_first(name: str, tmp_path: Path) -> None:
    encoder = encoder_of(name)
    block = encoder.backbone.blocks[1]
    for part in (block.bn2,) if name == "resnet18" else (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    whole = saved(encoder, tmp_path / "whole")
    made = prune(whole, PICTURES, layers=1, out=tmp_path / "less")
    assert made.gone == (1,) and np.allclose(embedded(tmp_path / "less"), embedded(whole), atol=1e-5)
    again = prune(tmp_path / "less", PICTURES, 0.5, out=tmp_path / "again")
    assert again.after.parameters < again.before.parameters == made.after.parameters


def test_layers_of_a_transformer_go_and_the_rest_keep_their_order(tmp_path: Path) -> None:
    encoder = encoder_of("transformer")
    whole = saved(encoder, tmp_path / "whole")
    made = prune(whole, items("transformer"), layers=2, out=tmp_path / "less")
    (left,) = set(range(3)) - set(made.gone)
    smaller = fs.load(tmp_path / "less").encoder
    ours, theirs = (e.backbone.net.encoder.layer for e in (smaller, encoder))
    assert len(ours) == 1
    for key, tensor in ours[0].state_dict().items():
        assert torch.equal(tensor, theirs[left].state_dict()[key])


def test_the_more_important_units_stay(tmp_path: Path) -> None:
    """Where half of the units are hardly listened to, vectors turn less than when any half goes."""
    encoder = encoder_of("resnet18")
    with torch.no_grad():
        for block in encoder.backbone.blocks:
            block.conv2.weight[:, 1::2] *= 0.2
    whole = saved(encoder, tmp_path / "whole")
    prune(whole, PICTURES, 0.5, out=tmp_path / "half")
    by_chance = []
    for seed in range(3):
        copy = fs.load(whole).encoder
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for block in copy.backbone.blocks:
                out = torch.randperm(len(block.bn1.weight), generator=generator)[::2]
                block.bn1.weight[out], block.bn1.bias[out] = 0.0, 0.0
        by_chance.append(float((Bundle(tmp_path, "", copy, {}, {}).embed(PICTURES) * embedded(whole)).sum(1).mean()))
    assert (embedded(tmp_path / "half") * embedded(whole)).sum(1).mean() > max(by_chance)


@pytest.mark.parametrize(("keep", "layers"), [(0.0, 0), (1.5, 0), (0.5, -1), (0.5, 8)])
def test_impossible_pruning_is_refused(keep: float, layers: int, tmp_path: Path) -> None:
    whole = saved(encoder_of("resnet18"), tmp_path / "whole")
    with pytest.raises(BadInput, match=r"--keep|--layers"):
        prune(whole, PICTURES, keep, layers=layers, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_network_that_nobody_can_cut_is_refused(tmp_path: Path) -> None:
    whole = saved(build(ImageSpec("timm:mobilenetv3_small_050", 32)), tmp_path / "whole")
    with pytest.raises(BadInput, match="cannot be pruned"):
        prune(whole, PICTURES, 0.5, out=tmp_path / "no")


def test_a_pruned_encoder_recovers_from_its_teacher(digits: Dataset, trained: Path, tmp_path: Path) -> None:
    prune(trained, digits, 0.25, out=tmp_path / "quarter")
    made = fs.train(digits, method="distil", init=str(tmp_path / "quarter"), options={"teacher": str(trained)},
                    batch_size=50, steps=40, out=tmp_path / "run", quiet=True)  # fmt: skip
    recovered, pruned = fs.load(made.bundle), fs.load(tmp_path / "quarter")
    assert set(recovered.recipe["parents"]) == {"teacher", "init"}
    assert shared(recovered, trained, digits) > 1.2 * shared(pruned, trained, digits)


# --- narrowing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "transformer"])
@pytest.mark.parametrize("centre", [False, True])
def test_all_components_unwhitened_keep_every_cosine(name: str, centre: bool, tmp_path: Path) -> None:
    whole = saved(encoder_of(name), tmp_path / "whole")
    dim = fs.load(whole).dim
    if name == "resnet18":  # as many components as items are not to be had
        narrow(whole, items(name), 20, cut=True, out=tmp_path / "cut")
        whole, dim = tmp_path / "cut", 20
    made = narrow(whole, items(name), dim, whiten=0.0, centre=centre, out=tmp_path / "turned")
    plain = fs.load(whole).embed(SENTENCES if name == "transformer" else PICTURES, normalize=False)
    dataset = fs.load(whole).open(items(name))
    assert made.dim == dim and len(dataset) == 60
    if centre:
        plain = plain + _bias_in_features(made.folder, whole)
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    ours = embedded(tmp_path / "turned")
    assert np.allclose(ours @ ours.T, unit @ unit.T, atol=2e-4)


def _bias_in_features(narrowed: Path, whole: Path) -> np.ndarray:
    """Return what the layer adds to the features it was made for: minus their mean, since all components are kept."""
    made, before = fs.load(narrowed).encoder.projection, fs.load(whole).encoder.projection
    assert made is not None
    weight, bias = made.weight.detach().numpy(), made.bias.detach().numpy()
    return (bias @ weight) if before is None else (bias @ weight @ before.weight.detach().numpy().T)


@pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
def test_components_do_not_go_together_and_vary_as_the_whitening_says(whiten: float, tmp_path: Path) -> None:
    whole = saved(encoder_of("resnet18"), tmp_path / "whole")
    narrow(whole, np.concatenate([PICTURES] * 20), 5, whiten=whiten, centre=True, out=tmp_path / "five")
    plain, ours = (fs.load(folder).embed(PICTURES, normalize=False) for folder in (whole, tmp_path / "five"))
    strongest = np.sort(np.linalg.eigvalsh(np.cov(plain.T.astype(np.float64), bias=True)))[::-1][:5]
    # The held-out items are a fifth of those repeated twenty times, so the fitted ones weigh nearly the same.
    expected = strongest ** (1 - whiten)
    assert np.allclose(np.cov(ours.T, bias=True) / expected[0], np.diag(expected) / expected[0], atol=0.15)


def test_cutting_takes_the_first_numbers_and_narrowing_twice_is_one_layer(tmp_path: Path) -> None:
    whole = saved(encoder_of("resnet18"), tmp_path / "whole")
    narrow(whole, PICTURES, 24, cut=True, out=tmp_path / "24")
    narrow(tmp_path / "24", PICTURES, 8, cut=True, out=tmp_path / "8")
    plain = fs.load(whole).embed(PICTURES, normalize=False)
    for dim in (24, 8):
        bundle = fs.load(tmp_path / str(dim))
        assert np.allclose(bundle.embed(PICTURES, normalize=False), plain[:, :dim], atol=1e-6)
        assert bundle.encoder.projection is not None and bundle.encoder.projection.in_features == plain.shape[1]


def test_what_is_chosen_is_the_best_on_the_items_held_out(tmp_path: Path) -> None:
    whole = saved(encoder_of("resnet18"), tmp_path / "whole")
    digits = fs.open_data("digits").split("train").select(np.arange(300))
    made = narrow(whole, digits, 6, out=tmp_path / "six")
    assert len(made.tried) == 10 and made.full is not None
    assert made.chosen.accuracy == max(t.accuracy for t in made.tried if t.accuracy is not None)
    unlabelled = narrow(whole, PICTURES, 6, out=tmp_path / "six")
    assert unlabelled.full is None and unlabelled.chosen.agreement == max(t.agreement for t in unlabelled.tried)


def test_a_narrowed_text_bundle_is_the_same_to_sentence_transformers(tmp_path: Path) -> None:
    import sentence_transformers

    whole = saved(encoder_of("transformer"), tmp_path / "whole")
    made = narrow(whole, items("transformer"), 7, out=tmp_path / "seven")
    theirs = sentence_transformers.SentenceTransformer(str(made.folder), device="cpu").encode(SENTENCES)
    assert theirs.shape == (60, 7) and np.allclose(theirs, embedded(made.folder), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"dim": 0}, {"dim": 65}, {"dim": 4, "whiten": 1.5}, {"dim": 4, "cut": True, "whiten": 0.5}, {"dim": 60}],
)
def test_impossible_narrowing_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--dim|--whiten|--cut"):
        narrow(saved(encoder_of("resnet18"), tmp_path / "whole"), PICTURES, **options, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


# --- together -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "form"), [("resnet18", "onnx"), ("resnet18", "onnx-int8"), ("transformer", "onnx")])
def test_what_was_pruned_and_narrowed_is_exported_with_parity(name: str, form: str, tmp_path: Path) -> None:
    prune(saved(encoder_of(name), tmp_path / "whole"), items(name), 0.5, layers=1, out=tmp_path / "half")
    made = narrow(tmp_path / "half", items(name), 12, out=tmp_path / "narrow")
    data = items(name) if name == "transformer" else pictures(400, 16)  # enough to find ranges on half of them
    exported = fs.export(made.folder, data, form)
    assert exported.parity.holds
    with pytest.raises(GateRefused):
        fs.export(made.folder, data, form, out=tmp_path / "no", floor=1.0)


def test_the_verbs_say_what_to_do_next(fastness: Callable[..., Ended], labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher(), tmp_path / "teacher")
    pruned = fastness("prune", "teacher", labelled, "--keep", "0.5", "--out", "half")
    assert pruned.status == 0 and "--method distil --init half --option teacher=teacher" in pruned.out
    narrowed = fastness("narrow", "half", labelled, "--dim", "4", "--out", "four", "--json")
    assert narrowed.status == 0 and '"dim": 4' in narrowed.out
    compared = fastness("compare", "teacher", "four", "--data", labelled, "--checks", "knn", "--json")
    assert compared.status == 0, compared.err
    refused = fastness("prune", "four", labelled, "--keep", "2")
    assert refused.status == 2 and refused.err.count("\n") == 1
