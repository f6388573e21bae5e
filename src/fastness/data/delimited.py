"""Files of rows whose cells are separated by a comma, semicolon, tab or bar, as people have them."""

from __future__ import annotations

import csv
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from fastness.core.errors import BadInput
from fastness.data.dataset import Quarantined
from fastness.data.values import looks_like_data

_DELIMITERS = "\t|;,"  # the likelier first, where two cut every line alike
_SAMPLE_LINES, _SAMPLE_CHARACTERS = 1000, 1 << 21
_LOST_QUOTES = 100
_BLOCK = 20_000  # rows
_TEXTS = ("text", "sentence", "sentence1", "sentence2", "title", "question", "answer", "query")
_NAMES = frozenset((*_TEXTS, "label", "labels", "class", "target", "category", "split", "score", "id", "name", "date"))

csv.field_size_limit(min(sys.maxsize, (1 << 31) - 1))  # a cell may be as long as it likes


@dataclass(frozen=True)
class Layout:
    """How a file's rows are written.

    Attributes:
        delimiter: what separates cells.
        quoted: whether quotes hold a cell together; else they are characters like others.
        width: number of cells in a row.
        agreement: share of the first rows that have so many.
        rows: how many the first lines held.
        names: of the columns.
        header: whether the first row is their names.
    """

    delimiter: str
    quoted: bool
    width: int
    agreement: float
    rows: int
    names: tuple[str, ...]
    header: bool


@dataclass
class Rows:
    """The rows of a file, read once in order.

    Attributes:
        layout: how they are written.
        lines: of the file.
        source: its name, for messages.
        quarantine: rows that could not be used so far.
    """

    layout: Layout
    lines: Iterable[str]
    source: str
    quarantine: list[Quarantined] = field(default_factory=list)
    _lost: int = 0

    def blocks(self) -> Iterator[tuple[Sequence[int], list[list[str]]]]:
        """Yield some rows at a time: the numbers of the lines where they begin, from 1, and their cells.

        Blank lines are passed over. Rows with too few or too many cells are quarantined, and so is a line with
        a quote that is never closed; the lines after it are read on their own.

        Raises:
            BadInput: so many quotes are never closed that the file must be of another kind.
        """
        source = _Lines(self.lines)
        if self.layout.header:
            next((row for _, row in self._one_by_one(source, sys.maxsize) if any(row)), None)
        while block := list(islice(source, _BLOCK)):
            rows = list(csv.reader(block, **self._format))
            begins = source.begins
            if len(rows) == len(block) and set(map(len, rows)) == {self.layout.width} and not _open_at_end(rows[-1]):
                source.take()  # a row a line, as nearly everywhere
                yield range(begins, begins + len(rows)), rows
                continue
            source.take()
            source.give_back(block)
            found = [
                (line, row) for line, row in self._one_by_one(source, begins + len(block)) if self._usable(line, row)
            ]
            yield [line for line, _ in found], [row for _, row in found]

    @property
    def _format(self) -> dict[str, Any]:
        return _format(self.layout.delimiter, self.layout.quoted)

    def _usable(self, line: int, row: list[str]) -> bool:
        """Whether a row has as many cells as there are columns; empty ones behind the last are cut off."""
        width = self.layout.width
        if not row or (len(row) == 1 < width and not row[0].strip()):
            return False
        if not any(row[width:]):
            del row[width:]
        if len(row) != width:
            self._refuse(line, f"{len(row)} cells where the columns are {width}")
        return len(row) == width

    def _refuse(self, line: int, reason: str) -> None:
        self.quarantine.append(Quarantined(f"line {line}", reason))

    def _one_by_one(self, source: _Lines, end: int) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows that begin before the line ``end``."""
        while True:
            for row in csv.reader(source, **self._format):
                line, taken = source.begins, source.take()
                if (len(taken) > 1 or _open_at_end(row)) and not self._closed(taken):
                    self._lost += 1
                    if self._lost > _LOST_QUOTES:
                        raise BadInput(
                            f"{self.source}: line {line}: the {self._lost}th quote that is never closed; "
                            "double the quotes inside cells, or separate them by tabs without quotes"
                        )
                    self._refuse(line, "a quote that is never closed")
                    source.give_back(taken[1:])
                    break  # the lines that the quote has swallowed are read again
                yield line, row
                if source.begins >= end:
                    return
            else:
                return
            if source.begins >= end:
                return

    def _closed(self, lines: list[str]) -> bool:
        """Whether several lines are one row by the letter of the format, and not lines that a stray quote joined."""
        try:
            rows = list(csv.reader(lines, strict=True, **self._format))
        except csv.Error:
            return False
        return len(rows) == 1 and len(rows[0]) == self.layout.width


class _Lines:
    """An iterator of lines that knows which were taken since a row began, and takes lines back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._returned: deque[str] = deque()
        self._taken: list[str] = []
        self.begins = 1

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._lines)
        self._taken.append(line)
        return line

    def take(self) -> list[str]:
        taken, self._taken = self._taken, []
        self.begins += len(taken)
        return taken

    def give_back(self, lines: Sequence[str]) -> None:
        self._returned.extendleft(reversed(lines))
        self.begins -= len(lines)


def read_rows(lines: Iterable[str], source: str) -> Rows:
    """Return the rows of a file, whose layout its first lines show.

    Args:
        lines: with their line ends.
        source: the file's name, for messages.

    Raises:
        BadInput: they are all blank.
    """
    head, rest = _head(lines)
    more = list(islice(rest, 1))
    if not more and not any(map(str.strip, head)):
        raise BadInput(f"{source}: holds no rows; give a file that holds some")
    return Rows(layout(head, whole=not more), chain(head, more, rest), source)


def read_layout(lines: Iterable[str]) -> Layout:
    """Return how a file is written, of which only the first lines are read."""
    head, rest = _head(lines)
    return layout(head, whole=not list(islice(rest, 1)))


def _head(lines: Iterable[str]) -> tuple[list[str], Iterator[str]]:
    rest = iter(lines)
    head: list[str] = []
    size = 0
    for line in islice(rest, _SAMPLE_LINES):
        head.append(line)
        size += len(line)
        if size > _SAMPLE_CHARACTERS:
            break
    return head, rest


def layout(lines: Sequence[str], *, whole: bool = True) -> Layout:
    """Return how a file is written.

    Args:
        lines: its first ones.
        whole: there are no others.
    """
    rated = [(_rating(lines, delimiter, whole), delimiter) for delimiter in _DELIMITERS]
    (agrees, share), delimiter = max(rated, key=lambda found: (found[0], -_DELIMITERS.index(found[1])))
    if not agrees and share < 0.5:
        delimiter = "\x1f"  # a single column: no character separates anything
    quoted = not _literal_quotes(lines, delimiter)
    rows = _sample(lines, delimiter, quoted, whole)
    if not rows:  # nothing but the beginning of one huge row, or blank lines
        rows = _sample(lines, delimiter, quoted, True) or [[""]]
    width = len(rows[0]) if delimiter != "\x1f" and agrees else _usual(rows)
    header = len(rows[0]) == width and _is_header(rows)
    names = unique_names(rows[0]) if header else tuple(f"c{i}" for i in range(width))
    agreement = sum(len(row) == width for row in rows) / len(rows)
    return Layout(delimiter, quoted, width, agreement, len(rows), names, header)


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names for columns: trimmed, a number for an empty one, and a suffix for one that was there before."""
    found: dict[str, None] = {}
    for position, name in enumerate(names):
        base = " ".join(name.split()) or f"c{position}"
        made, copy = base, 1
        while made in found:
            copy += 1
            made = f"{base}_{copy}"
        found[made] = None
    return tuple(found)


def _format(delimiter: str, quoted: bool) -> dict[str, Any]:
    style = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return {"delimiter": delimiter, "quoting": style, "skipinitialspace": delimiter != "\t"}


def _sample(lines: Sequence[str], delimiter: str, quoted: bool, whole: bool) -> list[list[str]]:
    rows = [row for row in csv.reader(lines, **_format(delimiter, quoted)) if any(row)]
    return rows if whole else rows[:-1]  # the last may be cut off


def _usual(rows: Sequence[Sequence[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0]


def _rating(lines: Sequence[str], delimiter: str, whole: bool) -> tuple[bool, float]:
    """Return whether the first row has as many cells as the others, at least two, and which share of them agrees."""
    rows = _sample(lines, delimiter, True, whole)
    if not rows:
        return False, 0.0
    usual = _usual(rows)
    share = sum(len(row) == usual for row in rows) / len(rows) if usual > 1 else 0.0
    filled = len(rows[0]) if any(rows[0][usual:]) else min(usual, len(rows[0]))
    return usual > 1 and filled == usual, round(share, 1)


def _literal_quotes(lines: Sequence[str], delimiter: str) -> bool:
    """Whether quotes are characters like others: in files with tabs, where some cell only begins with one."""
    if delimiter != "\t":
        return False
    rows = [line.rstrip("\r\n").split("\t") for line in lines if line.strip()]
    alike = len({len(row) for row in rows}) == 1
    stray = any(cell.startswith('"') and not (len(cell) > 1 and cell.endswith('"')) for row in rows for cell in row)
    return alike and stray


def _open_at_end(row: Sequence[str]) -> bool:
    return bool(row) and row[-1].endswith(("\n", "\r"))


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns.

    It does not if one of its cells is a number or a date, occurs again below, or is a sentence above sentences. It
    does if it has a name that columns often have. What is left in doubt is a header.
    """
    first, others = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    named = [cell.strip() for cell in first]
    if any(map(looks_like_data, named)) or not any(named):
        return False
    if any(name.lower() in _NAMES for name in named):
        return True
    for position, name in enumerate(named):
        below = [row[position].strip() for row in others]
        words = sum(len(cell.split()) for cell in below) / max(1, len(below))
        if name and (name in below or (len(name.split()) > 3 and words > 3)):
            return False
    return True
