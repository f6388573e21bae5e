"""Every view operation against torchvision's, the distribution of crops, and what `ImageViews` promises."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp, kstest, uniform
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from fastness.core.errors import BadInput
from fastness.views import colour
from fastness.views.blur import gaussian_blur, kernel_size
from fastness.views.geometry import random_boxes, resized_crop
from fastness.views.image import ImageView, ImageViews, ViewParameters, apply, draw

quick = settings(max_examples=40, deadline=None, derandomize=True)
# Two items of 4 × 5 pixels; the extremes come often, so gray, saturated and tied pixels do too.
levels = st.sampled_from([0, 0, 255, 255, 128]) | st.integers(0, 255)
images = arrays(np.uint8, (2, 3, 4, 5), elements=levels).map(lambda a: torch.from_numpy(a).float() / 255)
factor = st.floats(0, 2, width=32)

ADJUSTMENTS = [
    (colour.adjust_brightness, tv.adjust_brightness, factor, 1e-5),
    (colour.adjust_contrast, tv.adjust_contrast, factor, 1e-5),
    (colour.adjust_saturation, tv.adjust_saturation, factor, 1e-5),
    (colour.adjust_hue, tv.adjust_hue, st.floats(-0.5, 0.5, width=32), 1e-4),
]
# Strict: whoever mends the bug is told to take the mark away.
OFF = dict.fromkeys(("flip", "jitter", "gray", "blur", "solarise"), 0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=seeded(seed))


def pixels(n: int, height: int = 20, width: int = 28) -> torch.Tensor:
    return (noise(n, 3, height, width) * 256).to(torch.uint8)


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@quick
@given(st.integers(3, 40), st.integers(3, 40), st.integers(2, 40), st.booleans(), st.data())
def test_resized_crop(height: int, width: int, size: int, flip: bool, data: st.DataObject) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    h, w = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    x = noise(2, 3, height, width)
    boxes = torch.tensor([[top, left, h, w], [0, 0, height, width]]).float()
    ours = resized_crop(x, boxes, size, torch.tensor([flip, not flip]))
    for out, item, (t, le, bh, bw), mirrored in zip(ours, x, boxes.int().tolist(), [flip, not flip], strict=True):
        theirs = tv.resized_crop(item, t, le, bh, bw, [size, size], antialias=True)
        close(out, tv.horizontal_flip(theirs) if mirrored else theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "factors", "tolerance"), ADJUSTMENTS, ids=lambda v: getattr(v, "__name__", "")
)
def test_adjustment(ours: Any, theirs: Any, factors: st.SearchStrategy[float], tolerance: float) -> None:
    @quick
    @given(images, factors, factors)
    def agrees(x: torch.Tensor, one: float, other: float) -> None:
        expected = torch.stack([theirs(x[0], one), theirs(x[1], other)])
        close(ours(x.clone(), torch.tensor([one, other])), expected, tolerance)

    agrees()


@pytest.mark.parametrize(
    "rgb", [(0, 0, 0), (1, 1, 1), (0.3, 0.3, 0.3), (1, 0, 0), (1, 1, 0), (0, 1, 1), (0.5, 0.5, 0.2)]
)
def test_hue_of_gray_saturated_and_tied_pixels(rgb: tuple[float, float, float]) -> None:
    shifts = torch.linspace(-0.5, 0.5, 25)
    x = torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1).expand(25, 3, 2, 2).contiguous()
    expected = torch.stack([tv.adjust_hue(item, float(s)) for item, s in zip(x, shifts, strict=True)])
    close(colour.adjust_hue(x.clone(), shifts), expected, 1e-4)


def test_jitter_is_torchvisions_functions_in_the_drawn_order() -> None:
    n = 24
    x, order = noise(n, 3, 6, 6), noise(n, 4, seed=1).argsort(1)
    factors = torch.cat([2 * noise(n, 3, seed=2), noise(n, 1, seed=3) - 0.5], 1)
    chosen = noise(n, seed=4) < 0.8
    expected = x.clone()
    for i in chosen.nonzero()[:, 0].tolist():
        for operation in order[i].tolist():
            expected[i] = ADJUSTMENTS[operation][1](expected[i], float(factors[i, operation]))
    close(colour.jitter(x.clone(), factors, order, chosen), expected, 1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colour.grayscale, lambda x: tv.rgb_to_grayscale(x, 3)),
        (colour.solarise, lambda x: tv.solarize(x, 0.5)),
        (lambda x, chosen: colour.solarise(x, chosen, 0.25), lambda x: tv.solarize(x, 0.25)),
    ],
)
@pytest.mark.parametrize("chosen", [[True, False, True], [False] * 3])
def test_whole_image_operations_change_the_chosen_items_only(ours: Any, theirs: Any, chosen: list[bool]) -> None:
    x = (noise(3, 3, 6, 7) * 4).round() / 4  # a quarter of the values lie on the threshold
    expected = torch.stack([theirs(item) if c else item for item, c in zip(x, chosen, strict=True)])
    close(ours(x.clone(), torch.tensor(chosen)), expected)


@pytest.mark.parametrize(("size", "kernel"), [(8, 3), (8, 15), (32, 3), (33, 7), (60, 5)])
def test_blur(size: int, kernel: int) -> None:
    x, sigma = noise(4, 3, size, size), torch.tensor([0.1, 0.5, 2.0, 1.0])
    expected = [tv.gaussian_blur(item, [kernel] * 2, [float(s)] * 2) for item, s in zip(x, sigma, strict=True)]
    expected[3] = x[3].clone()
    close(gaussian_blur(x.clone(), sigma, torch.tensor([1, 1, 1, 0]).bool(), kernel), torch.stack(expected))


@pytest.mark.parametrize("size", [8, 16, 32, 96, 224])
def test_blur_kernel_is_odd_and_near_a_tenth(size: int) -> None:
    assert kernel_size(size) % 2 == 1
    assert kernel_size(size) == 3 or abs(kernel_size(size) - size / 10) <= 1.5


@quick
@given(st.integers(1, 50), st.integers(1, 50), st.floats(0.01, 1), st.floats(0.3, 1), st.integers(0, 99))
def test_boxes_are_whole_pixels_within_the_image(h: int, w: int, low: float, ratio: float, seed: int) -> None:
    boxes = random_boxes(64, h, w, (low, 1.0), (ratio, 1 / ratio), seeded(seed))
    assert boxes.shape == (64, 4) and torch.equal(boxes, boxes.round())
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor([h, w])).all()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 60)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    n, ratio = 3000, (3 / 4, 4 / 3)
    ours = random_boxes(n, height, width, scale, ratio, seeded(1)).double().numpy()
    with torch.random.fork_rng():
        torch.manual_seed(2)
        blank = torch.empty(3, height, width)
        theirs = np.array([RandomResizedCrop.get_params(blank, list(scale), list(ratio)) for _ in range(n)], float)
    for column in (
        *range(4),
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0] + b[:, 2],
        lambda b: b[:, 1] + b[:, 3],
    ):
        a, b = (column(x) if callable(column) else x[:, column] for x in (ours, theirs))
        assert ks_2samp(a, b, method="asymp").pvalue > 1e-3
        assert abs(a.mean() - b.mean()) <= 4 * np.sqrt((a.var() + b.var()) / n)


@pytest.mark.parametrize(("height", "width"), [(10, 200), (200, 10), (7, 100), (1, 30)])
def test_extreme_images_fall_back_to_torchvisions_central_crop(height: int, width: int) -> None:
    scale, ratio = (0.9, 1.0), (3 / 4, 4 / 3)
    expected = RandomResizedCrop.get_params(torch.empty(3, height, width), list(scale), list(ratio))
    assert (random_boxes(5, height, width, scale, ratio, seeded()) == torch.tensor(expected)).all()


FULL = ImageView(blur=0.5, solarise=0.3)


@pytest.mark.parametrize(
    ("specs", "sides"),
    [
        ([ImageView()], [32, 32]),
        ([FULL, ImageView(count=3, size=0.5)], [32, 32, 16, 16, 16]),
        ([ImageView(count=1, size=0.3), ImageView(count=1, size=1.5)], [8, 48]),
    ],
)
def test_views_have_their_count_size_and_form(specs: list[ImageView], sides: list[int]) -> None:
    x = pixels(3)
    before = x.clone()
    plain = ImageViews(specs, 32)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    views = ImageViews(specs, 32, mean, std)(x, seeded())
    assert plain.count == len(views) and [v.shape for v in views] == [(3, 3, side, side) for side in sides]
    for view, raw in zip(views, plain(x, seeded()), strict=True):
        assert view.dtype == torch.float32 and view.isfinite().all()
        assert view.is_contiguous(memory_format=torch.channels_last)
        assert raw.min() >= -1e-6 and raw.max() <= 1 + 1e-6
        close(view, (raw - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
    assert torch.equal(x, before)


def test_the_generators_state_decides_the_views() -> None:
    x, make = pixels(4), ImageViews([FULL], 16)
    first, again, other = (make(x, seeded(s)) for s in (5, 5, 6))
    assert all(map(torch.equal, first, again)) and not any(map(torch.equal, first, other))


def test_each_item_and_each_view_gets_its_own_parameters() -> None:
    same = pixels(1).expand(6, -1, -1, -1)
    views = torch.cat(ImageViews([ImageView(jitter=1.0)], 16)(same, seeded()))
    assert len(torch.unique(views.flatten(1), dim=0)) == 12


def test_parameters_are_drawn_with_their_probabilities_and_ranges() -> None:
    n = 4000
    spec = ImageView(flip=0.5, jitter=0.8, gray=0.2, blur=0.3, solarise=0.1, brightness=1.5, sigma=(0.5, 1.5))
    drawn = draw(spec, n, 32, 32, seeded())
    for name in OFF:
        p = getattr(spec, name)
        assert abs(getattr(drawn, name).double().mean() - p) < 4 * (p * (1 - p) / n) ** 0.5, name
    ranges = [(0, 2.5), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)]
    for values, (low, high) in zip([*drawn.factors.T, drawn.sigma], [*ranges, (0.5, 1.5)], strict=True):
        assert kstest(values.double().numpy(), uniform(low, high - low).cdf).pvalue > 1e-3
    assert len(torch.unique(drawn.order, dim=0)) == 24 and (drawn.order.sort(1).values == torch.arange(4)).all()


@pytest.mark.parametrize("size", [12, 32])
def test_a_view_depends_on_its_item_and_its_parameters_only(size: int) -> None:
    x, n = pixels(8).float() / 255, 8
    drawn = draw(FULL, n, 20, 28, seeded())
    together = apply(x, drawn, size, FULL)
    for i in range(n):
        own = ViewParameters(**{f.name: getattr(drawn, f.name)[i : i + 1] for f in fields(drawn)})
        close(apply(x[i : i + 1], own, size, FULL), together[i : i + 1], 1e-6)


@pytest.mark.parametrize("only", [None, "flip", "jitter", "gray", "blur", "solarise"])
def test_every_operation_works_alone(only: str | None) -> None:
    spec = ImageView().changed(OFF | ({only: 1.0} if only else {}))
    assert all(view.isfinite().all() for view in ImageViews([spec], 16)(pixels(4), seeded()))


REFUSED = [
    {"crop": 1}, {"flip": -0.1}, {"gray": 1.1}, {"blur": float("nan")}, {"count": 0}, {"size": 0}, {"size": 5},
    {"scale": [0, 1]}, {"scale": [0.5, 0.2]}, {"scale": [0.1, 1.5]}, {"hue": 0.6}, {"hue": -0.1},
]  # fmt: skip
OUT_OF_RANGE = [
    {"scale": 0.5}, {"scale": [0.2]}, {"flip": "often"}, {"count": 1.5}, {"count": "2"},
    {"ratio": [0, 1]}, {"ratio": [2, 1]}, {"ratio": 1.0}, {"sigma": [0, 0]}, {"sigma": [-1, 1]}, {"sigma": 0.5},
    {"brightness": -2}, {"contrast": float("nan")}, {"saturation": "x"},
]  # fmt: skip


@pytest.mark.parametrize("changes", REFUSED + OUT_OF_RANGE, ids=str)
def test_an_unknown_or_impossible_option_is_refused_in_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as refusal:
        ImageView().changed(changes)
    assert next(iter(changes)) in str(refusal.value) and "\n" not in str(refusal.value)


def test_changes_are_made_and_written_back() -> None:
    spec = ImageView().changed({"count": 4, "scale": [0.3, 0.9]})
    assert (spec.count, spec.scale, spec.hue) == (4, (0.3, 0.9), 0.1)
    assert ImageView().changed(spec.to_dict()) == spec
