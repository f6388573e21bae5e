"""Labels that come late: what items truly were, joined by their ids with what was said of them."""

from __future__ import annotations

import csv
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.core.files import atomic_path
from fastness.monitoring.kept.journal import moment_now
from fastness.monitoring.kept.windows import folder_of, kept
from fastness.monitoring.window import Array

FOLDER = "labels"
_ID, _LABEL = "id", "label"


@dataclass(frozen=True)
class Joined:
    """Items that were answered for and whose class became known; row i of each is one answer.

    Attributes:
        ids: as clients sent them.
        at: when they were asked about, int64 ``[N]``, microseconds since 1970 (UTC).
        versions: what answered, ``photos@3``.
        predicted: the likeliest class, texts ``[N]``.
        confidence: its probability, float64 ``[N]``.
        abstained: bool ``[N]``, whether no answer was given.
        truth: the class that became known, texts ``[N]``.
    """

    ids: list[str]
    at: npt.NDArray[np.int64]
    versions: list[str]
    predicted: Array
    confidence: npt.NDArray[np.float64]
    abstained: npt.NDArray[np.bool_]
    truth: Array

    def __len__(self) -> int:
        return len(self.ids)


def add(folder: Path, name: str, alias: str, file: Path) -> int:
    """Keep labels durably; of an item that has one already the newer counts.

    Args:
        folder: of all that is watched.
        name, alias: of what serves.
        file: ``.csv`` or ``.parquet`` with the columns ``id`` and ``label``; others are passed over.

    Returns:
        how many there were.

    Raises:
        BadInput: a column is missing, or an item has no id or no label; names the row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = dict(_checked(file))
    if not found:
        raise BadInput(f"{file}: has no rows; give one an item, with the columns '{_ID}' and '{_LABEL}'")
    target = folder_of(folder, name, alias) / FOLDER / f"{moment_now():016d}-{secrets.token_hex(4)}.parquet"
    table = pa.table({_ID: pa.array(found.keys(), pa.string()), _LABEL: pa.array(found.values(), pa.string())})
    with atomic_path(target) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return len(found)


def _checked(file: Path) -> Iterator[tuple[str, str]]:
    for number, (name, label) in enumerate(_rows(file), 1):
        if not name or not label:
            raise BadInput(f"{file}, row {number}: has no {_LABEL if name else _ID}; complete it or leave it out")
        yield name, label


def _rows(file: Path) -> Iterator[tuple[str, str]]:
    """Yield ids and labels of a file, trimmed; empty where there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix == ".parquet":
            table = pq.ParquetFile(file).read()
            names = table.column_names
        elif file.suffix == ".csv":
            with file.open(newline="", encoding="utf-8-sig") as handle:
                rows = list(csv.reader(handle))
            names = rows[0] if rows else []
        else:
            raise BadInput(f"{file}: give a file that ends in .csv or .parquet")
        missing = [wanted for wanted in (_ID, _LABEL) if wanted not in names]
        if missing:
            raise BadInput(f"{file}: has no column '{missing[0]}'; it has: {', '.join(map(str, names))[:300]}")
        if file.suffix == ".parquet":
            columns = [table[wanted].cast(pa.string()).to_pylist() for wanted in (_ID, _LABEL)]
            yield from (((name or "").strip(), (label or "").strip()) for name, label in zip(*columns, strict=True))
            return
    except FileNotFoundError:
        raise BadInput(f"{file}: there is no such file") from None
    except (OSError, ValueError, csv.Error, NotImplementedError) as error:
        said = " ".join(str(error).split())[:200]
        raise BadInput(f"{file}: cannot be read ({type(error).__name__}: {said}); get an intact copy") from None
    places = [names.index(wanted) for wanted in (_ID, _LABEL)]
    for row in rows[1:]:
        if row:
            cells = [row[place].strip() if place < len(row) else "" for place in places]
            yield cells[0], cells[1]


def files(folder: Path, name: str, alias: str) -> list[Path]:
    """Return the files that hold labels, the oldest first; none is ever changed."""
    return sorted((folder_of(folder, name, alias) / FOLDER).glob("*.parquet"))


def labels(files: Iterable[Path]) -> dict[str, str]:
    """Return the label of each item that has one, by its id; of the last file that has it.

    Raises:
        BadInput: a file is damaged; names it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, str] = {}
    for path in files:
        try:
            table = pq.ParquetFile(path).read()
            found |= zip(table[_ID].to_pylist(), table[_LABEL].to_pylist(), strict=True)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise BadInput(
                f"{path}: cannot be read ({type(error).__name__}); move it away, and add them again"
            ) from None
    return found


def joined(
    folder: Path, name: str, alias: str, since: int = 0, damaged: Callable[[BadInput], None] | None = None
) -> Joined:
    """Join labels with the answers that were given, as far as windows keep them: those of the sampled items.

    Args:
        folder: of all that is watched.
        name, alias: of what serves.
        since: microseconds since 1970; windows that ended before are left out.
        damaged: is told of windows that are; ``None``: the first of them is an error.
    """
    known = labels(files(folder, name, alias))
    ids: list[str] = []
    versions: list[str] = []
    rows: list[tuple[int, str, float, bool, str]] = []
    for part in kept(folder, name, alias, since, damaged) if known else ():
        window = part.window
        if not {"label", "confidence", "abstained"} <= set(window.columns):
            continue
        said = [window.columns[column] for column in ("label", "confidence", "abstained")]
        for row, item in enumerate(window.ids):
            if item in known and said[0][row]:
                ids.append(item)
                versions.append(part.version)
                rows.append((int(window.at[row]), said[0][row], said[1][row], said[2][row] == 1, known[item]))
    at, predicted, confidence, abstained, truth = zip(*rows, strict=True) if rows else ((),) * 5
    return Joined(
        ids,
        np.array(at, np.int64),
        versions,
        np.array(predicted, object),
        np.array(confidence, np.float64),
        np.array(abstained, np.bool_),
        np.array(truth, object),
    )
