"""Embeddings and predictions of models that are not served here, written down as if they were, to be watched too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastness.core.errors import BadInput
from fastness.monitoring.kept import stored
from fastness.monitoring.kept.journal import Journal, moment_now

_FOREVER = 1e9  # seconds
_AHEAD = 86_400_000_000  # microseconds that a clock may be ahead


def add(
    folder: Path,
    name: str,
    alias: str,
    file: Path,
    *,
    version: str = "",
    window: float = 300.0,
    most: int = 2000,
    seed: int = 0,
) -> int:
    """Write down embeddings of a file.

    Args:
        folder: of all that is watched.
        name, alias: what they are called there.
        file: see `stored.read`; what it knows of the items besides becomes columns, ``label`` and ``confidence`` among
            them. With ``at`` they are divided into windows of ``window`` seconds, else they are one.
        version: which version of the model made them.
        window, most, seed: see `Journal`.

    Returns:
        how many items there were.

    Raises:
        BadInput: it cannot be read.
    """
    items = stored.read(file)
    at = items.at if len(items.at) else np.full(len(items), moment_now())
    if not len(items):
        raise BadInput(f"{file}: has no items")
    if at.max() > moment_now() + _AHEAD:
        row = int(at.argmax()) + 1
        raise BadInput(f"{file}, row {row}: 'at' lies in the future; give microseconds since 1970, or a timestamp")
    clock = [int(at.min())]
    journal = Journal(folder, name, alias, window=window, most=most, keep=_FOREVER, seed=seed, clock=lambda: clock[0])
    order = np.argsort(at, kind="stable")
    length = int(window * 1_000_000)
    for rows in np.split(order, np.flatnonzero(np.diff(at[order] // length)) + 1):
        part = items.select(rows)
        clock[0] = int(at[rows[0]])
        journal.seen(part.vectors, version=version, ids=part.ids, columns=part.columns, at=at[rows])
        journal.flush()
    clock[0] = int(at.max()) + 1 if len(items.at) else moment_now()
    journal.close()
    return len(items)
