"""Items become batches of the one tensor that a graph takes, each with its items' positions."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness_runtime.errors import Unusable
from fastness_runtime.sessions import cores

Positions = npt.NDArray[np.int64]
Batches = Callable[[Any, int], Iterator[tuple[Positions, npt.NDArray[Any]]]]
PADDING = -1
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECODED, _HELD = 64, 256 << 20  # pictures that are decoded at once; bytes of them from which they are given away
_TOKENS = 256  # of a batch: then what flows between layers stays in a core's cache
_CALL = 16  # tokens that take as long as a call takes whatever is in it
_EACH, _STEP = 32, 8  # tokens: shorter rows are as long as they are, longer ones multiples
_EPOCH = datetime.date(1970, 1, 1).toordinal()


def pictures(folder: Path, about: Mapping[str, Any]) -> Batches:
    """Pixels uint8 ``[B, 3, H, W]``; the graph crops and resizes, so pictures of one size go together."""

    wanted = about.get("size")

    def batches(items: Any, size: int) -> Iterator[tuple[Positions, npt.NDArray[Any]]]:
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        held: dict[int, npt.NDArray[np.uint8]] = {}
        with ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(items), _DECODED):
                places = range(start, min(start + _DECODED, len(items)))
                part = [items[place] for place in places]
                many = pool.map if any(isinstance(item, bytes) for item in part) else map
                held |= zip(places, many(_planes, part, places, [wanted] * len(part)), strict=True)
                for place in places:
                    alike[held[place].shape].append(place)
                if places.stop == len(items) or sum(item.nbytes for item in held.values()) > _HELD:
                    yield from _stacked(alike, held, size)
                    alike.clear()
                    held.clear()

    return batches


def _stacked(
    alike: Mapping[tuple[int, ...], list[int]], held: Mapping[int, npt.NDArray[np.uint8]], size: int
) -> Iterator[tuple[Positions, npt.NDArray[np.uint8]]]:
    """Yield pictures of one size together."""
    for positions in alike.values():
        for part in _in_parts(positions, size):
            yield part, np.stack([held[position] for position in part])


def _planes(item: Any, position: int, wanted: int | None) -> npt.NDArray[np.uint8]:
    """Return one picture as uint8 ``[3, H, W]``."""
    if isinstance(item, bytes):
        return np.moveaxis(_decoded(item, position, wanted), 2, 0)
    pixels = np.asarray(item)
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels, (3, *pixels.shape))
    elif pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.shape[0] != 3:
        pixels = np.moveaxis(pixels, 2, 0)
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise Unusable(f"item {position}: {pixels.dtype} {pixels.shape} is no picture; give uint8 [H, W, 3]")
    return pixels


def _decoded(item: bytes, position: int, wanted: int | None) -> npt.NDArray[np.uint8]:
    """Return the pixels of a picture's file, as they are decoded in training, uint8 ``[H, W, 3]``."""
    try:
        from fastness_runtime.decode import DamagedItem, decode
    except ImportError:
        raise Unusable(f"item {position}: is a file; pip install fastness-runtime[image]") from None
    try:
        return decode(item, wanted)
    except DamagedItem as error:
        raise Unusable(f"item {position}: {error}; leave it out or mend it") from None


class Texts:
    """Tokens int32 ``[B, L]``, -1 behind the end; texts of like length go together, long ones fewer at a time."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise Unusable(f"{folder}: takes texts; pip install fastness-runtime[text]") from None
        self._tokenizer: Any = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
        cut = self._tokenizer.truncation
        self._longest: int | None = None if cut is None else int(cut["max_length"])

    def __call__(self, items: Any, size: int) -> Iterator[tuple[Positions, npt.NDArray[Any]]]:
        """Yield batches of texts, or of what `tokens` made of them."""
        tokens = items if len(items) and isinstance(items[0], Tokens) else self.tokens(items)
        lengths = np.array([len(ids) for ids in tokens], np.int64)
        for part in _alike(lengths, size):
            batch = np.full((len(part), self._width(int(lengths[part[0]]))), PADDING, np.int32)
            for row, position in enumerate(part):
                batch[row, : lengths[position]] = tokens[position]
            yield part, batch

    def _width(self, length: int) -> int:
        """Return how long rows are whose longest has so many tokens: an encoder may have no place behind its last."""
        wide = _padded(length)
        return wide if self._longest is None else max(length, min(wide, self._longest))

    def tokens(self, items: Any) -> list[Tokens]:
        """Return the tokens of each text.

        Raises:
            Unusable: a text has none; names its position.
        """
        for position, text in enumerate(items):
            if not isinstance(text, str) or _empty(text):
                raise Unusable(f"item {position}: {type(text).__name__} without words; give a text")
            if not text.isascii() and _SURROGATE.search(text):
                raise Unusable(f"item {position}: half of a surrogate pair: the text was cut or decoded wrongly")
        found = [Tokens(encoded.ids) for encoded in self._tokenizer.encode_batch_fast(list(items))]
        for position, ids in enumerate(found):
            if not ids:
                raise Unusable(f"item {position}: no token of the vocabulary; leave it out")
        return found


def _empty(text: str) -> bool:
    """Whether a text has nothing but spaces and signs that are not to be seen."""
    seen = text.strip()
    if seen and seen[0].isprintable():  # quick, and so of nearly all texts
        return False
    return all(sign.isspace() or unicodedata.category(sign) in ("Cc", "Cf") for sign in text)


class Tokens(list[int]):
    """A text's tokens."""


def _alike(lengths: Positions, size: int) -> Iterator[Positions]:
    """Yield positions, the longest first, in parts of up to ``size`` that are worth computing together.

    A part has few enough tokens for the caches, and no more padding than a call of its own would cost.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = _padded(int(lengths[order[start]]))
        most = start + max(1, min(size, _TOKENS // longest))
        padding = np.cumsum(longest - lengths[order[start:most]])
        stop = start + max(1, int(np.searchsorted(padding, padding[0] + _CALL, side="right")))
        yield order[start:stop]
        start = stop


def _padded(length: int) -> int:
    """Return how long rows are made: a runtime makes itself ready for each shape, so long ones are not all distinct."""
    return length if length <= _EACH else -(-length // _STEP) * _STEP


def rows(folder: Path, about: Mapping[str, Any]) -> Batches:
    """Cells float32 ``[B, C]``, coded as ``columns`` of the description say, NaN where missing."""
    columns: list[dict[str, Any]] = about["columns"]
    places = [{value: place for place, value in enumerate(column.get("values", ()))} for column in columns]
    missing = frozenset(about.get("missing", ("",)))

    def coded(row: Any, position: int) -> list[float]:
        if not isinstance(row, Mapping):
            raise Unusable(f"item {position}: a {type(row).__name__} is no row; give a mapping from column to value")
        try:
            return [_cell(row[c["name"]], c, known, missing) for c, known in zip(columns, places, strict=True)]
        except KeyError as error:
            raise Unusable(f"item {position}: no column {error}; give None where a value is missing") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise Unusable(f"item {position}: {error}; give a number, a date, a text or None") from None

    def batches(items: Any, size: int) -> Iterator[tuple[Positions, npt.NDArray[Any]]]:
        if isinstance(items, np.ndarray) and (items.ndim != 2 or items.shape[1] != len(columns)):
            raise Unusable(f"cells {items.shape}: give [N, {len(columns)}], a column for each of export.json")
        for part in _in_parts(range(len(items)), size):
            if isinstance(items, np.ndarray):
                yield part, items[part].astype(np.float32)
            else:
                yield part, np.array([coded(items[position], int(position)) for position in part], np.float32)

    return batches


def _cell(value: Any, column: Mapping[str, Any], places: Mapping[str, int], missing: frozenset[str]) -> float:
    """Return a cell as the number that the graph expects."""
    if isinstance(value, str):
        value = value.strip()
        value = None if value.lower() in missing else value
    if value is None or value != value:
        return float("nan")
    if column["kind"] == "category":
        said = str(value)
        if isinstance(value, bool | np.bool_) and said not in places:
            said = said.lower()  # as Parquet's and Arrow's are written
        return float(places.get(said, len(places)))
    if column["kind"] == "date":
        value = _days(value)
    return float(np.clip(float(value), -1e37, 1e37)) - float(column["origin"])


def _days(value: Any) -> float:
    """Return a date or a moment, or a text of one as ISO 8601 has it, in days from 1970-01-01."""
    moment = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime.date):
        raise ValueError(f"{value!r} is no date")
    if isinstance(moment, datetime.datetime) and moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC)
    day = float(moment.toordinal() - _EPOCH)
    if isinstance(moment, datetime.datetime):
        day += (moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6) / 86_400
    return day


def _in_parts(positions: Sequence[int] | Positions, size: int) -> Iterator[Positions]:
    for start in range(0, len(positions), size):
        yield np.asarray(positions[start : start + size], np.int64)


INTAKES: dict[str, Callable[[Path, Mapping[str, Any]], Batches]] = {"image": pictures, "text": Texts, "table": rows}
"""By modality; adding one is a function, or a class, and a line here."""
