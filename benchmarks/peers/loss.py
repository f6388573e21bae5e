"""One implementation of NT-Xent, measured: memory above the inputs and time of forward and backward.

Runs in any environment that has torch and the side's library. Reads a line for each turn, writes a line of JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

TEMPERATURE = 0.2
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def dense(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the loss from one matrix of all similarities, as most write it."""
    z = torch.nn.functional.normalize(torch.cat([x, y]), dim=1)
    logits = z @ z.T / TEMPERATURE
    logits.fill_diagonal_(float("-inf"))
    n = len(x)
    target = torch.cat([torch.arange(n, 2 * n), torch.arange(n)])
    return torch.nn.functional.cross_entropy(logits, target)


def loss_of(side: str) -> Loss:
    """Return a side's loss of two batches of vectors."""
    if side == "fastness":
        from fastness.losses.nt_xent import nt_xent

        return lambda x, y: nt_xent(torch.cat([x, y]), 2, TEMPERATURE)
    if side == "lightly":
        from lightly.loss import NTXentLoss

        return NTXentLoss(temperature=TEMPERATURE)
    if side == "pml":
        from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

        return SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))
    return dense


def resident(field: str) -> int:
    """Return a figure of this process's memory in bytes: VmRSS now, VmHWM at its highest."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split(f"{field}:")[1].split()[0])


def main() -> None:
    """Measure on request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side")
    parser.add_argument("pairs", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=18, help="GiB of address space")
    parser.add_argument("--gradient", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(options.pairs, 128, generator=generator, requires_grad=True) for _ in range(2))
    loss = loss_of(options.side)
    small = torch.randn(8, 128, requires_grad=True)
    loss(small, small).backward()  # libraries load what they need
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    limit = int(options.limit * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    peak = None
    for _ in sys.stdin:
        x.grad = y.grad = None
        began = time.perf_counter()
        try:
            value = loss(x, y)
            value.backward()
        except (RuntimeError, MemoryError) as error:
            print(json.dumps({"error": str(error).splitlines()[0][:200]}), flush=True)
            return
        seconds = time.perf_counter() - began
        if peak is None:
            peak = resident("VmHWM") - before
            if options.gradient:
                np.save(options.gradient, torch.cat([x.grad, y.grad]).numpy())
        print(json.dumps({"seconds": seconds, "peak_bytes": peak, "loss": float(value.detach())}), flush=True)


if __name__ == "__main__":
    main()
