"""What the text of a cell may mean: nothing, a number, a date."""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from typing import Literal

Decimal = Literal[".", ","]
DateOrder = Literal["ymd", "dmy", "mdy", "compact", "named"]

MISSING = frozenset({"", "?", "na", "n/a", "#n/a", "n.a.", "-", "--", ".", "null", "none", "nan", "nat", "<na>"})
"""What a cell says, trimmed and in small letters, that holds nothing."""
_NO_CLASS = MISSING - {"-", "--", ".", "none"}  # classes are called so: the other of +, pictures without a defect

_GAP = "'’ \u00a0\u2009\u202f"  # what stands between thousands beside a dot or a comma
_NUMBERS = {
    decimal: re.compile(
        rf"[+-]?(?:(?:\d{{1,3}}(?:[{_GAP}{other}]\d{{3}})+|\d+)(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
    )
    for decimal, point, other in ((".", r"\.", ","), (",", ",", "."))
}
_DATE = re.compile(
    r"(\d{1,4})([-/. ])(\d{1,2})\2(\d{1,4})"
    r"(?:[T ]\s*(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?\s*([AaPp][Mm])?\s*(?:Z|UTC|([+-])(\d{2}):?(\d{2}))?)?"
)
_COMPACT = re.compile(r"(1[89]|20|21)\d{6}")
_NAMED = ("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y")
_EPOCH = datetime.date(1970, 1, 1).toordinal()


def is_missing(text: str | None) -> bool:
    """Whether a cell says that nothing is known: empty, ``?``, ``NA``, ``null``, ``-`` and the like."""
    return text is None or text.strip().lower() in MISSING


def is_no_class(text: str) -> bool:
    """Whether a label says that the class is not known: as a cell does, less the words that classes are called by."""
    return text.strip().lower() in _NO_CLASS


def number(text: str, decimal: Decimal = ".") -> float | None:
    """Return the finite number that a text is, or ``None``.

    Signs of currencies and percent are passed over, as are separators of thousands; brackets mean minus.

    Args:
        decimal: what stands before the fraction; the other one of the two separates thousands.
    """
    text = text.strip()
    negative = text.startswith("(") and text.endswith(")")
    if negative:
        text = text[1:-1]
    if not text.isascii():
        text = "".join(c for c in text.replace("−", "-") if unicodedata.category(c) != "Sc")
    text = text.replace("$", "").replace("%", "").strip()
    if not _NUMBERS[decimal].fullmatch(text):
        return None
    for mark in ("," if decimal == "." else ".", *_GAP):
        text = text.replace(mark, "")
    value = float(text.replace(",", "."))
    return (-value if negative else value) if math.isfinite(value) else None


def days(text: str, order: DateOrder) -> float | None:
    """Return the days from 1970-01-01 to a date, with the time of day as a fraction, or ``None``.

    Args:
        order: of year, month and day; ``compact`` is 20240131, ``named`` has an English month's name.
    """
    text = text.strip()
    if order == "named":
        return _named(text)
    if order == "compact":
        if not _COMPACT.fullmatch(text):
            return None
        return _date(text[:4], text[4:6], text[6:])
    match = _DATE.fullmatch(text)
    if not match:
        return None
    parts = dict(zip(order, (match[1], match[3], match[4]), strict=True))
    if max(len(parts["m"]), len(parts["d"])) > 2 or len(parts["y"]) not in (2, 4):
        return None
    date = _date(parts["y"], parts["m"], parts["d"])
    if date is None or match[5] is None:
        return date
    hour, minute, second = int(match[5]), int(match[6]), int(match[7] or 0)
    if match[8]:
        hour = hour % 12 + (12 if match[8].lower() == "pm" else 0)
    if hour > 24 or minute > 59 or second > 60:
        return None
    seconds = hour * 3600 + minute * 60 + second
    if match[9]:
        seconds -= (1 if match[9] == "+" else -1) * (int(match[10]) * 3600 + int(match[11]) * 60)
    return date + seconds / 86400


def _date(year: str, month: str, day: str) -> float | None:
    number = int(year)
    if len(year) == 2:
        number += 2000 if number < 69 else 1900
    try:
        return float(datetime.date(number, int(month), int(day)).toordinal() - _EPOCH)
    except ValueError:
        return None


def _named(text: str) -> float | None:
    for form in _NAMED:
        try:
            return float(datetime.datetime.strptime(text, form).toordinal() - _EPOCH)
        except ValueError:
            continue
    return None


def looks_like_data(text: str) -> bool:
    """Whether a cell of a first line is a value rather than a column's name: a number or a date."""
    if number(text, ".") is not None or number(text, ",") is not None:
        return True
    return any(days(text, order) is not None for order in ("ymd", "dmy", "mdy", "named"))
