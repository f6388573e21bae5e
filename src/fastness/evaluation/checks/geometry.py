"""Shape of the embeddings: alignment, uniformity, effective rank."""

from __future__ import annotations

import numpy as np
import torch

from fastness.core.seeds import numpy_generator, torch_generator
from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.losses.precision import normalised
from fastness.metrics import geometry
from fastness.metrics.intervals import student
from fastness.training.batches import moved
from fastness.views import VIEWS

_DRAWS, _SAMPLE, _AT_ONCE = 8, 500, 64


@CHECKS.register("geometry")
class Geometry(Check):
    """Measured on random samples of the held-out items, without labels."""

    def missing(self, subject: Subject) -> str | None:
        """It needs nothing but items."""
        return None

    def run(self, subject: Subject) -> Findings:
        """Measure eight samples and give Student's interval over them."""
        # Samples must differ to tell how far the numbers move, so none takes all items.
        n = max(2, min(_SAMPLE, len(subject.test) // 2))
        encoder = subject.bundle.encoder
        made = VIEWS.get(encoder.spec.modality)
        views, device = made.make(made.probe, encoder.spec, subject.fit), encoder.device
        values: dict[str, list[float]] = {"alignment": [], "uniformity": [], "effective_rank": []}
        for draw in range(_DRAWS):
            rows = numpy_generator(subject.seed, "geometry", draw).permutation(len(subject.test))[:n]
            generator = torch_generator(subject.seed, "geometry views", draw, device=device)
            with torch.inference_mode():
                pairs = [
                    encoder.of_views(views(moved(batch, device), generator))
                    for _, batch in subject.test.select(rows).batches(_AT_ONCE)
                ]
                x, y = normalised(torch.cat(pairs)).unbind(1)
                z = normalised(torch.from_numpy(subject.test_vectors[rows]))
            values["alignment"].append(geometry.alignment(x, y))
            values["uniformity"].append(geometry.uniformity(z))
            values["effective_rank"].append(geometry.effective_rank(z))
        described = {
            "alignment": ("squared distance", "mean squared distance of two standard views of an item; 0 is perfect"),
            "uniformity": ("nats", "log mean Gaussian potential of pairs, t=2; lower is more uniform"),
            "effective_rank": (
                "dimensions",
                f"entropy rank of {n} centred embeddings of {subject.bundle.dim} dimensions",
            ),
        }
        return Findings(
            [
                Measurement(
                    f"geometry.{name}",
                    *student(np.array(values[name])),
                    "draws",
                    _DRAWS,
                    unit,
                    f"{text}; {_DRAWS} samples of {n} held-out items",
                    subject.data,
                    seed=subject.seed,
                )
                for name, (unit, text) in described.items()
            ]
        )
