"""The dataset: items of one modality, read on demand, with their manifest; read-only."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.core.files import write_text
from fastness.data import splits as _splits
from fastness.data.manifest import HashArray, Manifest, printable

Rows = npt.NDArray[np.int64]


class Payloads(Protocol):
    """Where a dataset's raw items are read from, by their number in the manifest; safe in threads."""

    def read(self, row: int) -> Any:
        """Return item ``row``: encoded bytes or pixels ``[H, W]`` or ``[H, W, C]`` of a picture, a text, a table's
        cells by column, or of a thing with sides what each side reads."""
        ...


@dataclass(frozen=True)
class Quarantined:
    """An item that could not be used: its name and the reason, in one line each."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Items of one modality with optional labels, splits and groups.

    Attributes:
        whole: the manifest of everything the source holds; it keys the decoded cache.
        payloads: where raw items are read from.
        rows: which items of ``whole`` this dataset has, int64 ``[N]``, in order.
        quarantine: items that were found unusable so far.
        ignored: how many files were passed over because they are no data of this modality.
        modality: what kind of items these are.
        handled: what was taken for something else than it is, and how often: "column 'price': cells that cannot be
            read", say.
    """

    whole: Manifest
    payloads: Payloads
    rows: Rows
    quarantine: tuple[Quarantined, ...] = field(default=())
    ignored: int = 0
    modality: str = "image"
    handled: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        payloads: Payloads,
        quarantine: Sequence[Quarantined] = (),
        ignored: int = 0,
        modality: str = "image",
    ) -> Dataset:
        """Return the dataset of all items of ``manifest``."""
        return cls(manifest, payloads, np.arange(len(manifest)), tuple(quarantine), ignored, modality)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of this dataset's own items."""
        return self.whole if len(self.rows) == len(self.whole) and self._in_order else self.whole.select(self.rows)

    @property
    def _in_order(self) -> bool:
        return bool(np.array_equal(self.rows, np.arange(len(self.whole))))

    @property
    def sides(self) -> int:
        """How many columns an item has that each could be embedded."""
        return len(getattr(self.payloads, "sides", ())) or 1

    @property
    def fingerprint(self) -> str:
        """One SHA-256 for all items, labels and splits."""
        return self.manifest.fingerprint

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Class index of each item, -1 where unknown, or ``None``."""
        return self.manifest.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by index."""
        return self.whole.class_names

    def required_labels(self, purpose: str) -> npt.NDArray[np.int64]:
        """Return the labels, or say what needs them.

        Raises:
            BadInput: the dataset has none.
        """
        if self.labels is None or (self.labels < 0).all():
            raise BadInput(
                f"{self.whole.source}: {purpose} needs labels; put the items in one folder a class, "
                "or name the column with --label"
            )
        return self.labels

    def select(self, rows: npt.NDArray[Any]) -> Dataset:
        """Return the items at ``rows`` (positions in this dataset, or a boolean mask)."""
        return replace(self, rows=self.rows[rows])

    def labelled(self) -> Dataset:
        """Return the items that have a label."""
        return self.select(self.required_labels("this") >= 0)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits found in the source, in alphabetical order."""
        found = self.manifest.splits
        return () if found is None else tuple(sorted({str(name) for name in found} - {""}))

    def split(self, name: str) -> Dataset:
        """Return the items of the split ``name`` as the source has it.

        Raises:
            BadInput: there is no such split; the message lists those there are.
        """
        wanted = _splits.canonical(name)
        if wanted not in self.split_names:
            there = ", ".join(self.split_names) or "none"
            raise BadInput(f"{self.whole.source}: no split '{name}'; there are: {there}")
        assert self.manifest.splits is not None
        return self.select(self.manifest.splits == wanted)

    def training_part(self) -> Dataset:
        """Return the items to learn from: the split ``train`` if there is one, never validation or test.

        Of a source that is nothing but held out, everything: a single file called ``test.parquet`` was pointed at.
        """
        if "train" in self.split_names:
            return self.split("train")
        splits = self.manifest.splits
        held_out = np.zeros(len(self), np.bool_) if splits is None else np.isin(splits, ["validation", "test"])
        return self if held_out.all() else self.select(~held_out)

    def divide(self, share: float, seed: int, hashes: HashArray | None = None) -> tuple[Dataset, Dataset]:
        """Cut off a random ``share``: by group if groups exist, else stratified by label, else at random.

        Args:
            share: how much, between 0 and 1.
            seed: of the choice.
            hashes: uint8 ``[N, 32]``, by which items are the same; those of the whole items if not given.

        Returns:
            the larger rest and the part cut off; no group is in both, and no item with the same bytes as another.
        """
        same = _splits.numbered(self.manifest.hashes if hashes is None else hashes)
        part = _splits.cut(len(self), share, seed, labels=self.labels, groups=self.manifest.groups, same=same)
        return self.select(~part), self.select(part)

    def described(self, **facts: Any) -> Dataset:
        """Return the dataset with further facts of its items, which name slices; see `Manifest.facts`.

        Args:
            **facts: a column each, with one value an item ``[N]`` of any type; ``None`` where nothing is known.

        Raises:
            BadInput: a column has another length.
        """
        import pyarrow as pa

        columns = dict(self.whole.facts)
        for name, values in facts.items():
            if len(values) != len(self):
                raise BadInput(f"{self.whole.source}: fact '{name}' has {len(values)} values for {len(self)} items")
            texts: list[str | None] = [None] * len(self.whole)
            for row, value in zip(self.rows, values, strict=True):
                texts[row] = None if value is None else str(value)
            columns[name] = pa.array(texts, pa.large_string())
        return replace(self, whole=replace(self.whole, facts=columns))

    def without(self, damaged: dict[int, str]) -> Dataset:
        """Return the dataset less the items of ``whole`` in ``damaged`` (row -> reason), which it lists."""
        if not damaged:
            return self
        mine = [row for row in self.rows if int(row) in damaged]
        found = [Quarantined(self.whole.names[row], damaged[int(row)]) for row in mine]
        known = set(self.quarantine)
        return replace(
            self,
            rows=self.rows[~np.isin(self.rows, mine)],
            quarantine=self.quarantine + tuple(q for q in found if q not in known),
        )

    def write_quarantine(self, path: Path) -> None:
        """Write the quarantined items to a CSV file with the columns ``item`` and ``reason``."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["item", "reason"])
        writer.writerows([printable(q.name), q.reason] for q in self.quarantine)
        write_text(path, text.getvalue())
