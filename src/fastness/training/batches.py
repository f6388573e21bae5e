"""Batches in a seeded order, with their views made ahead in the background on CPU."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fastness.core.seeds import numpy_generator, torch_generator
from fastness.data.cache import DecodedImages
from fastness.views.image import ImageViews

RESIDENT_BYTES = 8 << 30
"""Data sets up to this size are kept on the accelerator."""


@dataclass
class Batch:
    """What one step needs: the views, the labels (int64 ``[B]`` or ``None``), and how long it was waited for."""

    views: list[torch.Tensor]
    labels: torch.Tensor | None
    waited: float = 0.0


def positions(step: int, n: int, batch_size: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the items of batch ``step``, int64 ``[batch_size]``.

    Every epoch is a new permutation that depends only on the seed and the epoch's number; the rest that
    fills no batch is left out, as it is other items each time. Fewer items than a batch are repeated.
    """
    size = min(batch_size, n)
    per_epoch = n // size
    order = numpy_generator(seed, "order", step // per_epoch).permutation(n)
    start = (step % per_epoch) * size
    return np.resize(order[start : start + size], batch_size)


class Batches:
    """The batches of a run, each a function of the seed and its number alone.

    Args:
        images: the data.
        views: makes the views.
        batch_size, seed: see `positions`.
        device: where the views are made and used. On CPU a background thread prepares them ahead of the
            step; on an accelerator they are made in its own queue of work, which is ahead anyway.
        dtype: of the views; bfloat16 where the step computes in it, which saves half the traffic.
    """

    def __init__(
        self, images: DecodedImages, views: ImageViews, batch_size: int, seed: int, device: torch.device
    ) -> None:
        self.images, self.views, self.batch_size, self.seed, self.device = images, views, batch_size, seed, device
        self._resident: torch.Tensor | None = None
        size = len(images) * 3 * images.size**2
        if device.type != "cpu" and size <= RESIDENT_BYTES:
            self._resident = torch.cat(list(images.batches(4096))).to(device)
        labels = images.dataset.labels
        self._labels = None if labels is None else torch.from_numpy(labels)

    def make(self, step: int) -> Batch:
        """Return batch number ``step``."""
        rows = positions(step, len(self.images), self.batch_size, self.seed)
        if self._resident is not None:
            pixels = self._resident[torch.from_numpy(rows).to(self.device)]
        else:
            pixels = self.images.batch(rows).to(self.device)
        generator = torch_generator(self.seed, "views", step, device=self.device)
        labels = None if self._labels is None else self._labels[rows].to(self.device)
        return Batch(self.views(pixels, generator), labels)

    def run(self, first: int, last: int) -> Iterator[Batch]:
        """Yield batches ``first`` to ``last - 1``."""
        if self.device.type != "cpu":
            for step in range(first, last):
                yield self.make(step)
            return
        yield from self._ahead(first, last)

    def _ahead(self, first: int, last: int) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=2)
        stop = threading.Event()

        def work() -> None:
            torch.set_num_threads(1)  # of this thread only: the step keeps its own
            try:
                for step in range(first, last):
                    batch = self.make(step)
                    while not stop.is_set():
                        try:
                            ready.put(batch, timeout=0.1)
                            break
                        except queue.Full:
                            continue
                    if stop.is_set():
                        return
            except BaseException as error:  # noqa: BLE001 - handed over and raised where the step waits
                ready.put(error)

        worker = threading.Thread(target=work, name="views", daemon=True)
        worker.start()
        try:
            for _ in range(first, last):
                started = time.perf_counter()
                batch = ready.get()
                if isinstance(batch, BaseException):
                    raise batch
                batch.waited = time.perf_counter() - started
                yield batch
        finally:
            stop.set()
            worker.join()
