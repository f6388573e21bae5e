"""A file of rows, each with an entity and a moment, is given what was known of them then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastness.core.errors import BadInput
from fastness.core.files import atomic_path
from fastness.data.frame import Frame, file_kind, frame_of, read_frame
from fastness.features.events import names_in
from fastness.features.moments import moments, span
from fastness.features.table import Features, Joined

_AT_ONCE = 16_384  # rows that are written at once


def join(
    address: str | Path,
    spine: Any,
    out: str | Path,
    *,
    entity: str,
    time: str,
    version: str | None = None,
    max_age: str | None = None,
    unit: str | None = None,
    called: str = "vector",
    partial: bool = False,
) -> Joined:
    """Write rows with the newest vector that was known of each one's entity at its moment.

    Args:
        address: of the table, see `Features.open`.
        spine: a file of rows (see `read_frame`), or a data frame or another object with columns.
        out: a ``.parquet`` file: the columns of the spine, ``vector`` float32 ``[dim]`` (null where nothing was known),
            and ``vector_time``, when what it shows was seen.
        entity, time: columns of the spine; see `moments`.
        version: of which encoder all vectors are: ``photos@3``, or the first digits of a bundle's id.
        max_age: as ``30d``: what is older counts as not known.
        unit: of moments that are numbers.
        called: name of the new column.
        partial: see `Features.join`.

    Raises:
        BadInput: a file or column cannot be used, or the table has no such vectors, or not all.
    """
    out = Path(out)
    if out.suffix != ".parquet":
        raise BadInput(f"--out {out}: give a name that ends in .parquet")
    frame, rows = _spine(spine)
    if taken := [name for name in (called, f"{called}_time") if name in rows.column_names]:
        raise BadInput(f"{frame.source}: has a column '{taken[0]}' already; give the vector another name (--as)")
    oldest = None if max_age is None else span(max_age)
    whose = names_in(frame[entity])
    when = moments(frame, time, unit)
    with Features.open(address) as table:
        found = table.join(whose, when, version, max_age=oldest, partial=partial)
    _write(rows, found, called, out)
    return found


def _spine(spine: Any) -> tuple[Frame, Any]:
    """Return rows as texts, and as they are written: Parquet and tables of Arrow keep their types."""
    if isinstance(spine, str | Path):
        frame = read_frame(spine)
        if frame.quarantine:
            first = frame.quarantine[0]
            raise BadInput(f"{spine}: {first.name}: {first.reason}; mend it, so that no row is lost")
        if file_kind(Path(spine)) == "parquet":
            import pyarrow.parquet as pq

            return frame, pq.read_table(spine, partitioning=None)
        return frame, pa.table(dict(frame.columns))
    frame = frame_of(spine)
    return frame, spine if isinstance(spine, pa.Table) else pa.table(dict(frame.columns))


def _write(rows: Any, found: Joined, called: str, out: Path) -> None:
    import pyarrow.parquet as pq

    dim = found.encoding.dim
    kinds = (pa.field(called, pa.list_(pa.float32(), dim)), pa.field(f"{called}_time", pa.timestamp("us", "UTC")))
    schema = rows.schema
    for kind in kinds:
        schema = schema.append(kind)
    # Behind the last there is one more, for rows of which nothing is known.
    vectors = np.concatenate([found.vectors, np.zeros((1, dim), np.float32)])
    times = np.append(found.times, 0)
    with atomic_path(out) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, max(1, len(rows)), _AT_ONCE):
            part = rows.slice(start, _AT_ONCE)
            place = found.place[start : start + _AT_ONCE]
            none = pa.array(place < 0)
            flat = pa.array(vectors[place].reshape(-1))
            part = part.append_column(kinds[0], pa.FixedSizeListArray.from_arrays(flat, dim, mask=none))
            seen = pa.array(times[place], pa.int64(), mask=place < 0).cast(kinds[1].type)
            writer.write_table(part.append_column(kinds[1], seen))
