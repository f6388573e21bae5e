"""The probe that checks share: a straight cut through the features, with a temperature that makes it honest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.seeds import numpy_generator
from fastness.metrics.calibration import best_temperature
from fastness.metrics.probe import fit_linear

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PROTOCOL = "logistic regression (C=1) on standardised features, fitted on four fifths of the fitting items"
_UNKNOWN = -30.0  # how far below all others the logit of a class is that no fitted item had


@dataclass(frozen=True)
class Probe:
    """A linear probe on frozen features.

    Attributes:
        model: the fitted pipeline.
        classes: how many there are.
        temperature: by which logits are divided to be calibrated; chosen on the fifth that was not fitted on.
        protocol: how it was fitted.
    """

    model: Any
    classes: int
    temperature: float
    protocol: str = _PROTOCOL

    @classmethod
    def fitted(cls, vectors: npt.NDArray[np.float32], labels: Ints, classes: int, seed: int) -> Probe:
        """Fit on features ``[N, D]`` and labels ``[N]``; every class keeps at least one item for the fit."""
        kept, rest = fifths(labels, classes, seed)
        bare = cls(fit_linear(vectors[kept], labels[kept]), classes, 1.0)
        temperature = best_temperature(bare.logits(vectors[rest]), labels[rest]) if len(rest) else 1.0
        return cls(bare.model, classes, temperature)

    def logits(self, vectors: npt.NDArray[np.float32]) -> Floats:
        """Return logits float64 ``[M, classes]``, not divided by the temperature."""
        raw = np.asarray(self.model.decision_function(vectors), np.float64)
        raw = np.stack([-raw / 2, raw / 2], 1) if raw.ndim == 1 else raw
        out = np.full((len(raw), self.classes), raw.min(initial=0.0) + _UNKNOWN)
        out[:, self.model.classes_] = raw
        return out


def fifths(labels: Ints, classes: int, seed: int) -> tuple[Ints, Ints]:
    """Return the positions of four fifths of each class, and of the rest; of a class with less than five items all."""
    generator = numpy_generator(seed, "probe")
    by_class = [generator.permutation(np.flatnonzero(labels == c)) for c in range(classes)]
    kept, rest = ([rows[len(rows) // 5 :] for rows in by_class], [rows[: len(rows) // 5] for rows in by_class])
    return np.concatenate(kept), np.concatenate(rest)
