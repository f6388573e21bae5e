"""Batch normalisation over the batch of all processes, on CPU too (torch's own needs a GPU)."""

from __future__ import annotations

import torch
from torch import nn

from fastness.core import distributed
from fastness.core.errors import BadInput


def _over_all(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """Normalise ``[B, C, ...]`` in float32 by the statistics of all processes' items; keep the input's dtype."""
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    over = [d for d in range(x.ndim) if d != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    number = distributed.total(wide.new_tensor([wide.numel() / wide.shape[1]]))
    mean = distributed.total(wide.sum(over)) / number
    centred = wide - mean.view(shape)
    variance = distributed.total(centred.square().sum(over)) / number
    _follow(norm, mean.detach(), variance.detach() * number / (number - 1).clamp_min(1))
    out = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        out = out * norm.weight.view(shape) + norm.bias.view(shape)
    return out.to(x.dtype)


@torch.no_grad()
def _follow(norm: nn.BatchNorm1d | nn.BatchNorm2d, mean: torch.Tensor, variance: torch.Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)


class SyncedBatchNorm1d(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` whose statistics in training are those of all processes' items."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See `_over_all`."""
        return _over_all(self, x) if self.training else super().forward(x)


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` whose statistics in training are those of all processes' items."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See `_over_all`."""
        return _over_all(self, x) if self.training else super().forward(x)


def synchronise(module: nn.Module) -> None:
    """Make every batch normalisation inside ``module`` take its statistics over all processes, in place.

    Parameters, buffers and their names stay as they are, so checkpoints and bundles do not know the difference.

    Raises:
        BadInput: one is of a kind that cannot be made to (timm's, fused with an activation).
    """
    for part in module.modules():
        if type(part) is nn.BatchNorm1d:
            part.__class__ = SyncedBatchNorm1d
        elif type(part) is nn.BatchNorm2d:
            part.__class__ = SyncedBatchNorm2d
        elif isinstance(part, nn.modules.batchnorm._BatchNorm | nn.LazyBatchNorm1d):
            raise BadInput(
                f"several processes: {type(part).__name__} cannot take its statistics over all of them; "
                "use one process, or an encoder with plain batch normalisation or none"
            )
