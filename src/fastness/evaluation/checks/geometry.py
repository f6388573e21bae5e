"""Shape of the embeddings: alignment, uniformity, effective rank."""

from __future__ import annotations

import numpy as np
import torch

from fastness.core.seeds import numpy_generator
from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.evaluation.two_views import two_views
from fastness.losses.precision import normalised
from fastness.metrics import geometry
from fastness.metrics.intervals import student

_DRAWS, _SAMPLE = 8, 500


@CHECKS.register("geometry")
class Geometry(Check):
    """Measured on random samples of the held-out items, without labels."""

    headline = ("geometry.*",)

    def missing(self, subject: Subject) -> str | None:
        """It needs nothing but items."""
        return None

    def run(self, subject: Subject) -> Findings:
        """Measure eight samples and give Student's interval over them."""
        # Samples must differ to tell how far the numbers move, so none takes all items.
        n = max(2, min(_SAMPLE, len(subject.test) // 2))
        values: dict[str, list[float]] = {"alignment": [], "uniformity": [], "effective_rank": []}
        for draw in range(_DRAWS):
            rows = numpy_generator(subject.seed, "geometry", draw).permutation(len(subject.test))[:n]
            x, y = two_views(subject, rows, "geometry views", draw)
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
                    better="neither",
                )
                for name, (unit, text) in described.items()
            ]
        )
