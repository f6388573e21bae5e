"""A trial: a candidate beside production, on the same requests, until it is shown to be worse, or not to be.

Nothing here asks or waits: what both versions made of a request is put in, and the decision is what follows from all of
it. It may be asked for after every request. Harm is shown if any one of many bets wins enough, each at its part of the
level (Bonferroni). That nothing is worse than its margin must be shown of every measure, which needs no correction:
whoever is worse by one of them passes that one by a chance of ``sure`` at most (Berger 1982, intersection-union tests).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np

from fastness.monitoring.trial.sequential import Bet, Bounds, Rates
from fastness.monitoring.trial.terms import ERRORS, LATENCY, MEASURES, QUALITY, WRONG, Terms
from fastness.monitoring.window import Array

State = Literal["running", "promote", "abort", "undecided"]
_VALUES = 12  # slices by one column
_ONCE = 1.25  # requests to a value of a column that is one of ids
_SOON = 10 * _VALUES  # requests until which nobody can tell: values that are usual may not have come again
_REST = 50  # items that must be outside of a slice before it is held against them


@dataclass(frozen=True)
class Compared:
    """What two versions made of one request.

    Attributes:
        failed: whether the candidate gave no answer where production gave one. Requests that neither answers are
            nobody's fault, and not put in.
        seconds: that production took, and the candidate; ``None`` if it gave no answer.
        losses: by measure of `MEASURES` one number an item, float ``[N]``.
        slices: in which each item is, ``[N]``, as ``column=value``.
    """

    failed: bool
    seconds: tuple[float, float] | None = None
    losses: Mapping[str, Array] = field(default_factory=dict)
    slices: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Figure:
    """What is known by one measure.

    Attributes:
        measure, slice: of what; an empty slice: of everything.
        n: requests.
        mean, low, high: of the measure, with an interval that holds at all times (level 0.05).
        tolerated, margin: its limits; of a slice that is held against the rest, counted from there.
        harm, safe: largest chance of such evidence if it were no worse than tolerated, and if it were worse than the
            margin.
        state: what is shown by it: ``harm``, ``safe``, or still ``open``; ``small``: a slice that is not waited for.
    """

    measure: str
    slice: str
    n: int
    mean: float
    low: float
    high: float
    tolerated: float
    margin: float
    harm: float
    safe: float
    state: Literal["harm", "safe", "open", "small"]

    def __str__(self) -> str:
        where = f" on {self.slice}" if self.slice else ""
        return f"{self.measure}{where} {self.mean:.3g} [{self.low:.3g}, {self.high:.3g}] of {self.n:,} requests"


@dataclass(frozen=True)
class Decision:
    """What follows from all that is known.

    Attributes:
        state: what is to be done.
        why: in a sentence, with numbers.
        pairs: requests that both versions answered.
        figures: by every measure on every slice.
    """

    state: State
    why: str
    pairs: int
    figures: list[Figure]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return asdict(self)


@dataclass
class _Line:
    """One measure on one slice.

    Attributes:
        harm, safe, bounds: what is known.
        items, total: how many items, and the sum of their losses.
        within: whether nothing can be as bad as the margin: the rest is so bad already.
    """

    harm: Bet
    safe: Bet
    bounds: Bounds
    items: int = 0
    total: float = 0.0
    within: bool = False

    @classmethod
    def of(cls, measure: str) -> _Line:
        low, high = MEASURES[measure].low, MEASURES[measure].high
        return cls(Bet("above", low, high), Bet("below", low, high), Bounds(low, high))

    @classmethod
    def resumed(cls, state: dict[str, Any]) -> _Line:
        bets = {name: Bet.resumed(state[name]) for name in ("harm", "safe")}
        return cls(**{**state, **bets, "bounds": Bounds.resumed(state["bounds"])})

    def add(self, losses: Array, tolerated: float, margin: float) -> None:
        """Take the losses of a request's items: one observation, as items that are asked together are alike."""
        value = float(losses.mean())
        self.harm.add(value, tolerated)
        self.safe.add(value, margin)
        self.within = margin >= self.safe.high
        self.bounds.add(value)


class Trial:
    """What is known of a candidate.

    Args:
        terms: see `Terms`.
        measures: of `MEASURES`, those that there will be. All but ``wrong`` are waited for, and that one too once a
            label has come.
    """

    def __init__(self, terms: Terms, measures: Sequence[str]) -> None:
        self.terms, self.measures = terms, tuple(measures)
        self.pairs = 0
        self._failed = [0, 0]  # of the candidate: failures, requests
        self._errors = (Rates("above", terms.limit(ERRORS).tolerated), Rates("below", terms.limit(ERRORS).margin))
        self._lines = {(name, ""): _Line.of(name) for name in self.measures}
        self._slices: dict[str, int] = {}  # requests with an item in it
        self._columns: dict[str, int] = {}  # how many pairs there were when each was first seen
        self._ids: list[str] = []  # columns that are not watched

    def alone(self, failed: bool) -> None:
        """Take a request that production answered by itself, or failed to."""
        for rates in self._errors:
            rates.before(failed)

    def add(self, compared: Compared) -> None:
        """Take a request that was put to both."""
        self.pairs += 1
        self._failed[0] += compared.failed
        self._failed[1] += 1
        for rates in self._errors:
            rates.add(compared.failed)
        if compared.seconds is not None and LATENCY in self.measures:
            before, after = compared.seconds
            ratio = np.clip([math.log(max(after, 1e-9) / max(before, 1e-9))], -1.0, 1.0)
            self._lines[LATENCY, ""].add(ratio, *self.terms.bounds(LATENCY, ""))
        places = self._places(compared.slices)
        for name in places:
            self._slices[name] += 1
        for measure, losses in compared.losses.items():
            self._measured(measure, np.asarray(losses, np.float64), places)

    def judged(self, wrong: Array, slices: Sequence[Sequence[str]] = ()) -> None:
        """Take labels that came later: of each item 1 if the candidate alone was wrong, -1 if it alone was right."""
        self._measured(WRONG, np.asarray(wrong, np.float64), self._places(slices))

    def decision(self) -> Decision:
        """Return what follows."""
        figures = self.figures()
        shown = [figure for figure in figures if figure.state == "harm"]
        waited = [figure for figure in figures if figure.state == "open"]
        if shown:
            worst = min(shown, key=lambda figure: figure.harm)
            more = f" (and {len(shown) - 1} more)" if len(shown) > 1 else ""
            why = f"the candidate is worse than the {worst.tolerated:.3g} tolerated: {worst}{more}"
            return Decision("abort", why, self.pairs, figures)
        if self.pairs > self.terms.most:
            open_ = "; ".join(map(str, waited[:3])) or "nothing"
            return Decision("undecided", f"after {self.pairs:,} pairs still open: {open_}", self.pairs, figures)
        if self.pairs < self.terms.least or waited:
            return Decision("running", f"{self.pairs:,} pairs, {len(waited)} figures open", self.pairs, figures)
        if not any(figure.measure in QUALITY and figure.n for figure in figures):
            why = "nothing tells how good its answers are: serve a collection, add sketches, or labels"
            return Decision("undecided", why, self.pairs, figures)
        parts = len({figure.slice for figure in figures if figure.state == "safe"}) - 1
        by = f"{len(self.measures) + 1} measures and on {parts} slices"
        return Decision("promote", f"no worse than the margins by {by}, {self.pairs:,} pairs", self.pairs, figures)

    def figures(self) -> list[Figure]:
        """Return what is known by every measure on every slice."""
        known = {place: line for place, line in self._lines.items() if line.bounds.n or place in self._awaited()}
        return [self._rates(), *(self._figure(*place, line) for place, line in known.items())]

    def state(self) -> dict[str, Any]:
        """Return all there is to know, as JSON values."""
        return {
            "terms": self.terms.model_dump(),
            "measures": self.measures,
            "pairs": self.pairs,
            "failed": self._failed,
            "errors": [rates.state() for rates in self._errors],
            "lines": [[*place, asdict(line)] for place, line in self._lines.items()],
            "slices": self._slices,
            "columns": self._columns,
            "ids": self._ids,
        }

    @classmethod
    def resumed(cls, state: dict[str, Any]) -> Self:
        """Return a trial that goes on where another was, whatever it was stopped by."""
        trial = cls(Terms.model_validate(state["terms"]), state["measures"])
        trial.pairs, trial._failed, trial._slices = state["pairs"], list(state["failed"]), dict(state["slices"])
        trial._columns, trial._ids = dict(state["columns"]), list(state["ids"])
        above, below = map(Rates.resumed, state["errors"])
        trial._errors = (above, below)
        trial._lines = {(measure, slice): _Line.resumed(line) for measure, slice, line in state["lines"]}
        return trial

    def _places(self, slices: Sequence[Sequence[str]]) -> dict[str, list[int]]:
        """Return by slice, of those that are watched, the places of its items."""
        places: dict[str, list[int]] = {}
        for place, names in enumerate(slices):
            for name in names:
                if name in self._slices or self._watched(name):
                    places.setdefault(name, []).append(place)
        return {name: rows for name, rows in places.items() if name in self._slices}  # some may be forgotten by now

    def _watched(self, name: str) -> bool:
        """Whether a new slice is to be watched; then it is from now on."""
        column = name.partition("=")[0] + "="
        same = [known for known in self._slices if known.startswith(column)]
        if column in self._ids:
            return False
        since = self._columns.setdefault(column, self.pairs)
        if len(same) >= _VALUES:
            often = sum(self._slices[known] for known in same)
            if self.pairs - since >= _SOON and often <= _ONCE * len(same):
                self._forget(column, same)
            return False
        if len(self._slices) >= self.terms.slices:
            return False
        self._slices[name] = 0
        return True

    def _forget(self, column: str, slices: Sequence[str]) -> None:
        """Watch a column of ids no more: of each there is hardly more than one, and others want the room."""
        self._ids.append(column)
        for name in slices:
            del self._slices[name]
        self._lines = {place: line for place, line in self._lines.items() if place[1] not in slices}

    def _measured(self, measure: str, losses: Array, places: Mapping[str, list[int]]) -> None:
        about = MEASURES[measure]
        whole = self._lines.setdefault((measure, ""), _Line.of(measure))
        for name, rows in places.items() if about.sliced else ():
            line = self._lines.setdefault((measure, name), _Line.of(measure))
            part = losses[rows]
            outside = whole.items - line.items
            if not about.relative or outside >= _REST:
                rest = (whole.total - line.total) / outside if about.relative else 0.0
                tolerated, margin = self.terms.bounds(measure, name)
                line.add(part, rest + tolerated, rest + margin)
        for name, rows in places.items() if about.sliced else ():
            line = self._lines[measure, name]
            line.items, line.total = line.items + len(rows), line.total + float(losses[rows].sum())
        whole.add(losses, *self.terms.bounds(measure, ""))
        whole.items, whole.total = whole.items + len(losses), whole.total + float(losses.sum())

    def _awaited(self) -> set[tuple[str, str]]:
        """Return what there must be figures of before anything is promoted."""
        return {(measure, "") for measure in self.measures if measure != WRONG}

    def _parts(self, slice: str) -> int:
        """Return among how many tests half of the level is divided."""
        sliced = [name for name in self.measures if MEASURES[name].sliced]
        return self.terms.slices * len(sliced) if slice else 1 + len(self.measures)

    def _state(self, slice: str, harm: float, safe: float) -> Literal["harm", "safe", "open", "small"]:
        if harm <= self.terms.level / 2 / self._parts(slice):
            return "harm"
        if safe <= self.terms.sure:
            return "safe"
        small = slice and self._slices[slice] < self.terms.share * self.pairs
        return "small" if small else "open"

    def _figure(self, measure: str, slice: str, line: _Line) -> Figure:
        harm, safe = math.exp(-line.harm.most), 0.0 if line.within else math.exp(-line.safe.most)
        limits, state = self.terms.bounds(measure, slice), self._state(slice, harm, safe)
        found = (line.bounds.n, line.bounds.mean, *line.bounds.interval)
        return Figure(measure, slice, *found, *limits, harm, safe, state)

    def _rates(self) -> Figure:
        above, below = self._errors
        failed, n = self._failed
        rate = failed / n if n else 0.0
        harm, safe = math.exp(-above.most), math.exp(-below.most)
        return Figure(
            ERRORS,
            "",
            n,
            rate - above.rate,
            -1.0,
            1.0,
            above.limit,
            below.limit,
            harm,
            safe,
            self._state("", harm, safe),
        )
