"""Compare: what changed between two pieces of evidence, item by item, as a whole and slice by slice."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.core.seeds import derive
from fastness.evaluation import slices
from fastness.evaluation.evidence import Evidence, Key
from fastness.evaluation.measurement import WHOLE, Measurement
from fastness.evaluation.slices import Slice
from fastness.metrics.intervals import bootstrap_means, chance_of_drop, holm, paired_shares, quantiles, wilson

Floats = npt.NDArray[np.float64]
Ends = tuple[float, float]
_DETAIL = re.compile(r"corruption\.\w+\.\d\.")
_LEVEL = 0.95
_ROUNDING = 1e-5  # what float32 features of another batch size or processor leave
_SMALLEST = 20  # items of a slice on which a change is worth telling
_AT_ONCE = 150  # differences that are drawn together


@dataclass(frozen=True)
class Difference:
    """How one measurement differs on one slice.

    Attributes:
        name: of the measurement.
        slice: ``all`` or the slice's name.
        n: items in both.
        before, after: the two values on these items.
        low, high: interval of ``after - before``; paired where the outcomes of items are known.
        after_low, after_high: interval of ``after``.
        p_worse, p_better: chance of a change so large, or larger, for the worse (the better) if there were none.
        better: see `Measurement`.
        paired: whether items were paired; else the two intervals were added as independent ones.
    """

    name: str
    slice: str
    n: int
    before: float
    after: float
    low: float
    high: float
    after_low: float
    after_high: float
    p_worse: float
    p_better: float
    better: str
    paired: bool

    @property
    def gain(self) -> float:
        """How much better it became; negative if worse, NaN where neither direction is better."""
        return {"higher": 1.0, "lower": -1.0}.get(self.better, math.nan) * (self.after - self.before)

    @property
    def gain_interval(self) -> tuple[float, float]:
        """The interval of the gain."""
        return (-self.high, -self.low) if self.better == "lower" else (self.low, self.high)


@dataclass(frozen=True)
class Comparison:
    """Two pieces of evidence side by side.

    Attributes:
        before, after: the evidence.
        known: what is known of the items in both, by column.
        outcomes: by measurement what came of each of these items before and after, float64 ``[N, 2]``; NaN where the
            check did not look at it.
        differences: of every measurement in both, on all items and on every slice.
        level: of their intervals.
        wanted: the slices that were asked for.
    """

    before: Evidence
    after: Evidence
    known: dict[str, npt.NDArray[Any]]
    outcomes: dict[str, Floats]
    keys: list[Key]
    differences: list[Difference]
    level: float
    wanted: Sequence[str] | None

    @property
    def items_seen(self) -> int:
        """How many items the measurement that looked at most has in both."""
        return max((d.n for d in self.differences if d.paired), default=len(self.keys))

    def on(self, name: str, parts: Sequence[Slice]) -> list[Difference]:
        """Return how a measurement differs on slices.

        Raises:
            BadInput: the outcomes of single items are not known of it.
        """
        if name not in self.outcomes:
            raise BadInput(f"'{name}' is measured of all items together, not of each; it has no slices")
        return list(_paired(self.before, {name: self.outcomes[name]}, parts, self.level))

    def at(self, level: float) -> Comparison:
        """Return the same with intervals of another level."""
        return compare(self.before, self.after, self.wanted, level)

    def headline(self) -> list[Difference]:
        """Return the differences on all items, without the single severities of corruptions."""
        return [d for d in self.differences if d.slice == WHOLE and not _DETAIL.match(d.name)]

    def changes(self) -> dict[str, list[Difference]]:
        """Return the differences that chance does not explain, as ``worse`` and ``better``, the largest first.

        Chances are corrected by Holm's method for the number of slices of each measurement. Largest is what is most
        times the width of its interval; slices of fewer than 20 items are left out.
        """
        found: dict[str, list[Difference]] = {"worse": [], "better": []}
        for name in dict.fromkeys(d.name for d in self.differences if d.better != "neither"):
            mine = [d for d in self.differences if d.name == name and (d.n >= _SMALLEST or d.slice == WHOLE)]
            for way, chances in (("worse", [d.p_worse for d in mine]), ("better", [d.p_better for d in mine])):
                corrected = holm(chances)
                found[way] += [d for d, p in zip(mine, corrected, strict=True) if p < (1 - self.level) / 2]
        return {
            way: sorted(rows, key=lambda d: -abs(d.gain) / max(d.high - d.low, 1e-12)) for way, rows in found.items()
        }


def compare(
    before: Evidence, after: Evidence, wanted: Sequence[str] | None = None, level: float = _LEVEL
) -> Comparison:
    """Compare two pieces of evidence on the same items.

    Args:
        before: of the bundle that is in use.
        after: of the one that could take its place.
        wanted: slices: columns, of which every value is one, or expressions; default: `slices.usual`.
        level: of the intervals.

    Raises:
        BadInput: they have no items in common, or a slice is none.
    """
    keys, known = shared(before, after)
    outcomes = _outcomes(before, after, keys)
    parts = slices.usual(known) if wanted is None else slices.asked(wanted, known)
    whole = Slice(WHOLE, np.ones(len(keys), np.bool_))
    paired = list(_paired(before, outcomes, [whole, *parts], level))
    unpaired = [
        _unpaired(m, other, level)
        for m in before.find("")
        if m.name not in outcomes and (other := after.get(m.name)) and other.data == m.data
    ]
    return Comparison(before, after, known, outcomes, keys, [*unpaired, *paired], level, wanted)


def shared(before: Evidence, after: Evidence) -> tuple[list[Key], dict[str, npt.NDArray[Any]]]:
    """Return the items that both saw, and what the later evidence knows of them.

    Raises:
        BadInput: there are none, or they have other labels in one than in the other.
    """
    mine, earlier_known = before.known()
    earlier = {key: row for row, key in enumerate(mine)}
    keys, known = after.known()
    rows = np.array([row for row, key in enumerate(keys) if key in earlier], np.int64)
    if not len(rows):
        raise BadInput(
            f"{before.called} and {after.called} were measured on different items; evaluate both on the same data"
        )
    common = [keys[row] for row in rows]
    if "label" in known and "label" in earlier_known:
        once = earlier_known["label"][[earlier[key] for key in common]]
        changed = int((once != known["label"][rows]).sum())
        if changed:
            raise BadInput(
                f"{before.called} and {after.called} were measured by different labels ({changed:,} of {len(common):,} "
                "items); evaluate both on the same data"
            )
    return common, {name: values[rows] for name, values in known.items()}


def _outcomes(before: Evidence, after: Evidence, keys: Sequence[Key]) -> dict[str, Floats]:
    place = {key: row for row, key in enumerate(keys)}
    found: dict[str, Floats] = {}
    for side, evidence in enumerate((before, after)):
        for mine, columns in evidence.outcomes():
            rows = np.array([place.get(key, -1) for key in mine], np.int64)
            for name, values in columns.items():
                table = found.setdefault(name, np.full((len(keys), 2), np.nan))
                table[rows[rows >= 0], side] = values[rows >= 0]
    for table in found.values():
        table[np.isnan(table).any(1)] = np.nan
        # Else rounding that leans one way on every item would look like a change that is sure.
        same = np.isclose(table[:, 0], table[:, 1], rtol=_ROUNDING, atol=_ROUNDING)
        table[same, 1] = table[same, 0]
    return {name: table for name, table in found.items() if not np.isnan(table).all()}


def _paired(
    before: Evidence, outcomes: dict[str, Floats], parts: Sequence[Slice], level: float
) -> Iterator[Difference]:
    """Yield the difference of every measurement on every slice that has an item."""
    jobs = [(name, part) for name in outcomes for part in parts]
    for start in range(0, len(jobs), _AT_ONCE):
        block = jobs[start : start + _AT_ONCE]
        for (name, part), intervals in zip(block, _intervals(outcomes, block, level), strict=True):
            if intervals is None:
                continue
            measurement = before.get(name)
            assert measurement is not None
            table = outcomes[name][part.mask & ~np.isnan(outcomes[name][:, 0])]
            one, other = table.mean(0)
            (low, high), after = intervals
            falls, rises = chance_of_drop(table[:, 1] - table[:, 0]), chance_of_drop(table[:, 0] - table[:, 1])
            worse, better = (rises, falls) if measurement.better == "lower" else (falls, rises)
            yield Difference(
                name,
                part.name,
                len(table),
                float(one),
                float(other),
                min(low, other - one),
                max(high, other - one),
                min(after[0], other),
                max(after[1], other),
                worse,
                better,
                measurement.better,
                True,
            )


def _intervals(
    outcomes: dict[str, Floats], jobs: Sequence[tuple[str, Slice]], level: float
) -> list[tuple[Ends, Ends] | None]:
    """Return of each measurement on each slice the intervals of the change and of the later value; ``None``: no items.

    What is right or wrong is counted; of other outcomes the same items are drawn anew for all of them.
    """
    found: list[tuple[Ends, Ends] | None] = []
    drawn: list[tuple[int, Floats]] = []
    for name, part in jobs:
        rows = part.mask & ~np.isnan(outcomes[name][:, 0])
        table = outcomes[name][rows]
        found.append(_counted(table, level) if len(table) and np.isin(table, (0, 1)).all() else None)
        if len(table) and found[-1] is None:
            drawn.append((len(found) - 1, np.where(rows[:, None], outcomes[name], np.nan)))
    if not drawn:
        return found
    columns = [*(table @ [-1.0, 1.0] for _, table in drawn), *(table[:, 1] for _, table in drawn)]
    changes, afters = np.split(bootstrap_means(np.stack(columns, 1), derive(0, "comparison")).T, 2)
    for (place, _), change, after in zip(drawn, changes, afters, strict=True):
        found[place] = quantiles(change[~np.isnan(change)], level), quantiles(after[~np.isnan(after)], level)
    return found


def _counted(table: Floats, level: float) -> tuple[Ends, Ends]:
    """Return both intervals of outcomes that are right or wrong, ``[N, 2]``."""
    change, n = table[:, 1] - table[:, 0], len(table)
    low, high = paired_shares(int((change > 0).sum()), int((change < 0).sum()), n, level).tolist()
    return (low, high), wilson(round(table[:, 1].sum()), n, level)


def _unpaired(one: Measurement, other: Measurement, level: float) -> Difference:
    """Return the difference of two numbers of which only the intervals are known, taken as independent."""
    from scipy.stats import norm

    change = other.value - one.value
    down = math.hypot(other.value - other.low, one.high - one.value)
    up = math.hypot(other.high - other.value, one.value - one.low)
    wide = float(norm.ppf(0.5 + one.level / 2))
    falls, rises = _tail(change, up / wide), _tail(-change, down / wide)
    wider = float(norm.ppf(0.5 + level / 2)) / wide
    down, up = wider * down, wider * up
    after_low, after_high = (
        other.value - wider * (other.value - other.low),
        other.value + wider * (other.high - other.value),
    )
    worse, better = (rises, falls) if one.better == "lower" else (falls, rises)
    return Difference(
        one.name,
        WHOLE,
        min(one.n, other.n),
        one.value,
        other.value,
        change - down,
        change + up,
        after_low,
        after_high,
        worse,
        better,
        one.better,
        False,
    )


def _tail(change: float, error: float) -> float:
    """Return the chance that a number around 0 with this standard error lies below ``change``."""
    from scipy.stats import norm

    if error == 0:
        return 0.0 if change < 0 else 1.0
    return float(norm.cdf(change / error)) if math.isfinite(error) else 0.5
