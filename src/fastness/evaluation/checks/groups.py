"""Groups: is it as often right, and as honest about it, for every group of people?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fastness.core.seeds import derive, numpy_generator
from fastness.evaluation import slices
from fastness.evaluation.checks import CHECKS, Check, Findings, measured
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.slices import Slice
from fastness.evaluation.subject import Subject
from fastness.metrics.calibration import error_interval, reliability, softmax
from fastness.metrics.intervals import bootstrap, holm, quantiles

_SMALLEST = 50  # items of a group that is compared with others
_DRAWS = 300
_BINS = 15
Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Figure = Callable[[Rows], float]


@CHECKS.register("groups")
class Groups(Check):
    """Error and calibration error of every group, and of each the difference and the ratio between groups.

    The difference is the largest less the smallest (Hardt et al. 2016, arXiv 1610.02413, compare rates in this way).
    """

    needs = frozenset()

    def missing(self, subject: Subject) -> str | None:
        """It wants to know which column names the groups."""
        return super().missing(subject) if subject.sensitive else "needs a column that names groups (--sensitive NAME)"

    def run(self, subject: Subject) -> Findings:
        """Measure the probe on the held-out items."""
        wrong = subject.test_logits.argmax(1) != subject.test_labels
        confidence = softmax(subject.test_logits, subject.probe.temperature).max(1)
        rates: dict[str, Figure] = {"error": lambda rows: float(wrong[rows].mean())}
        if "probabilities" in subject.has:
            rates["ece"] = lambda rows: reliability(confidence[rows], ~wrong[rows], _BINS).error
        found: list[Measurement] = []
        for column in subject.sensitive:
            groups = [g for g in slices.by_value(column, subject.held_out_known) if g.mask.sum() >= _SMALLEST]
            for name, rate in rates.items():
                binned = (confidence, ~wrong) if name == "ece" else None
                found += [_of_group(subject, f"groups.{name}", group, rate, binned) for group in groups]
                if len(groups) > 1:
                    found += _between(subject, f"groups.{column}.{name}", groups, rate)
        return Findings(_corrected(found), {"error": wrong, "confidence": confidence})


def _of_group(
    subject: Subject, name: str, group: Slice, rate: Figure, binned: tuple[Floats, Floats] | None
) -> Measurement:
    """Return a figure of a group; with confidences and outcomes it is a calibration error."""
    rows, seed = np.flatnonzero(group.mask), derive(subject.seed, name, group.name)
    if binned is None:
        interval = quantiles(bootstrap(lambda places: rate(rows[places]), len(rows), seed, _DRAWS))
    else:
        interval = error_interval(reliability(binned[0][rows], binned[1][rows], _BINS), seed)
    how = f"{subject.probe.protocol}; {subject.how}"
    return measured(subject, name, rate(rows), interval, len(rows), how, better="lower", part=group.name)


def _between(subject: Subject, name: str, groups: list[Slice], rate: Figure) -> list[Measurement]:
    """Return difference and ratio; a ratio to nothing is left out. Items are drawn anew for the intervals."""
    members = [np.flatnonzero(group.mask) for group in groups]
    generator = numpy_generator(subject.seed, name)
    value = _apart(rate, members)
    drawn = [_apart(rate, [generator.choice(rows, len(rows)) for rows in members]) for _ in range(_DRAWS)]
    chance = _by_chance(rate, members, value["difference"], generator)
    kinds = f"largest and smallest of {len(groups)} groups of at least {_SMALLEST} items"
    how = f"{kinds}; {subject.probe.protocol}; {subject.how}"
    n = sum(map(len, members))
    return [
        replace(
            measured(
                subject,
                f"{name}.{figure}",
                value[figure],
                quantiles([sample[figure] for sample in drawn if np.isfinite(sample[figure])]),
                n,
                how,
                unit="score",
                better="lower",
            ),
            chance=chance,
        )
        for figure in value
        if np.isfinite(value[figure])
    ]


def _corrected(found: list[Measurement]) -> list[Measurement]:
    """Return the measurements with chances corrected for the number of columns, of each rate (Holm)."""
    for rate in ("error", "ece"):
        chances = {m.name.rpartition(".")[0]: m.chance for m in found if m.chance is not None and f".{rate}." in m.name}
        raised = dict(zip(chances, holm(list(chances.values())), strict=True))
        found = [
            replace(m, chance=float(raised.get(m.name.rpartition(".")[0], m.chance))) if m.chance else m for m in found
        ]
    return found


def _apart(rate: Figure, members: list[Rows]) -> dict[str, float]:
    found = np.array([rate(rows) for rows in members])
    ratio = float(found.max() / found.min()) if found.min() > 0 else float("nan")
    return {"difference": float(np.ptp(found)), "ratio": ratio}


def _by_chance(rate: Figure, members: list[Rows], apart: float, generator: np.random.Generator) -> float:
    """Return how likely groups of these sizes lay so far apart if membership meant nothing: a permutation test.

    Of the largest and the smallest of several the ratio is above 1 whatever is true, and so is its interval.
    """
    every, ends = np.concatenate(members), np.cumsum([len(rows) for rows in members])[:-1]
    as_far = 0
    for _ in range(_DRAWS):
        as_far += _apart(rate, np.split(generator.permutation(every), ends))["difference"] >= apart
    return (1 + as_far) / (1 + _DRAWS)
