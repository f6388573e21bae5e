"""Targets: ``p99<20ms,size<10MB`` becomes limits, and picks the form that keeps them all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from fastness.core.errors import BadInput
from fastness.delivery.bench.row import Row, shown

_TIME = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_BYTES = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
_SHARE = {"": 1.0, "%": 0.01}
_UNITS: Mapping[str, Mapping[str, float]] = {
    "p50": _TIME, "p95": _TIME, "p99": _TIME, "startup": _TIME, "size": _BYTES, "memory": _BYTES,
    "throughput": {"/s": 1.0}, "accuracy": _SHARE, "robustness": _SHARE, "energy": {"mJ": 1e-3, "J": 1.0},
}  # fmt: skip
_MORE = frozenset({"throughput", "accuracy", "robustness"})  # of these more is better
_LIMIT = re.compile(r"([a-z]\w*)\s*([<>]=?)\s*(\d+(?:\.\d+)?)\s*(\S*)")


@dataclass(frozen=True)
class Limit:
    """One part of a target.

    Attributes:
        name: of a figure of a row.
        least: whether the figure must be more than the value; else it must be less.
        value: in seconds, bytes, items a second, shares, or joules for 1,000 items.
        equal: whether the value itself will do.
        text: as it was said.
    """

    name: str
    least: bool
    value: float
    equal: bool
    text: str

    def met(self, row: Row) -> bool:
        """Whether a row keeps it; what was not measured does not."""
        found = getattr(row, self.name)
        if found is None or found == self.value:
            return found is not None and self.equal
        return bool(found > self.value) == self.least

    def missed_by(self, row: Row) -> float:
        """Return how far a row is from it, as a share of the limit or more; 0 where it is met."""
        found = getattr(row, self.name)
        if self.met(row):
            return 0.0
        if found is None or (found <= 0 and self.least):
            return float("inf")
        return float(self.value / found if self.least else found / max(self.value, 1e-12)) - 1 + 1e-9

    def said(self, row: Row) -> str:
        """Return what a row has and what is asked."""
        found = getattr(row, self.name)
        if found is None:
            return f"{self.name} is not known" + (f" of {row.calls} calls" if self.name.startswith("p") else "")
        return f"{self.name} {shown(self.name, found)}{'' if self.met(row) else ', not'} {self.text}"


@dataclass(frozen=True)
class Choice:
    """What a target picks.

    Attributes:
        row: the one to take; ``None`` if none keeps all limits.
        why: in a sentence.
        others: why each other form was not taken, by form.
    """

    row: Row | None
    why: str
    others: Mapping[str, str]


def parse(asked: str) -> tuple[Limit, ...]:
    """Read a target.

    Raises:
        BadInput: a part of it is no limit of a known figure in a known unit.
    """
    return tuple(_limit(asked, part.strip()) for part in asked.split(","))


def _limit(asked: str, part: str) -> Limit:
    match = _LIMIT.fullmatch(part)
    if match is None:
        raise BadInput(f"--target {asked}: '{part}' is no limit; say it as p99<20ms,size<10MB")
    name, sign, number, unit = match.groups()
    if name not in _UNITS:
        raise BadInput(f"--target {asked}: '{name}' is not measured; known: {', '.join(_UNITS)}")
    if unit not in _UNITS[name]:
        known = " or ".join(repr(u) if u else "none" for u in _UNITS[name])
        raise BadInput(f"--target {asked}: '{part}' has the unit '{unit}'; {name} is said in {known}")
    if (sign[0] == ">") != (name in _MORE):
        right = ">" if name in _MORE else "<"
        raise BadInput(f"--target {asked}: '{part}' asks for the worse; say {name}{right}{number}{unit}")
    value = float(number) * _UNITS[name][unit]
    if _UNITS[name] is _SHARE and value > 1:
        raise BadInput(f"--target {asked}: '{part}' is more than all; say {name}>0.9 or {name}>90%")
    return Limit(name, sign[0] == ">", value, sign[1:] == "=", f"{sign} {number} {unit}".strip())


def choose(rows: Sequence[Row], limits: Sequence[Limit], alike: Callable[[str, str], bool]) -> Choice:
    """Pick, among the rows that keep every limit, one of the most accurate forms: the fastest, then the smallest.

    Args:
        rows: of one profile.
        limits: what is asked.
        alike: whether a form is as accurate as the most accurate one, for all that the items can tell.
    """
    forms = {form: list(group) for form, group in groupby(sorted(rows, key=lambda r: r.form), key=lambda r: r.form)}
    kept = {
        form: [r for r in found if r.trouble is None and all(x.met(r) for x in limits)] for form, found in forms.items()
    }
    missed = {form: _nearest(found, limits) for form, found in forms.items() if not kept[form]}
    keeping = [row for found in kept.values() for row in found]
    if not keeping:
        asked = ", ".join(f"{limit.name} {limit.text}" for limit in limits)
        return Choice(None, f"no form keeps {asked}", missed)
    top = max(keeping, key=lambda row: row.accuracy or 0.0)
    near = [row for row in keeping if row.form == top.form or alike(row.form, top.form)]
    speed = "p99" if all(row.p99 is not None for row in near) else "p50"
    fastest = {form: min(found, key=lambda row: _time(row, speed)) for form, found in kept.items() if found}
    best = min(near, key=lambda row: (_time(row, speed), row.size, row.form))
    equal = {row.form for row in near}
    lost = {form: _lost(row, best, top, speed, form in equal) for form, row in fastest.items() if form != best.form}
    return Choice(best, _why(best, top, speed, limits, len(fastest)), {**lost, **missed})


def _time(row: Row, speed: str) -> float:
    found: float | None = getattr(row, speed)
    return float("inf") if found is None else found


def _nearest(rows: Sequence[Row], limits: Sequence[Limit]) -> str:
    """Return what the row that comes nearest misses."""
    sound = [row for row in rows if row.trouble is None]
    if not sound:
        return next(row.trouble for row in rows if row.trouble is not None)
    row = min(sound, key=lambda r: sum(limit.missed_by(r) for limit in limits))
    return f"{', '.join(limit.said(row) for limit in limits if not limit.met(row))} ({row.how})"


def _why(best: Row, top: Row, speed: str, limits: Sequence[Limit], keeping: int) -> str:
    start = f"{best.form} with {best.how}: {', '.join(limit.said(best) for limit in limits)}"
    if keeping == 1:
        return f"{start}; the only form that keeps all of it"
    fastest = f"the fastest of {keeping} forms that keep it ({speed} {shown(speed, getattr(best, speed))})"
    if best.accuracy is None or top.accuracy is None:
        return f"{start}; {fastest}"
    than = "the best" if best.accuracy == top.accuracy else f"no worse than {top.accuracy:.3f} for all that items tell"
    return f"{start}; accuracy {best.accuracy:.3f}, {than}, and {fastest}"


def _lost(row: Row, best: Row, top: Row, speed: str, equal: bool) -> str:
    """Return why a row that keeps the target was not taken."""
    if not equal:
        points = 100 * ((top.accuracy or 0.0) - (row.accuracy or 0.0))
        return f"keeps it; accuracy {shown('accuracy', row.accuracy)}, {points:.1f} points below the best"
    if _time(row, speed) == _time(best, speed):
        return f"keeps it, as accurate and as fast; {shown('size', row.size)}, not {shown('size', best.size)}"
    times = [shown(speed, getattr(one, speed)) for one in (row, best)]
    return f"keeps it and is as accurate; {speed} {times[0]}, not {times[1]}"
