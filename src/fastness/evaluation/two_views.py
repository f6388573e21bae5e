"""Two views of items, embedded: what checks without labels look at."""

from __future__ import annotations

import torch

from fastness.core.seeds import torch_generator
from fastness.evaluation.subject import Ints, Subject
from fastness.losses.precision import normalised
from fastness.training.batches import moved
from fastness.views import VIEWS

_AT_ONCE = 64


def two_views(subject: Subject, rows: Ints, *names: str | int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings of two views of medium strength of held-out items, each float32 ``[N, D]``, of length 1.

    Args:
        rows: positions of the items.
        names: what the random choices are for; the same names, the same views.
    """
    encoder = subject.bundle.encoder
    made = VIEWS.get(encoder.spec.modality)
    views, device = made.make(made.probe, encoder.spec, subject.fit), encoder.device
    generator = torch_generator(subject.seed, *names, device=device)
    with torch.inference_mode():
        items = subject.test.select(rows)
        pairs = torch.empty(len(items), 2, subject.bundle.dim)
        for positions, batch in items.batches(_AT_ONCE):
            pairs[positions] = normalised(encoder.of_views(views(moved(batch, device), generator))).float().cpu()
    one, other = pairs.unbind(1)
    return one, other
