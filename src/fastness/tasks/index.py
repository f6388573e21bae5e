"""Index: a collection embedded and kept, so that a search need not embed it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastness.bundle import Bundle, load
from fastness.bundle.bundle import Embedded
from fastness.core.errors import BadInput
from fastness.data import Dataset
from fastness.data.facts import typed
from fastness.data.manifest import printable
from fastness.index import Hit, Index


def build(
    address: str | Path, bundle: Bundle | str | Path, data: Any, *, kind: str = "flat", **columns: str | None
) -> Embedded:
    """Embed data and keep the vectors in a new index, with what the source says of the items as metadata.

    On an error there is no index, so that the same can be asked again.

    Args:
        address: a folder or a PostgreSQL address, see `Index`.
        bundle: what embeds.
        data: see `open_data`.
        kind: see `Index.build`.

    Raises:
        BadInput: there is an index already, or the data cannot be opened.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load(bundle)
    dataset = loaded.open(data, **columns)
    with Index.build(address, loaded.dim, kind, loaded.id) as index:
        try:
            return _added(index, loaded, dataset)
        except BaseException:
            if set(index.ids()) <= set(map(printable, dataset.manifest.names)):  # nobody else has added to it
                index.discard()
            raise


def add(address: str | Path, bundle: Bundle | str | Path, data: Any, **columns: str | None) -> Embedded:
    """Embed data and add it to an index; items whose names are there are replaced.

    Raises:
        BadInput: the index is of another bundle, or the data cannot be opened.
    """
    with Index.open(address) as index:
        loaded = _same(index, bundle)
        return _added(index, loaded, loaded.open(data, **columns))


def search(
    address: str | Path, bundle: Bundle | str | Path, query: str | Path, k: int = 10, where: str | None = None
) -> list[Hit]:
    """Return the items of an index that are nearest to a query: a picture's file, or words.

    Args:
        where: only items for which this holds, see `Index.search`.

    Raises:
        BadInput: the index is of another bundle, or the query is nothing that it can embed.
    """
    with Index.open(address) as index:
        return index.search(_same(index, bundle).ask(str(query))[1], k, where)[0]


def metadata(dataset: Dataset) -> dict[str, list[Any]]:
    """Return what is known of a data set's items: the source's facts, label and split, a value each."""
    found: dict[str, list[Any]] = {}
    for name, cells in dataset.whole.facts.items():
        values = typed(cells)  # of all items, so that every part of them has the same type
        listed = values.tolist() if isinstance(values, np.ndarray) else values.to_pylist()
        found[name] = [listed[row] for row in dataset.rows]
    if dataset.labels is not None:
        found["label"] = [dataset.class_names[label] if label >= 0 else None for label in dataset.labels]
    if dataset.manifest.splits is not None:
        found["split"] = dataset.manifest.splits.tolist()
    return found


def _same(index: Index, bundle: Bundle | str | Path) -> Bundle:
    loaded = bundle if isinstance(bundle, Bundle) else load(bundle)
    index.same_space(loaded.id, str(loaded.path))
    return loaded


def _added(index: Index, bundle: Bundle, dataset: Dataset) -> Embedded:
    embedded = bundle.embed_dataset(dataset)
    if not len(embedded.vectors):
        raise BadInput(f"{dataset.whole.source}: holds no item that can be embedded")
    index.add([printable(name) for name in embedded.ids], embedded.vectors, metadata(embedded.dataset))
    return embedded
