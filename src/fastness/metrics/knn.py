"""k-nearest-neighbour classification of embeddings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from fastness.metrics.finite import must_be_finite

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def knn_predict(
    bank: Floats, labels: Ints, queries: Floats, *, k: int = 20, temperature: float = 0.07, classes: int | None = None
) -> Ints:
    """Classify queries by a weighted vote of their nearest neighbours in the bank.

    Wu et al. 2018 (arXiv 1805.01978), section 3.4: cosine similarity s, weight exp(s / temperature).

    Args:
        bank, queries: float32 ``[N, D]`` and ``[M, D]``; normalised here.
        labels: class of each bank item, ``[N]``, in [0, classes).
        k: neighbours that vote, at most N.

    Returns:
        predicted classes, int64 ``[M]``. Memory is bounded: similarities are made for a few queries at a time.

    Raises:
        BadInput: a vector is not finite.
    """
    must_be_finite(bank, "embeddings of the bank")
    must_be_finite(queries, "embeddings of queries")
    known = _unit(bank)
    target = torch.from_numpy(np.ascontiguousarray(labels))
    count = classes or int(labels.max()) + 1
    predicted = [torch.zeros(0, dtype=torch.int64)]
    rows = max(1, 20_000_000 // max(1, len(known)))
    for start in range(0, len(queries), rows):
        similarity = _unit(queries[start : start + rows]) @ known.T
        nearest, index = similarity.topk(min(k, len(known)), dim=1)
        votes = torch.zeros(len(nearest), count)
        votes.scatter_add_(1, target[index], ((nearest - nearest[:, :1]) / temperature).exp())
        predicted.append(votes.argmax(1))
    return torch.cat(predicted).numpy()


def _unit(x: Floats) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)), dim=1)
