"""Finding out, from the training rows alone, what each column of a table is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from fastness.core.errors import BadInput
from fastness.data.frame import Cells, Frame
from fastness.data.schema import Category, Column, Date, Ignored, Number, Schema, distinct, measured
from fastness.data.values import DateOrder, Decimal

_SURE = 0.95  # share of the cells that must be of a kind
_VALUES = 256  # of a category, at most; the rest are others
_FEW = 20  # different values are a category however few rows there are
_POINTS = 33
_TAIL = 0.005  # normal scores end where this share of the rows is beyond
_IDENTIFIER = re.compile(r"(?:^|[\W_]|(?<=[a-z]))(?:ID|Id|No|Nr)$|(?:^|[\W_])(?:id|no|nr|uuid|guid|index|key)$")
_CODE = re.compile(r"0\d+")


@dataclass(frozen=True)
class _Found:
    """The cells of a column: different ones that are there, how often each, and how many are missing."""

    texts: list[str]
    counts: npt.NDArray[np.int64]
    missing: int

    @cached_property
    def there(self) -> int:
        return int(self.counts.sum())

    @property
    def missing_share(self) -> float:
        return round(self.missing / (self.there + self.missing), 6)

    def share(self, chosen: npt.NDArray[np.bool_]) -> float:
        """Return which share of the cells that are there is among the chosen texts."""
        return float(self.counts[chosen].sum() / self.there)


def learn(frame: Frame, asked: Schema | None = None) -> Schema:
    """Return the schema of a frame's columns.

    A column of which at least 95% of the cells are numbers, or dates of one form, is that; another is a category of
    its most frequent values, of which those seen once count as others. A column is ignored if it is all missing, if
    it is always the same, or if it tells rows apart: nearly every value is different, whole numbers never repeat where
    chance would have repeated some, or its name is that of a number or key.

    Args:
        frame: the training rows.
        asked: what is known already: columns in it that are complete are kept, of others their kind.

    Raises:
        BadInput: no column is left, or one cannot be of the kind that is asked for.
    """
    known = {} if asked is None else asked.columns
    for name in known:
        if name not in frame.columns:  # a label, say, which is no feature
            there = ", ".join(frame.columns)[:500]
            raise BadInput(f"{frame.source}: no column '{name}' among the features; take it out of the schema: {there}")
    schema = Schema({name: _column(name, cells, known.get(name)) for name, cells in frame.columns.items()})
    if not schema.used:
        reasons = "; ".join(f"{n}: {c.reason}" for n, c in schema.columns.items() if isinstance(c, Ignored))
        raise BadInput(f"{frame.source}: no column to learn from ({reasons[:300]})")
    return schema


def _column(name: str, cells: Cells, asked: Column | None) -> Column:
    if asked is not None and asked.learnt:
        return asked
    found = _found(cells)
    if asked is not None:
        return _as_asked(name, found, asked)
    if not found.texts:
        return Ignored(reason="every cell is missing")
    if len(found.texts) == 1 and not found.missing:
        return Ignored(reason=f"always '{found.texts[0][:40]}'")
    made = _number(found) or _date(found)
    if isinstance(made, Number):
        return _unless_identifier(name, found, made)
    return made or _category(name, found)


def _as_asked(name: str, found: _Found, asked: Column) -> Column:
    made: Column | None = None
    if found.texts and isinstance(asked, Number):
        made = _number(found, 0.0, asked.decimal if "decimal" in asked.model_fields_set else None)
    elif found.texts and isinstance(asked, Date):
        made = _date(found, 0.0, asked.order if "order" in asked.model_fields_set else None)
    elif found.texts:
        made = _listed(found)
    if made is None:
        raise BadInput(f"schema: column '{name}' cannot be a {asked.kind}: no cell, or always the same; ignore it")
    return made


def _found(cells: Cells) -> _Found:
    texts, places = distinct(cells)
    numbers = np.bincount(places, minlength=len(texts))
    there = [i for i, text in enumerate(texts) if text is not None and numbers[i]]
    counts = numbers[there].astype(np.int64)
    return _Found([str(texts[i]) for i in there], counts, int(len(places) - counts.sum()))


# --- numbers --------------------------------------------------------------------------------------


def _number(found: _Found, sure: float = _SURE, decimal: Decimal | None = None) -> Number | None:
    """Return the description of a column of numbers, by the decimal sign given, else by that which reads more cells."""
    codes = np.array([bool(_CODE.fullmatch(text)) for text in found.texts])
    if sure and found.share(codes) > 0.01:
        return None  # leading zeros are those of postcodes and the like
    signs: Sequence[Decimal] = (".", ",") if any("," in text for text in found.texts) else (".",)
    if decimal is not None:
        signs = (decimal,)
    read = {sign: measured(Number(decimal=sign), found.texts) for sign in signs}
    shares = {sign: found.share(~np.isnan(values)) for sign, values in read.items()}
    best = max(signs, key=lambda sign: shares[sign])
    if shares[best] <= 0 or shares[best] < sure or _compact_dates(found.texts, read[best]):
        return None
    scaled = _scale(read[best], found)
    return None if scaled is None else Number(decimal=best, **scaled)


def _compact_dates(texts: Sequence[str], values: npt.NDArray[np.float64]) -> bool:
    """Whether whole numbers are all dates such as 20240131."""
    dates = measured(Date(order="compact"), texts)
    return bool(len(texts) > 1 and not np.isnan(dates).any() and not np.isnan(values).any())


def _scale(values: npt.NDArray[np.float64], found: _Found) -> dict[str, object] | None:
    """Return median, range and points of values that occur so often; ``None`` if there is but one value."""
    readable = ~np.isnan(values)
    every = np.sort(np.repeat(values[readable], found.counts[readable]))
    low, median, high = every[0], every[(len(every) - 1) // 2], every[-1]
    spread = np.subtract(*np.quantile(every, (0.9, 0.1))) or high - low
    origin = median if abs(median) > 1e4 * spread else 0.0
    quantiles = np.quantile(every, np.linspace(0, 1, _POINTS), method="nearest")
    # As float32 will have them: points that would fall together there are one.
    knots = np.unique((quantiles - origin).astype(np.float32)).astype(np.float64)
    if len(knots) < 2:
        return None
    below, upto = (np.searchsorted((every - origin).astype(np.float32), knots, side=s) for s in ("left", "right"))
    scores = ndtri(np.clip((below + upto) / 2 / len(every), _TAIL, 1 - _TAIL))
    return {
        "median": float(median),
        "low": float(low),
        "high": float(high),
        "points": tuple((float(knot), round(float(score), 4)) for knot, score in zip(knots, scores, strict=True)),
        "origin": float(origin),
        "missing": round(1 - len(every) / (found.there + found.missing), 6),
    }


def _unless_identifier(name: str, found: _Found, made: Number) -> Column:
    """Return a column of numbers as it is unless it tells rows apart rather than measures something."""
    values = measured(made, found.texts)
    values = values[~np.isnan(values)]
    if not (np.abs(values) < 1e15).all() or (values != np.round(values)).any():
        return made
    if _IDENTIFIER.search(name):
        return _listed(found) if len(found.texts) <= _FEW else Ignored(reason="an identifier, by its name")
    span = made.high - made.low + 1
    if len(values) == found.there >= 50 and found.there**2 > 20 * span:
        return Ignored(reason="an identifier: whole numbers that never repeat")
    return made


# --- dates ----------------------------------------------------------------------------------------


def _date(found: _Found, sure: float = _SURE, order: DateOrder | None = None) -> Date | None:
    """Return the description of a column of dates, in the order given or one that is found out.

    Of several orders the one that reads most cells is taken, then the one by which the dates lie closest together
    (the wrong one scatters the days of a month over the year), then day first for dates with dots.
    """
    probe = found.texts[:200]
    best: tuple[tuple[float, float], DateOrder, npt.NDArray[np.float64]] | None = None
    orders = get_args(DateOrder)
    dotted = sum("." in text for text in probe) > len(probe) / 2
    tried = orders if dotted else [o for o in orders if o != "dmy"] + ["dmy"]
    for way in tried if order is None else [order]:
        kind = Date(order=way)
        if sure and np.isnan(measured(kind, probe)).mean() > 0.5:
            continue
        values = measured(kind, found.texts)
        share = found.share(~np.isnan(values))
        if share <= 0 or share < sure:
            continue
        rank = (share, -float(np.nanmax(values) - np.nanmin(values)))
        if best is None or rank > best[0]:
            best = (rank, way, values)
    if best is None:
        return None
    _, way, values = best
    scaled = _scale(values, found)
    moments = values[~np.isnan(values)]
    return None if scaled is None else Date(order=way, time=bool((moments != np.floor(moments)).any()), **scaled)


# --- categories -----------------------------------------------------------------------------------


def _category(name: str, found: _Found) -> Column:
    """Return a column as a category, unless nearly every value is different."""
    many = len(found.texts) > _FEW
    if many and len(found.texts) > 0.5 * found.there:
        words = np.average([len(text.split()) for text in found.texts], weights=found.counts)
        return Ignored(reason="nearly every value is different" + (": free text" if words >= 3 else ""))
    if many and _IDENTIFIER.search(name):
        return Ignored(reason="an identifier, by its name")
    return _listed(found)


def _listed(found: _Found) -> Category:
    """Return a category of the most frequent values; of many, those seen once are left to the others."""
    order = sorted(range(len(found.texts)), key=lambda i: (-found.counts[i], found.texts[i]))
    once = len(found.texts) > _FEW and bool((found.counts > 1).any())
    kept = [found.texts[i] for i in order if found.counts[i] > 1 or not once]
    values = kept[:_VALUES]
    among = set(values)
    listed = found.share(np.array([text in among for text in found.texts], np.bool_))
    return Category(
        values=tuple(values),
        others=round((1 - listed) * (1 - found.missing_share), 6),
        missing=found.missing_share,
    )
