"""Heads: small networks between an encoder's features and a loss."""

from __future__ import annotations

from torch import nn


def mlp(inputs: int, hidden: int, outputs: int, *, layers: int = 2, last_norm: bool = False) -> nn.Sequential:
    """Return linear layers with batch normalisation and ReLU between them.

    Args:
        layers: number of linear layers, at least 1.
        last_norm: normalise the output too, without learned scale.
    """
    parts: list[nn.Module] = []
    width = inputs
    for _ in range(layers - 1):
        parts += [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
        width = hidden
    parts.append(nn.Linear(width, outputs, bias=not last_norm))
    if last_norm:
        parts.append(nn.BatchNorm1d(outputs, affine=False))
    return nn.Sequential(*parts)
