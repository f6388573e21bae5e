"""kNN accuracy while training goes on, where labels exist; for watching, never for choosing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fastness.core.seeds import numpy_generator
from fastness.data.items import Items
from fastness.data.sides import SideItems
from fastness.encoders import Encoder
from fastness.metrics.knn import knn_predict

PROTOCOL = "cosine, k=20, temperature 0.07; up to 2,000 training items against 500 others of them"
_BANK, _QUERIES = 2000, 500


class OnlineKNN:
    """Measures an encoder on a fixed sample of the training items.

    Args:
        items: the training items, of several sides the first; those without a label are passed over.
        seed: chooses the sample.
    """

    def __init__(self, items: Items, seed: int) -> None:
        self._side = next(iter(items.sides)) if isinstance(items, SideItems) else ""
        items = items.sides[self._side] if isinstance(items, SideItems) else items
        labels = items.dataset.labels
        known = np.flatnonzero(labels >= 0) if labels is not None else np.zeros(0, np.int64)
        known = numpy_generator(seed, "knn").permutation(known)[: _BANK + _QUERIES]
        cut = min(_QUERIES, len(known) // 5)
        self._queries, self._bank = known[:cut], known[cut:]
        self._items = items
        self._labels = labels

    @property
    def possible(self) -> bool:
        """Whether there are labels enough."""
        return len(self._queries) > 0

    def __call__(self, encoder: Encoder, autocast: torch.autocast) -> float:
        """Return the accuracy of the encoder as it is, in eval mode; training mode is restored."""
        assert self._labels is not None
        training = encoder.training
        encoder.eval()
        with torch.no_grad(), autocast:
            bank, queries = (self._embed(encoder, rows) for rows in (self._bank, self._queries))
        encoder.train(training)
        if not (np.isfinite(bank).all() and np.isfinite(queries).all()):
            return 0.0  # it has come apart, which the loss will say at its next look
        predicted = knn_predict(bank, self._labels[self._bank], queries)
        return float((predicted == self._labels[self._queries]).mean())

    def _embed(self, encoder: Encoder, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        encoder, device = encoder.side(self._side), encoder.device
        parts = [
            encoder(encoder.preprocess(self._items.batch(rows[i : i + 500]).to(device))).cpu()
            for i in range(0, len(rows), 500)
        ]
        embedded: npt.NDArray[np.float32] = torch.cat(parts).numpy()
        return embedded
