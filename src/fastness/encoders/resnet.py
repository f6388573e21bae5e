"""ResNet (He et al. 2016, arXiv 1512.03385) with a stem for small or for large images and any width.

This file needs nothing but torch, so that other programs can build the very same network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Conv2d(nn.Conv2d):
    """A 3 × 3 convolution (padding 1, stride 1 or 2) that lays small maps side by side where that is faster.

    The CPU's bfloat16 tiles multiply 16 positions of one row at a time, so on maps 4 wide three quarters of
    them idle. There, images of the batch are joined into one wide row with a gap of zeros between them, which
    is just the padding that each needs, so the result is the same. Measured on a processor with AMX, forward
    and backward: 2 × at 128 channels and 2.7 × at 512 channels of 4 × 4.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, C, H, W]`` to ``[B, out, H / stride, W / stride]``."""
        if x.dtype != torch.bfloat16 or x.device.type != "cpu":
            return super().forward(x)
        if self.stride[0] == 2 and min(x.shape[2:]) <= 2:
            return self._in_float32(x)
        width = x.shape[3] // self.stride[0]
        small = width <= 4 or (width <= 8 and self.out_channels >= 128)
        together = _power_of_two(len(x), 16)
        if not small or together == 1 or x.shape[3] % 2:
            return super().forward(x)
        return self._side_by_side(x, together)

    def _in_float32(self, x: torch.Tensor) -> torch.Tensor:
        """Strided bfloat16 convolutions of maps 1 or 2 wide give wrong gradients in torch 2.14's oneDNN."""
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            out: torch.Tensor = self._conv_forward(x.float(), self.weight.float(), bias)
        return out.to(x.dtype)

    def _side_by_side(self, x: torch.Tensor, together: int) -> torch.Tensor:
        gap = int(self.stride[0])
        rows = F.pad(x, (0, gap)).permute(0, 2, 3, 1)
        B, H, W, C = rows.shape
        wide = rows.reshape(-1, together, H, W, C).transpose(1, 2).reshape(-1, H, together * W, C)
        out = super().forward(wide.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        h, w = out.shape[1], W // gap
        out = out.reshape(-1, h, together, w, out.shape[3])[:, :, :, : w - 1]
        return out.transpose(1, 2).reshape(B, h, w - 1, -1).permute(0, 3, 1, 2)


class Pointwise(nn.Conv2d):
    """A 1 × 1 convolution that, of few channels, takes every second place itself before it multiplies.

    oneDNN 3.12 writes past its workspace in the gradient of strided 1 × 1 convolutions whose inputs have fewer channels
    than a vector register has places (uxlfoundation/oneDNN issue 6035): 8 with AVX2, 16 with AVX-512.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, C, H, W]`` to ``[B, out, H / stride, W / stride]``."""
        stride = self.stride[0]
        if stride == 1 or self.in_channels >= 16:
            return super().forward(x)
        return F.conv2d(x[:, :, ::stride, ::stride], self.weight, self.bias)


def _power_of_two(n: int, most: int) -> int:
    """Return the largest power of two that divides ``n``, at most ``most``."""
    return min(n & -n, most)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    kind = {1: Pointwise, 3: Conv2d}.get(kernel, nn.Conv2d)
    return kind(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut; ``inner``: channels between the two."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, inner: Sequence[int]) -> None:
        super().__init__()
        (between,) = inner
        self.conv1, self.bn1 = _conv(inputs, between, 3, stride), nn.BatchNorm2d(between)
        self.conv2, self.bn2 = _conv(between, width, 3), nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, C, H, W]`` to ``[B, width, H / stride, W / stride]``."""
        out = torch.relu_(self.bn1(self.conv1(x)))
        return torch.relu_(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1 convolutions and a shortcut; four times as many channels come out."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, inner: Sequence[int]) -> None:
        super().__init__()
        first, second = inner
        self.conv1, self.bn1 = _conv(inputs, first, 1), nn.BatchNorm2d(first)
        self.conv2, self.bn2 = _conv(first, second, 3, stride), nn.BatchNorm2d(second)
        self.conv3, self.bn3 = _conv(second, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, C, H, W]`` to ``[B, 4 * width, H / stride, W / stride]``."""
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = torch.relu_(self.bn2(self.conv2(out)))
        return torch.relu_(self.bn3(self.conv3(out)) + self.shortcut(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """The network up to and with global average pooling.

    Attributes:
        dim: length of the output vector.
        blocks: the parts in order, for freezing all but the last few.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        stem: str,
        in_channels: int = 3,
        inner: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        block = Bottleneck if depth >= 50 else BasicBlock
        kernel, stride = (3, 1) if stem == "small" else (7, 2)
        parts = [_conv(in_channels, width, kernel, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if stem == "imagenet":
            parts.append(nn.MaxPool2d(3, 2, 1))
        self.stem = nn.Sequential(*parts)
        blocks: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(_LAYERS[depth]):
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                own = [width << stage] * (2 if depth >= 50 else 1) if inner is None else inner[len(blocks)]
                # What comes in is nowhere negative, so without its inner part a block changes nothing.
                blocks.append(block(channels, width << stage, stride, own) if any(own) else nn.Identity())
                channels = (width << stage) * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``[B, in_channels, H, W]`` to features ``[B, dim]``."""
        out: torch.Tensor = self.blocks(self.stem(x))
        return out.mean((2, 3))


def resnet(
    depth: int,
    width: int = 64,
    stem: str = "imagenet",
    in_channels: int = 3,
    inner: Sequence[Sequence[int]] | None = None,
) -> ResNet:
    """Return a ResNet.

    Args:
        depth: 18, 34 or 50.
        width: channels of the first stage; 64 is the published network.
        stem: ``small`` (3 × 3, no pooling: for images up to 64 px) or ``imagenet`` (7 × 7 and pooling).
        inner: of a pruned network, the channels inside each block: one number for a basic block, two for a
            bottleneck; all 0 where only the shortcut is left, which is possible where it changes nothing.
    """
    return ResNet(depth, width, stem, in_channels, inner)
