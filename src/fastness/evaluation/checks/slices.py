"""Slices: where does it fail? Parts of the items by what is known of them, and regions found by the errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fastness.core.conditions import Columns
from fastness.core.seeds import derive
from fastness.data.show import shown
from fastness.evaluation import slices
from fastness.evaluation.checks import CHECKS, Check, Findings, measured
from fastness.evaluation.measurement import WHOLE, Measurement
from fastness.evaluation.slices import Slice
from fastness.evaluation.subject import Subject
from fastness.metrics.discovery import regions_of_error
from fastness.metrics.intervals import holm, wilson

_SMALLEST = 20  # items of a slice that is worth a number
_FOUND = "a region of the embeddings, found by the errors of one half of the held-out items, measured on the other"
Mask = npt.NDArray[np.bool_]


@CHECKS.register("slices")
class Slices(Check):
    """Accuracy of the probe on slices, and on regions of the embeddings where it errs most."""

    needs = frozenset()

    def run(self, subject: Subject) -> Findings:
        """Measure on the held-out items; slices stand in order, first those that are surest to be bad."""
        wrong = subject.test_logits.argmax(1) != subject.test_labels
        known, every = subject.held_out_known, np.ones(len(wrong), np.bool_)
        usual = [part for part in slices.usual(known) if part.mask.sum() >= _SMALLEST]
        parts = usual if subject.slices is None else slices.asked(subject.slices, known)
        jobs = [(part, every, "the items for which it holds") for part in parts if part.mask.any()]
        region = np.zeros(len(wrong), np.int64)
        if "embeddings" in subject.has and len(wrong) >= 4 * _SMALLEST:
            regions, region, judged = _regions(subject, wrong, known)
            jobs += [(part, judged, _FOUND) for part in regions if part.mask.sum() >= _SMALLEST]
        chances = holm([_chance(part.mask, among, wrong) for part, among, _ in jobs])
        found = [
            _accuracy(subject, part, wrong, how, float(p)) for (part, _, how), p in zip(jobs, chances, strict=True)
        ]
        whole = _accuracy(subject, Slice(WHOLE, every), wrong, "all of them", None)
        return Findings([whole, *sorted(found, key=lambda m: m.high)], {"accuracy": ~wrong, "region": region})


def _accuracy(subject: Subject, part: Slice, wrong: Mask, how: str, chance: float | None) -> Measurement:
    right = ~wrong[part.mask]
    interval = wilson(int(right.sum()), len(right))
    protocol = f"{subject.probe.protocol}; {how}; {subject.how}"
    value = float(right.mean())
    found = measured(subject, "slices.accuracy", value, interval, len(right), protocol, part=part.name)
    return replace(found, chance=chance)


def _chance(mask: Mask, among: Mask, wrong: Mask) -> float:
    """Return how likely so many errors were in a slice if errors fell anywhere (Fisher's exact test, one-sided)."""
    from scipy.stats import hypergeom

    mine = mask & among
    return float(hypergeom.sf(wrong[mine].sum() - 1, among.sum(), wrong[among].sum(), mine.sum()))


def _regions(subject: Subject, wrong: Mask, known: Columns) -> tuple[list[Slice], npt.NDArray[np.int64], Mask]:
    """Return the regions less the items that found them, the region of each item (0 for none), and the other items."""
    z, labels = subject.test_vectors, subject.test_labels
    order = np.random.default_rng(derive(subject.seed, "slices")).permutation(len(wrong))
    half = np.zeros(len(wrong), np.bool_)
    half[order[: len(order) // 2]] = True
    seed = derive(subject.seed, "regions")
    numbers = np.array([x for x in known.values() if x.dtype.kind == "f"]).reshape(-1, len(z)).T
    regions = regions_of_error(z[half], labels[half], numbers[half], wrong[half], subject.classes, seed)
    region = regions.of(z, labels, numbers)
    texts = _texts(subject)
    parts = [
        Slice(f"found {number}: {slices.described(region == number, known, texts)}", (region == number) & ~half)
        for number in range(1, int(region.max(initial=0)) + 1)
    ]
    return parts, region, ~half


def _texts(subject: Subject) -> list[str]:
    """Return the held-out items as texts, if that is what they are and they may be shown."""
    items = subject.held_out
    if not subject.examples or not len(items) or not isinstance(shown(items, 0), str):
        return []
    return [str(shown(items, position)) for position in range(len(items))]
