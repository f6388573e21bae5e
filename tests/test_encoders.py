"""Encoders: batch invariance, the side-by-side convolution, preprocessing, specs, freezing, safe weights."""

from __future__ import annotations

import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from fastness.core.errors import BadInput
from fastness.core.hardware import cpu_has_fast_bf16
from fastness.data.cache import decode_square
from fastness.encoders import Encoder, build
from fastness.encoders.backbones import read_weights, timm_spec
from fastness.encoders.batch_norm import synchronise
from fastness.encoders.image import ImageSpec
from fastness.encoders.resnet import Conv2d, Pointwise

# Strict: whoever mends the bug is told to take the mark away.
TINY = [
    ImageSpec("resnet18", 16, {"width": 4}),
    ImageSpec("resnet34", 16, {"width": 4}),
    ImageSpec("resnet50", 16, {"width": 4}),
    ImageSpec("resnet18", 32, {"width": 4, "stem": "imagenet"}),
    ImageSpec("vit-tiny", 16, {"width": 32, "depth": 2}),
    ImageSpec("timm:test_resnet", 32),
    ImageSpec("timm:test_vit", 32, {"img_size": 32}),
]


def uint8(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def unit(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(x, dim=1)


def warm(spec: ImageSpec) -> Encoder:
    """An encoder whose batch statistics have seen data, in eval mode."""
    torch.manual_seed(0)
    encoder = build(spec)
    with torch.no_grad():
        encoder.train()(encoder.preprocess(uint8(8, 3, spec.size, spec.size)))
    return encoder.eval()


@pytest.mark.parametrize("spec", TINY, ids=lambda s: f"{s.name}-{s.size}")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_an_item_gets_the_same_embedding_alone_and_in_any_batch(spec: ImageSpec, layout: torch.memory_format) -> None:
    encoder = warm(spec)
    x = encoder.preprocess(uint8(9, 3, spec.size, spec.size, seed=1)).contiguous(memory_format=layout)
    features = encoder(x)
    assert features.shape == (9, encoder.dim) and features.dtype == torch.float32
    for part in (x[:1], x[3:4], x[:4], x.flip(0), x[[2, 2, 5]]):
        rows = [int(torch.nonzero((x == item).flatten(1).all(1))[0]) for item in part]
        torch.testing.assert_close(unit(encoder(part)), unit(features)[rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_nfnet"])
@torch.no_grad()
def test_a_timm_encoder_has_the_width_that_it_states(name: str) -> None:
    assert name in timm.list_models("test_*")
    encoder = build(timm_spec(name)).eval()
    assert encoder(torch.zeros(1, 3, encoder.spec.size, encoder.spec.size)).shape == (1, encoder.dim)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 33) | st.sampled_from([16, 32, 48]), inputs=st.sampled_from([1, 3, 16]),
    outputs=st.sampled_from([4, 128]), side=st.sampled_from([2, 3, 4, 6, 8, 10]), stride=st.sampled_from([1, 2]),
    bias=st.booleans(), layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)  # fmt: skip
def test_side_by_side_is_the_plain_convolution(
    batch: int, inputs: int, outputs: int, side: int, stride: int, bias: bool, layout: torch.memory_format
) -> None:
    """bfloat16 values and gradients are the plain convolution's on the same numbers, within their rounding.

    The reference computes in float32: on AMX oneDNN's own bfloat16 result is garbage for some maps (2 wide and
    higher than wide, 1 × 1; stride 2), which is also why the maps are square here. Processors without AMX
    round partial sums too, where training does not use bfloat16; a number in a wrong place would be off by all of it.
    """
    torch.manual_seed(0)
    ours = Conv2d(inputs, outputs, 3, stride, 1, bias=bias).bfloat16()
    plain = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
    plain.load_state_dict(ours.state_dict())
    image = torch.randn(batch, inputs, side, side).bfloat16().contiguous(memory_format=layout)
    slope = torch.randn_like(ours(image).detach())
    rounding, results = (2**-8 if cpu_has_fast_bf16() else 2**-4), []
    for conv in (ours, plain):
        x = image.to(conv.weight.dtype).requires_grad_()
        y = conv(x)
        results.append([y.detach(), *torch.autograd.grad(y, [x, *conv.parameters()], slope.to(y.dtype))])
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape and a.dtype == torch.bfloat16
        torch.testing.assert_close(a.float(), b, rtol=2**-7, atol=rounding * float(b.abs().max()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("inputs", [4, 8, 16])
def test_a_shortcut_is_the_strided_convolution(inputs: int, layout: torch.memory_format) -> None:
    """Few channels go another way, as that of oneDNN writes where it may not; values and gradients are the same."""
    torch.manual_seed(0)
    ours = Pointwise(inputs, 8, 1, 2, bias=False).double().to(memory_format=layout)
    plain = nn.Conv2d(inputs, 8, 1, 2, bias=False).double()
    plain.load_state_dict(ours.state_dict())
    image = torch.randn(3, inputs, 9, 8).double().contiguous(memory_format=layout)
    results = []
    for conv in (ours, plain):
        x = image.clone().requires_grad_()
        y = conv(x)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), [x, *conv.parameters()])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("batch", "side", "dtype", "joined"),
    [
        (16, 4, torch.bfloat16, True), (6, 4, torch.bfloat16, True), (7, 4, torch.bfloat16, False),
        (16, 16, torch.bfloat16, False), (16, 4, torch.float32, False),
    ],
)  # fmt: skip
def test_only_small_bfloat16_maps_of_even_batches_are_joined(
    batch: int, side: int, dtype: torch.dtype, joined: bool
) -> None:
    conv = Conv2d(4, 4, 3, 1, 1).to(dtype)
    with patch.object(conv, "_side_by_side", wraps=conv._side_by_side) as path:
        conv(torch.zeros(batch, 4, side, side, dtype=dtype))
    assert path.called == joined


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 40), (33, 57), (64, 20), (9, 7), (1, 5)])
@pytest.mark.parametrize("png", [False, True])
def test_preprocessing_is_what_the_decoded_cache_does_and_what_pillow_does(height: int, width: int, png: bool) -> None:
    size, image = 16, uint8(3, height, width)
    encoder = build(ImageSpec("resnet18", size, {"width": 4}, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)))
    array = image.permute(1, 2, 0).contiguous().numpy()
    stored: Any = array
    if png:
        Image.fromarray(array).save(stored := io.BytesIO(), "PNG")
        stored = stored.getvalue()
    levels = (encoder.preprocess(image[None])[0] * encoder.std[0] + encoder.mean[0]) * 255
    assert np.abs(levels.numpy() - decode_square(stored, size)).max() <= 1e-3 + 1
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = Image.fromarray(array[top : top + side, left : left + side])
    theirs = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(levels.numpy() - theirs).max() <= 1e-3 + 1


@pytest.mark.parametrize("spec", TINY, ids=lambda s: f"{s.name}-{s.size}")
def test_a_spec_survives_json(spec: ImageSpec) -> None:
    again = ImageSpec.from_dict(json.loads(json.dumps(spec.to_dict())), {})
    assert again == spec
    build(again).load_state_dict(build(spec).state_dict())


@pytest.mark.parametrize("last", [0, 1, 3, 8, 100, 9])
def test_only_the_last_blocks_learn(last: int) -> None:
    encoder = build(TINY[0])
    encoder.freeze_all_but(last)
    blocks = list(encoder.backbone.blocks)
    learning = [all(p.requires_grad for p in block.parameters()) for block in blocks]
    assert learning == [len(blocks) - i <= last for i in range(len(blocks))]
    assert sum(p.requires_grad for p in encoder.parameters()) == sum(
        len(list(b.parameters())) for b, on in zip(blocks, learning, strict=True) if on
    )


@pytest.mark.parametrize(
    "spec",
    [
        ImageSpec("resnet19", 16),
        ImageSpec("timm:resnet18_of_mine", 16),
        ImageSpec("module", 16),
        ImageSpec("vit-tiny", 16, {"width": 20}),
        ImageSpec("resnet18", 16, {"widht": 4}),
        ImageSpec("resnet18", 16, {"stem": "smal"}),
        ImageSpec("vit-tiny", 16, {"stem": "small"}),
        ImageSpec("vit-tiny", 16, {"patch": 64}),
        ImageSpec("timm:test_resnet", 32, {"widht": 4}),
        ImageSpec("timm:test_resnet.no_such_weights", 32),
    ],
    ids=lambda s: f"{s.name}-{s.options}",
)
def test_what_cannot_be_built_is_refused_in_one_line(spec: ImageSpec) -> None:
    with pytest.raises(BadInput) as refusal:
        build(spec)
    assert str(refusal.value) and "\n" not in str(refusal.value)


def test_a_module_of_the_users_own_gives_rows_or_is_refused() -> None:
    spec = ImageSpec("module", 8)
    assert build(spec, nn.Sequential(nn.Flatten(), nn.Linear(192, 5))).dim == 5
    with pytest.raises(BadInput, match=r"\[2, D\]"):
        build(spec, nn.Conv2d(3, 4, 1))


class Touches:
    """Pickled, this is a program that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_with_code_is_refused_and_never_run(tmp_path: Path, name: str, raw: bool, nested: bool) -> None:
    flag, path = tmp_path / "ran", tmp_path / name
    content = {"state_dict": {"a": torch.zeros(2)}, "config": Touches(flag)} if nested else Touches(flag)
    if raw:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(BadInput, match=name) as refusal:
        read_weights(path)
    assert not flag.exists() and "\n" not in str(refusal.value)
    pickle.loads(pickle.dumps(Touches(flag)))  # noqa: S301 - the trap does work
    assert flag.exists()


RUBBISH = [("w.pt", b"rubbish"), ("w.pt", b"PK\x03\x04rubbish"), ("w.safetensors", b"rubbish"), ("w.safetensors", b"")]


@pytest.mark.parametrize(("name", "content"), [*RUBBISH, ("w.pt", b"")])
def test_damaged_weights_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=name):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("spec", [TINY[0], ImageSpec("module", 8)], ids=lambda s: s.name)
def test_an_untrained_copy_is_another_network_of_the_same_kind(spec: ImageSpec) -> None:
    """It does not depend on what was learnt, and the encoder itself stays as it is."""

    def trained(by: float) -> Encoder:
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
        encoder = build(spec, module if spec.name == "module" else None)
        for tensor in encoder.state_dict().values():
            tensor.fill_(by)
        return encoder

    encoders = [trained(by) for by in (1.0, 2.0)]
    fresh = []
    for encoder in encoders:
        torch.manual_seed(3)
        fresh.append(encoder.untrained())
    assert all((tensor == 1).all() for tensor in encoders[0].state_dict().values())
    assert fresh[0].spec == spec and fresh[0].dim == encoders[0].dim
    ours, theirs = (encoder.state_dict() for encoder in fresh)
    assert ours.keys() == encoders[0].state_dict().keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any((tensor == 1).all() for name, tensor in ours.items() if tensor.ndim > 1)


def test_weights_are_read_from_a_state_dict_bare_or_wrapped(tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    for i, content in enumerate((state, {"state_dict": state, "epoch": 3}, {"model": state})):
        torch.save(content, tmp_path / f"{i}.pt")
        read = read_weights(tmp_path / f"{i}.pt")
        assert read.keys() == state.keys() and all(torch.equal(read[k], state[k]) for k in state)
    torch.save([1, 2], tmp_path / "list.pt")
    for bad in ("list.pt", "missing.pt", "missing.safetensors"):
        with pytest.raises(BadInput, match=bad):
            read_weights(tmp_path / bad)


def test_synchronised_batch_norm_of_one_process_is_torchs():
    """Values, gradients, running statistics and names; in evaluation too."""
    torch.manual_seed(0)
    plain = build(ImageSpec("resnet18", 16, {"width": 4})).double().train()
    synced = copy.deepcopy(plain)
    synchronise(synced)
    assert list(synced.state_dict()) == list(plain.state_dict())
    x = torch.randn(6, 3, 16, 16, dtype=torch.float64)
    for net in (plain, synced):
        net(x).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), synced.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-8, atol=1e-10, msg=name)
    for (name, one), other in zip(plain.named_buffers(), synced.buffers(), strict=True):
        torch.testing.assert_close(other, one, msg=name)
    torch.testing.assert_close(synced.eval()(x), plain.eval()(x))


def test_a_batch_norm_that_cannot_be_synchronised_is_refused():
    with pytest.raises(BadInput, match="BatchNormAct2d"):
        synchronise(timm.create_model("test_efficientnet"))
