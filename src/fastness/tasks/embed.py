"""Embed: a collection's vectors as a file, and what was left out beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastness.bundle import Bundle, load
from fastness.bundle.bundle import Embedded
from fastness.core.errors import BadInput
from fastness.core.files import atomic_path
from fastness.data.manifest import printable


def embed(
    bundle: Bundle | str | Path,
    data: Any,
    out: str | Path,
    *,
    normalize: bool = True,
    precision: str = "float32",
    **columns: str | None,
) -> Embedded:
    """Write the embeddings of data to a file; damaged items are left out, and listed in ``quarantine_of(out)``.

    Args:
        bundle: what embeds.
        data: see `open_data`.
        out: a ``.parquet`` file (``id``, and ``vector`` float32 ``[dim]``), or a ``.npy`` file (vectors alone).
        normalize, precision: see `Bundle.embed`.

    Raises:
        BadInput: the file has another ending, or the data cannot be opened.
    """
    out = Path(out)
    if out.suffix not in {".parquet", ".npy"}:
        raise BadInput(f"--out {out}: give a name that ends in .parquet or .npy")
    loaded = bundle if isinstance(bundle, Bundle) else load(bundle)
    embedded = loaded.embed_dataset(loaded.open(data, **columns), normalize=normalize, precision=precision)
    with atomic_path(out) as temporary:
        if out.suffix == ".npy":
            with temporary.open("wb") as handle:
                np.save(handle, embedded.vectors)
        else:
            _write_table(embedded, temporary)
    quarantine_of(out).unlink(missing_ok=True)  # an earlier run's
    if embedded.dataset.quarantine:
        embedded.dataset.write_quarantine(quarantine_of(out))
    return embedded


def quarantine_of(out: Path) -> Path:
    """Return the file that lists what was left out of another."""
    return out.with_suffix(".quarantine.csv")


def _write_table(embedded: Embedded, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    dim = embedded.vectors.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embedded.vectors.reshape(-1)), dim)
    ids = pa.array([printable(name) for name in embedded.ids], pa.string())
    pq.write_table(pa.table({"id": ids, "vector": vectors}), path)
