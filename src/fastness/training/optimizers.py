"""Optimisers by name; biases and normalisation layers are never decayed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def make_optimizer(module: nn.Module, name: str, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9, LARS (You et al. 2017, arXiv 1708.03888) or AdamW over what learns."""
    learning = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "adamw":
        # One pass instead of ten over weights that are mostly a table of words. The fused step goes through memory as
        # it lies, which differs between channels-last weights and the moments that a checkpoint brings back.
        fused = all(p.is_contiguous() for p in learning)
        return torch.optim.AdamW(groups, lr=lr, fused=fused or None)
    if name == "lars":
        from timm.optim import Lars

        return Lars(groups, lr=lr, momentum=0.9)  # type: ignore[no-any-return]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9)
