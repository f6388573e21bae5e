"""The manifest: which items there are, each with the SHA-256 of its bytes, and one fingerprint for all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.files import atomic_path, write_json

HashArray = npt.NDArray[np.uint8]  # [N, 32]
UNLABELLED = -1


@dataclass(frozen=True)
class Manifest:
    """The items of one source, in order.

    Attributes:
        names: where each item came from (relative path, row number, …).
        hashes: SHA-256 of each item's bytes, uint8 ``[N, 32]``.
        labels: class index of each item, int64 ``[N]``, -1 where unknown; ``None`` without any labels.
        class_names: names of the classes, by index.
        splits: name of each item's split, ``""`` where none; ``None`` if the source has no splits.
        groups: key of what must stay together in a split (a person, a product); ``None`` if not given.
        scores: how alike the sides of each item are, float64 ``[N]``, NaN where unknown; ``None`` without.
        source: the address the items were opened from.
        licence: the licence if the source states one.
        facts: what else the source says of the items, by column: vendor, country, camera …; Arrow arrays of texts
            ``[N]``, null where nothing is said. They name slices; no encoder sees them.
    """

    names: list[str]
    hashes: HashArray
    labels: npt.NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    splits: npt.NDArray[np.str_] | None = None
    groups: npt.NDArray[np.str_] | None = None
    scores: npt.NDArray[np.float64] | None = None
    source: str = ""
    licence: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all items' hashes, labels, splits and scores: the same content gives the same fingerprint.

        Names and places do not count, so a folder and the zip of it agree.
        """
        digest = hashlib.sha256(b"fastness-dataset-1")
        digest.update(np.int64(len(self)).tobytes())
        digest.update(np.ascontiguousarray(self.hashes).tobytes())
        if self.labels is not None:
            digest.update(json.dumps(self.class_names).encode() + self.labels.astype("<i8").tobytes())
        if self.splits is not None:
            digest.update("\0".join(self.splits.tolist()).encode("utf-8", "surrogateescape"))
        if self.scores is not None:
            digest.update(b"scores" + self.scores.astype("<f8").tobytes())
        return digest.hexdigest()

    def select(self, rows: npt.NDArray[np.int64]) -> Manifest:
        """Return the manifest of the items at ``rows``, in that order."""
        return Manifest(
            names=[self.names[i] for i in rows],
            hashes=self.hashes[rows],
            labels=None if self.labels is None else self.labels[rows],
            class_names=self.class_names,
            splits=None if self.splits is None else self.splits[rows],
            groups=None if self.groups is None else self.groups[rows],
            scores=None if self.scores is None else self.scores[rows],
            source=self.source,
            licence=self.licence,
            facts={name: cells.take(rows) for name, cells in self.facts.items()},
        )

    def summary(self) -> dict[str, Any]:
        """Return what a reader wants to know of the data, as JSON-able values."""
        counts: dict[str, int] = {}
        if self.labels is not None:
            ids, numbers = np.unique(self.labels, return_counts=True)
            counts = {
                self.class_names[i] if i >= 0 else "(unlabelled)": int(n) for i, n in zip(ids, numbers, strict=True)
            }
        return {
            "fingerprint": self.fingerprint,
            "items": len(self),
            "classes": counts,
            "splits": {} if self.splits is None else dict(_counts(self.splits.tolist())),
            "licence": self.licence,
        }

    def write(self, folder: Path) -> None:
        """Write ``data.json`` (the summary) and ``items.parquet`` (name, SHA-256, label, split an item)."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        write_json(folder / "data.json", self.summary())
        columns: dict[str, Any] = {
            "name": [printable(name) for name in self.names],
            "sha256": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(32), len(self), [None, pa.py_buffer(np.ascontiguousarray(self.hashes))]
            ),
        }
        if self.labels is not None:
            columns["label"] = self.labels
        if self.splits is not None:
            columns["split"] = self.splits.tolist()
        with atomic_path(folder / "items.parquet") as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")


def printable(name: str) -> str:
    """Return ``name`` with what no terminal or UTF-8 file can hold written as escapes."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def hash_items(items: Iterable[bytes | npt.NDArray[Any]]) -> HashArray:
    """Return uint8 ``[N, 32]``: SHA-256 of each item's bytes; of arrays, of shape, dtype and bytes."""
    digests = bytearray()
    for item in items:
        if isinstance(item, bytes):
            digests += hashlib.sha256(item).digest()
        else:
            digest = hashlib.sha256(f"{item.shape}{item.dtype.str}".encode())
            digest.update(np.ascontiguousarray(item).data)
            digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype=np.uint8).reshape(-1, 32)


def _counts(values: list[str]) -> list[tuple[str, int]]:
    names, numbers = np.unique(values, return_counts=True)
    return [(str(name), int(number)) for name, number in zip(names, numbers, strict=True)]
