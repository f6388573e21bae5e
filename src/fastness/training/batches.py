"""Batches in a seeded order, with their views made ahead in the background on CPU."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastness.core import distributed
from fastness.core.seeds import numpy_generator, torch_generator
from fastness.data import Dataset
from fastness.data.items import Items
from fastness.methods import Known
from fastness.views import Views


@dataclass
class Batch:
    """What one forward needs: views, what else is known of the items, and how long it was waited for."""

    views: list[torch.Tensor]
    known: Known
    waited: float = 0.0


def epoch_order(
    epoch: int, n: int, seed: int, keys: npt.NDArray[np.int64] | None = None, together: int = 1
) -> npt.NDArray[np.int64]:
    """Return the order of the ``n`` items in an epoch, int64 ``[n]``: it depends on the seed and the epoch alone.

    Args:
        keys: int64 ``[n]``, -1 where unknown; with them, up to ``together`` random items of one key lie side by side.
    """
    generator = numpy_generator(seed, "order", epoch)
    order = generator.permutation(n)
    if keys is not None and together > 1:
        order = _side_by_side(order, keys[order], together, generator)
    return order


def positions(step: int, order: npt.NDArray[np.int64], batch_size: int) -> npt.NDArray[np.int64]:
    """Return the items of batch ``step``, int64 ``[batch_size]``, given the order of its epoch.

    The rest that fills no batch is left out, as it is other items each time. Fewer items than a batch are repeated.
    """
    size = min(batch_size, len(order))
    start = (step % (len(order) // size)) * size
    return np.resize(order[start : start + size], batch_size)


def _side_by_side(
    order: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], together: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Cut each key's items, in their random order, into bunches of ``together``; return the bunches in random order."""
    keys = np.where(keys >= 0, keys, keys.max() + 1 + np.arange(len(keys)))  # the unknown are each alone
    by_key = np.argsort(keys, kind="stable")
    ordered = keys[by_key]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    rank = np.arange(len(keys)) - np.repeat(first, np.diff(np.r_[first, len(keys)]))
    bunch = np.cumsum(rank % together == 0) - 1
    return order[by_key[np.argsort(generator.permutation(bunch[-1] + 1)[bunch], kind="stable")]]


def group_numbers(dataset: Dataset) -> npt.NDArray[np.int64] | None:
    """Return a number for the group of each item, int64 ``[N]``, -1 for the empty name; ``None`` without groups."""
    groups = dataset.manifest.groups
    if groups is None:
        return None
    numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return np.where(groups == "", -1, numbers)


def moved(batch: Any, device: torch.device) -> Any:
    """Return a batch, or a tuple of one a side, on a device."""
    return tuple(side.to(device) for side in batch) if isinstance(batch, tuple) else batch.to(device)


class Batches:
    """The batches of a run, each a function of the seed and its number alone.

    Args:
        items: the data.
        views: makes the views.
        batch_size, seed, together: see `positions`; keys are the groups, else the labels. Several processes share
            a batch: each has its part of the items, with the views that one process alone would give them.
        parts: so many batches in a row are drawn as one, and have no item twice.
        device: where the views are made and used. On CPU a background thread prepares them ahead of the
            step; on an accelerator they are made in its own queue of work, which is ahead anyway.
    """

    def __init__(
        self,
        items: Items,
        views: Views,
        batch_size: int,
        seed: int,
        device: torch.device,
        together: int = 1,
        parts: int = 1,
    ) -> None:
        self.items, self.views, self.batch_size, self.seed = items.on(device), views, batch_size, seed
        self.device, self.together, self.parts = device, together, parts
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.zeros(0, np.int64))
        self._labels = items.dataset.labels
        self._groups = group_numbers(items.dataset)
        scores = items.dataset.manifest.scores
        self._scores = None if scores is None else scores.astype(np.float32)

    def make(self, step: int) -> Batch:
        """Return batch number ``step``."""
        part = self.batch_size // distributed.size()
        first = part * distributed.rank()
        rows = self._positions(step)[first : first + part]
        generator = torch_generator(self.seed, "views", step, device=self.device)
        views = self.views(moved(self.items.batch(rows), self.device), generator, first, self.batch_size)
        return Batch(views, Known(*(self._tensor(v, rows) for v in (self._labels, self._groups, self._scores))))

    def _positions(self, step: int) -> npt.NDArray[np.int64]:
        """Return the items of batch ``step``, of all processes; the order of an epoch is kept while it lasts."""
        whole, number = divmod(step, self.parts)
        size = self.batch_size * self.parts
        epoch = whole // max(1, len(self.items) // size)
        if epoch != self._order[0]:
            keys = self._groups if self._groups is not None else self._labels
            self._order = (epoch, epoch_order(epoch, len(self.items), self.seed, keys, self.together))
        every = positions(whole, self._order[1], size)
        return every[number * self.batch_size : (number + 1) * self.batch_size]

    def _tensor(self, values: npt.NDArray[Any] | None, rows: npt.NDArray[np.int64]) -> torch.Tensor | None:
        return None if values is None else torch.from_numpy(values[rows]).to(self.device)

    def run(self, numbers: Iterable[int]) -> Iterator[Batch]:
        """Yield the batches of these numbers."""
        if self.device.type != "cpu":
            for number in numbers:
                yield self.make(number)
            return
        yield from self._ahead(numbers)

    def _ahead(self, numbers: Iterable[int]) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=2)
        stop = threading.Event()

        def offer(thing: Batch | BaseException | None) -> bool:
            while not stop.is_set():
                try:
                    ready.put(thing, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            torch.set_num_threads(1)  # of this thread only: the step keeps its own
            try:
                for number in numbers:
                    if not offer(self.make(number)):
                        return
                offer(None)
            except BaseException as error:  # noqa: BLE001 - handed over and raised where the step waits
                offer(error)

        worker = threading.Thread(target=work, name="views", daemon=True)
        worker.start()
        try:
            while True:
                started = time.perf_counter()
                batch = ready.get()
                if batch is None:
                    return
                if isinstance(batch, BaseException):
                    raise batch
                batch.waited = time.perf_counter() - started
                yield batch
        finally:
            stop.set()
            worker.join()
