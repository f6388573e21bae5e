"""Checkpoints: one safetensors file, written beside its name and renamed, that a killed run resumes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import nn

from fastness.core.errors import BadInput
from fastness.core.files import write_bytes

NAME = "checkpoint.safetensors"


def save(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Write all that the rest of the run depends on.

    Random numbers need no saving: each is drawn from a stream that the seed and the step name.

    Args:
        state: step, number of steps and recipe; JSON-able.
    """
    tensors = {f"method/{name}": _own(t) for name, t in method.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():  # nothing but tensors, or None before the first step
        tensors |= {f"optimizer/{index}/{name}": _own(value) for name, value in values.items() if value is not None}
    # Serialised first: safetensors' own file writer reports a full disk as something else.
    write_bytes(path, serialised(tensors, {"state": json.dumps(state)}))


def read_state(path: Path) -> dict[str, Any]:
    """Return the state that was saved.

    Raises:
        BadInput: the file is no checkpoint of ours.
    """
    try:
        with safe_open(path, "pt") as opened:
            state: dict[str, Any] = json.loads((opened.metadata() or {})["state"])
            return state
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise BadInput(f"{path}: is no readable checkpoint ({error}); delete it to start anew") from None


def load(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore ``method`` and ``optimizer`` as they were saved.

    Raises:
        BadInput: the checkpoint belongs to another model.
    """
    inner: dict[int, dict[str, Any]] = {}
    weights: dict[str, torch.Tensor] = {}
    with safe_open(path, "pt") as opened:
        for key in opened.keys():  # noqa: SIM118 - not a mapping
            kind, _, rest = key.partition("/")
            if kind == "method":
                weights[rest] = opened.get_tensor(key)
            else:
                index, _, name = rest.partition("/")
                inner.setdefault(int(index), {})[name] = opened.get_tensor(key)
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput(f"{path}: belongs to another model ({str(error).splitlines()[0]})") from None
    optimizer.load_state_dict({"state": inner, "param_groups": optimizer.state_dict()["param_groups"]})


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous copy on CPU that shares memory with no other."""
    return tensor.detach().to("cpu", copy=True).contiguous()
