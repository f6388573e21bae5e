"""A small model answers fewer and fewer items rightly, the more severe a corruption is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastness.corruptions.image import COMMON, CORRUPTIONS
from fastness.data import open_data
from fastness.data.cache import decoded

FITTED, TESTED = 5000, 1500
# Each step of these constants takes away more of what the step before left. Not of the others: glass blur trades
# distance for repetitions, frost and spatter change their kind half-way, saturation first falls and then rises; and
# of pixels merged or compressed once more this model notices so little that chance decides.
GROWING = (
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "defocus_blur", "gaussian_blur", "fog",
    "contrast", "brightness", "occlusion",
)  # fmt: skip


def images(folder: Path, split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images, uint8 ``[N, 3, 32, 32]``, of all classes, and their labels."""
    part = open_data(folder).split(split)
    part = part.select(np.sort(np.random.default_rng(0).permutation(len(part))[:count]))
    return torch.cat([batch for _, batch in decoded(part, 32).batches(1000)]), torch.from_numpy(part.labels).long()


@pytest.fixture(scope="module")
def curves(shared_data: Path) -> dict[str, list[float]]:
    """Accuracy at severities 0 to 5 by corruption, of a network of three layers trained for a few seconds."""
    folder = shared_data / "cifar10_jpeg"
    if not folder.exists():
        pytest.skip(f"{folder} is not there; its standard source is torchvision.datasets.CIFAR10")
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 24), (24, 48), (48, 96)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))
    x, y = images(folder, "train", FITTED)
    optimiser = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    for _ in range(5):
        for rows in torch.randperm(FITTED).split(100):
            loss = F.cross_entropy(net(x[rows] / 255 - 0.5), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval()
    x, y = images(folder, "test", TESTED)

    @torch.no_grad()
    def accuracy(pictures: torch.Tensor) -> float:
        return float((net(pictures / 255 - 0.5).argmax(1) == y).double().mean())

    return {
        name: [accuracy(x)]
        + [accuracy(CORRUPTIONS.get(name)(x, s, torch.Generator().manual_seed(0))) for s in range(1, 6)]
        for name in {*COMMON, *GROWING}
    }


@pytest.mark.parametrize("name", GROWING)
def test_accuracy_falls_with_severity(curves: dict[str, list[float]], name: str) -> None:
    """From one severity to the next by chance alone it may rise a little; over all of them it falls."""
    values = np.array(curves[name])
    by_chance = 2 * np.sqrt(0.05 / TESTED)  # one item in twenty answered otherwise, and as many gained as lost
    assert (np.diff(values) < by_chance).all(), values
    assert values[5] < values[1] and values[5] < values[0], values


def test_the_mean_falls_with_every_severity(curves: dict[str, list[float]]) -> None:
    """Of the common fifteen, though single ones may not."""
    mean = np.mean([curves[name] for name in COMMON], 0)
    assert mean[0] > 0.35 and (np.diff(mean) < 0).all(), mean
