"""Zero-shot classification: the class whose name is nearest, without a single label."""

from __future__ import annotations

import numpy as np

from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import wilson


@CHECKS.register("zero_shot")
class ZeroShot(Check):
    """Embeds the classes' names as texts and gives each item the nearest."""

    headline = ("zero_shot.*",)

    def missing(self, subject: Subject) -> str | None:
        """It wants an encoder of texts beside one of something else, and labels to measure by."""
        kinds = {bundle.modality for bundle, _ in subject.sides.values()}
        if "text" not in kinds or len(kinds) < 2:
            return "needs an encoder of texts and of something else"
        return None if subject.has_labels else "needs a label on every item (--label)"

    def run(self, subject: Subject) -> Findings:
        """Measure the first side that is no text, on all items, as nothing is fitted."""
        text = next(bundle for bundle, _ in subject.sides.values() if bundle.modality == "text")
        side = next(name for name, (bundle, _) in subject.sides.items() if bundle.modality != "text")
        labels = subject.unfitted.required_labels("zero-shot classification")
        names = [name.replace("_", " ") for name in subject.unfitted.class_names]
        predicted = (subject.side_vectors(side) @ text.embed(names).T).argmax(1)
        right = predicted == labels
        low, high = wilson(int(right.sum()), len(right))
        measured = Measurement(
            "zero_shot.accuracy",
            float(np.mean(right)),
            low,
            high,
            "items",
            len(right),
            "share",
            f"of {len(names)} classes the one whose name is nearest by cosine; no labels used; last epoch",
            subject.unfitted.fingerprint,
            seed=subject.seed,
        )
        return Findings([measured], {"predicted": predicted, "label": labels, "accuracy": right}, subject.unfitted)
