"""Moments as people write them: ISO 8601, numbers since 1970, 20240131; and spans such as 30d."""

from __future__ import annotations

import datetime
import re
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastness.core.errors import BadInput
from fastness.data.frame import Frame
from fastness.data.values import is_missing

NEVER = int(np.iinfo(np.int64).min)
"""Stands where a row says no moment."""
EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999."""
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_NUMBER, _COMPACT = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$", r"^(18|19|20|21)\d{6}$"
_FINER = re.compile(r"\.\d{6}\d*[1-9]")
_ZERO = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_STEP = datetime.timedelta(microseconds=1)


def moments(frame: Frame, column: str, unit: str | None = None, *, late: bool = False) -> npt.NDArray[np.int64]:
    """Return the moments in a column, int64 ``[N]``, microseconds since 1970 (UTC); `NEVER` where a cell says nothing.

    Args:
        frame: whose column it is.
        column: of ISO 8601 (UTC where no zone stands), of numbers since 1970, or of dates like 20240131.
        unit: of numbers: ``s``, ``ms`` or ``us``; default: seconds.
        late: what is finer than a microsecond is rounded up, else down. So no event, which is rounded up, comes before
            a row, which is rounded down, that it really came after.

    Raises:
        BadInput: there is no such column, or a cell is no moment; names its row.
    """
    if unit is not None and unit not in UNITS:
        raise BadInput(f"unit '{unit}' of a moment is not known; known: {', '.join(UNITS)}")
    cells = pc.utf8_trim_whitespace(frame[column])
    if isinstance(cells, pa.ChunkedArray):
        cells = cells.combine_chunks()
    absent = pa.array([text for text in pc.unique(cells).to_pylist() if is_missing(text)], cells.type)
    cells = pc.if_else(pc.is_in(cells, absent), None, cells)
    numeric = pc.all(pc.match_substring_regex(cells, _NUMBER), min_count=1).as_py()
    if numeric and unit is None and pc.all(pc.match_substring_regex(cells, _COMPACT)).as_py():
        iso = pc.replace_substring_regex(cells, r"^(\d{4})(\d{2})(\d{2})$", r"\1-\2-\3")
        return _dates(iso, frame, column, late)
    if numeric or unit is not None:
        return _numbers(cells, frame, column, UNITS[unit or "s"], late)
    return _dates(cells, frame, column, late)


def moment(text: str, unit: str | None = None) -> int:
    """Return one moment, in microseconds since 1970; see `moments`."""
    frame = Frame({"moment": pa.array([text], pa.large_string())}, ["given"], source=f"'{text[:80]}'")
    found = int(moments(frame, "moment", unit, late=True)[0])
    if found == NEVER:
        raise BadInput("an empty text is no moment; give one as 2026-05-01 or 2026-05-01T13:30:00+02:00")
    return found


def span(text: str) -> int:
    """Return the microseconds that ``90s``, ``10m``, ``1.5h``, ``30d`` or ``2w`` mean.

    Raises:
        BadInput: it means none.
    """
    match = _SPAN.fullmatch(text.strip())
    if not match:
        raise BadInput(f"'{text[:80]}' is no span of time; write for example 90s, 10m, 2h, 30d or 4w")
    return int(Decimal(match[1]) * _SPANS[match[2]] * 1_000_000)


def shown(at: int) -> str:
    """Return a moment in words: ISO 8601, UTC."""
    return (_ZERO + _STEP * at).isoformat(sep=" ")


def _numbers(cells: Any, frame: Frame, column: str, factor: int, late: bool) -> npt.NDArray[np.int64]:
    lowest, highest = -(-EARLIEST // factor), LATEST // factor
    try:
        whole = pc.cast(cells, pa.int64())
        if pc.all(pc.and_(pc.greater_equal(whole, lowest), pc.less_equal(whole, highest))).as_py() is not False:
            return _filled(pc.multiply(whole, factor))
    except pa.ArrowInvalid:
        pass  # fractions, or cells that are no numbers: one by one, below
    found = np.full(len(cells), NEVER, np.int64)
    for row, text in enumerate(cells.to_pylist()):
        if is_missing(text):
            continue
        if not re.match(_NUMBER, text):
            raise _refused(frame, column, row, text, "is no number; leave --unit out for dates")
        scaled = Decimal(text) * factor
        if not EARLIEST <= scaled <= LATEST:
            said = "lies beyond the year 9999, counted from 1970; say in which unit it is: --unit ms, --unit us"
            raise _refused(frame, column, row, text, said)
        floor = int(scaled // 1)
        found[row] = floor + 1 if late and scaled > floor else floor
    return found


def _dates(cells: Any, frame: Frame, column: str, late: bool) -> npt.NDArray[np.int64]:
    finer = pc.match_substring_regex(cells, _FINER.pattern)
    cut = pc.replace_substring_regex(cells, r"(\.\d{6})\d+", r"\1")
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            found = _filled(pc.cast(pc.cast(cut, kind), pa.int64()))
            break
        except pa.ArrowInvalid:
            continue  # some have a zone, others not, or one is no moment: one by one, below
    else:
        found = np.full(len(cells), NEVER, np.int64)
        for row, text in enumerate(cut.to_pylist()):
            if not is_missing(text):
                found[row] = _iso(text, frame, column, row)
    if late:
        found += finer.fill_null(False).to_numpy(zero_copy_only=False)
    return found


def _iso(text: str, frame: Frame, column: str, row: int) -> int:
    try:
        found = datetime.datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
        return (found - _ZERO) // _STEP
    except (ValueError, OverflowError):
        said = "is no moment; write it as 2026-05-01 or 2026-05-01T13:30:00+02:00"
        raise _refused(frame, column, row, text, said) from None


def _filled(whole: Any) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = whole.fill_null(NEVER).to_numpy(zero_copy_only=False).copy()
    return found


def _refused(frame: Frame, column: str, row: int, text: str, said: str) -> BadInput:
    return BadInput(f"{frame.source}: column '{column}', {frame.names[row]}: '{text[:80]}' {said}")
