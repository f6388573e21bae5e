"""Several processes as one: sums and gathers through which gradients flow. In a single process all of it is free.

Convention: a run's loss is the *mean* of the processes' losses (that is what averaging gradients computes), and
process ``r`` of ``W`` holds the ``r``-th of ``W`` equal parts of every batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

from fastness.core.errors import BadInput


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def total(x: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``x`` over the processes; the gradient is the sum of theirs."""
    out: torch.Tensor = x if size() == 1 else _Total.apply(x)
    return out


def gathered(x: torch.Tensor) -> torch.Tensor:
    """Return the rows of all processes, ``[size * B, ...]``, in their order.

    Every process needs equally many rows. Each process's loss may depend on all rows: the gradient that a row
    gets is the sum over the processes.
    """
    if size() == 1:
        return x
    out: torch.Tensor = _Gathered.apply(x) if x.requires_grad else _all_rows(x)
    return out


def mean(values: torch.Tensor, counted: torch.Tensor | None = None) -> torch.Tensor:
    """Return what this process adds to the mean over all processes' values, times their number.

    The mean of the processes' results is then the mean over all that is counted, however it is spread.

    Args:
        values: float ``[N]``.
        counted: bool ``[N]``; default all.
    """
    if counted is None:
        return values.mean()  # equally many everywhere
    number = total(counted.sum().to(values.dtype))
    return torch.where(counted, values, torch.zeros_like(values)).sum() * size() / number.clamp_min(1)


def agreed(flag: bool) -> bool:
    """Return whether any process says yes, so that all do the same."""
    if size() == 1:
        return flag
    return bool(total(_number(flag)) > 0)


def first(value: int) -> int:
    """Return the first process's value."""
    if size() == 1:
        return value
    number = _number(value)
    dist.broadcast(number, 0)
    return int(number)


def first_text(value: str) -> str:
    """Return the first process's text."""
    if size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, 0)
    return held[0]


def average_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Replace each gradient by its mean over the processes, all in one message.

    Done once after the last backward, whatever came before: accumulation and gradient caches need nothing else.
    """
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= size()
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def start(device: str) -> bool:
    """Join the processes that ``torchrun`` started: gloo on CPU, NCCL on GPUs; return whether it had to be done.

    Raises:
        BadInput: there are more processes than GPUs.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1 or dist.is_initialized():
        return False
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise BadInput(f"torchrun started more processes than this machine's {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    return True


def wait() -> None:
    """Wait until all processes are here."""
    if size() > 1:
        dist.barrier()


def stop() -> None:
    """Leave the group that `start` joined."""
    dist.destroy_process_group()


def _number(value: int) -> torch.Tensor:
    where = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return torch.tensor([value], dtype=torch.int64, device=where)


def _all_rows(x: torch.Tensor) -> torch.Tensor:
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(x)
        return _all_rows(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[rank() * ctx.rows : (rank() + 1) * ctx.rows]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        out = x.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad
