"""Fine-tuning: how far does the whole network get when it may learn from the labels?"""

from __future__ import annotations

import numpy as np
import torch

from fastness.core.recipe import Recipe
from fastness.core.seeds import derive
from fastness.evaluation.checks import CHECKS, Check, Findings, accuracy
from fastness.evaluation.subject import Subject
from fastness.training.fit import fit
from fastness.views import VIEWS

_EPOCHS, _STEPS = 10, 1000
_RATE = 1e-3


@CHECKS.register("fine_tuned")
class FineTuned(Check):
    """Accuracy of the network with a linear layer on it, trained on all labels of the fitting items."""

    costly = True

    def missing(self, subject: Subject) -> str | None:
        """It wants labels, and weights."""
        return super().missing(subject) or (
            None if subject.bundle.encoder.learns else "an export cannot be trained; tune its bundle"
        )

    def run(self, subject: Subject) -> Findings:
        """Train ten epochs, at most a thousand steps; nothing is chosen by what comes of it."""
        encoder = subject.bundle.encoder
        start = encoder.untrained()
        start.load_weights(encoder.weights())
        batch = min(128, len(subject.fit))
        steps = min(_STEPS, max(1, _EPOCHS * len(subject.fit) // batch))
        seed = derive(subject.seed, "fine-tuning") % (1 << 31)
        recipe = Recipe(
            method="supervised",
            steps=steps,
            batch_size=batch,
            optimizer="adamw",
            lr=_RATE,
            seed=seed,
            views=VIEWS.get(encoder.spec.modality).cautious,
        )
        torch.manual_seed(derive(seed, "head"))
        method = fit(subject.fit, recipe, start).eval()
        predicted = np.empty(len(subject.test), np.int64)
        with torch.inference_mode():
            for positions, items in subject.test.batches(500):
                logits = method.classifier(method.encoder(method.encoder.preprocess(items)))  # type: ignore[operator]
                predicted[positions] = logits.argmax(1).numpy()
        how = f"the whole network with a linear layer, {steps} steps of {batch} on all labels, AdamW, rate {_RATE:g}"
        return accuracy(subject, "fine_tuned", predicted, how)
