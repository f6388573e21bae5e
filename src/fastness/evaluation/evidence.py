"""Evidence: what was measured of one bundle on one data set, kept beside it and never changed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core import hardware
from fastness.core.errors import BadInput
from fastness.core.files import atomic_path, sha256_file, write_json, write_text
from fastness.data import Dataset
from fastness.evaluation.checks import Findings
from fastness.evaluation.measurement import WHOLE, Measurement
from fastness.evaluation.slices import columns_of
from fastness.evaluation.subject import Subject

_PACKAGES = ("fastness", "torch", "numpy", "scikit-learn", "timm")
_MEASURED, _KNOWN = "measurements.jsonl", "items.parquet"
_TELLING = 10  # items of a value, on average: what tells fewer apart may name a person
Key = tuple[bytes, int]
"""An item: its SHA-256, and how many of the same bytes stand before it."""


@dataclass(frozen=True)
class Evidence:
    """The measurements in one evidence folder.

    Attributes:
        folder: where they lie.
        about: bundle, data, environment.
        measurements: the numbers.
    """

    folder: Path
    about: dict[str, Any]
    measurements: list[Measurement]

    def get(self, name: str) -> Measurement | None:
        """Return the measurement called ``name`` of all items."""
        return next((m for m in self.measurements if m.name == name and m.slice == WHOLE), None)

    def find(self, start: str) -> list[Measurement]:
        """Return the measurements of all items whose names begin so."""
        return [m for m in self.measurements if m.name.startswith(start) and m.slice == WHOLE]

    def file(self, name: str) -> Path | None:
        """Return a file of this evidence; ``None`` if there is none, or one that lies there by chance."""
        return self.folder / name if name in self.about["files"] else None

    def of_items(self, check: str) -> dict[str, npt.NDArray[Any]]:
        """Return what a check kept of each item, ``[N]`` by column; nothing if it was not run or kept nothing."""
        path = self.file(f"{check}.parquet")
        return {} if path is None else _read_items(path)[1]

    @property
    def called(self) -> str:
        """What messages call it: where its bundle or file is, else where it lies itself."""
        return str(self.about.get("from") or self.folder)

    def known(self) -> tuple[list[Key], dict[str, npt.NDArray[Any]]]:
        """Return the items, and what is known of them by column; see `slices.Columns`.

        Raises:
            BadInput: nothing is: the evidence is older than that.
        """
        if not (self.folder / _KNOWN).is_file():
            raise BadInput(f"{self.folder}: does not say what is known of its items; evaluate again")
        keys, columns = _read_items(self.folder / _KNOWN)
        return keys, {
            name: values.astype(np.float64) if values.dtype.kind == "f" else values.astype(np.str_)
            for name, values in columns.items()
        }

    def outcomes(self) -> Iterator[tuple[list[Key], dict[str, npt.NDArray[np.float64]]]]:
        """Yield for each check its items, and by measurement what came of each, float64 ``[N]``."""
        names = {m.name for m in self.find("")}
        for path in map(self.file, sorted(self.about["files"])):
            if path is None or path.suffix != ".parquet" or path.name == _KNOWN:
                continue
            keys, columns = _read_items(path)
            named = {f"{path.stem}.{column}": values for column, values in columns.items()}
            yield keys, {name: values.astype(np.float64) for name, values in named.items() if name in names}


def new_folder(bundle: Path, data: str) -> Path:
    """Return a new, empty folder for evidence within a bundle; earlier evidence stays as it is."""
    base = bundle / "evidence" / f"{time.strftime('%Y%m%d-%H%M%S')}-{data[:8]}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    folder.mkdir(parents=True)
    return folder


def write(folder: Path, subject: Subject, findings: dict[str, Findings], skipped: dict[str, str]) -> Evidence:
    """Write the measurements, the outcomes of single items, and what they are about with all hashes.

    The last file to be written says that all are there.
    """
    measurements = [m for found in findings.values() for m in found.measurements]
    lines = [json.dumps(m.to_dict(), ensure_ascii=False) for m in measurements]
    write_text(folder / _MEASURED, "".join(line + "\n" for line in lines))
    files = [_MEASURED, _KNOWN]
    for name, found in findings.items():
        if found.items:
            files.append(f"{name}.parquet")
            _write_items(folder / files[-1], found.dataset or subject.held_out, found.items)
    _write_items(folder / _KNOWN, subject.unfitted, _may_be_told(subject))
    about = {
        "bundle": subject.bundle.id,
        "from": str(subject.bundle.path),
        "data": subject.test.dataset.whole.source,
        "fingerprint": subject.data,
        "items": {"fit": len(subject.fit), "test": len(subject.test), "unfitted": len(subject.unfitted)},
        "parts": subject.how,
        "labelled": subject.has_labels,
        "seed": subject.seed,
        "skipped": skipped,
        "quarantined": len({q.name for part in (subject.fit, subject.test) for q in part.dataset.quarantine}),
        "handled": dict(subject.held_out.handled),
        "trained_on": _overlap(subject),
        "hardware": hardware.describe(),
        "versions": hardware.versions(*_PACKAGES),
        "further": {
            name: {"data": items.dataset.whole.source, "fingerprint": items.dataset.fingerprint}
            for sets in (subject.outside, subject.shifted)
            for name, items in sets.items()
        },
        "files": {name: sha256_file(folder / name) for name in sorted(files)},
    }
    write_json(folder / "evidence.json", about)
    return Evidence(folder, about, measurements)


def read(folder: Path) -> Evidence:
    """Read what `write` wrote.

    Raises:
        BadInput: there is no evidence in the folder, or a file is not the one that was written.
    """
    if not (folder / "evidence.json").is_file():
        raise BadInput(f"{folder}: no evidence; give a folder that 'fastness evaluate' wrote")
    about = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
    for name, digest in about["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise BadInput(f"{folder / name}: missing, or not what was measured; evaluate again into a new folder")
    lines = (folder / _MEASURED).read_text(encoding="utf-8").splitlines()
    return Evidence(folder, about, [Measurement.from_dict(json.loads(line)) for line in lines])


def _may_be_told(subject: Subject) -> dict[str, npt.NDArray[Any]]:
    """Return what is known of the items; without examples no words that tell nearly every item, unless asked for."""
    asked = {*subject.sensitive, subject.domain, "label", *columns_of(subject.slices or (), subject.known)}
    return {
        name: values
        for name, values in subject.known.items()
        if subject.examples
        or values.dtype.kind == "f"
        or name in asked
        or len(np.unique(values)) * _TELLING <= len(values)
    }


def _overlap(subject: Subject) -> dict[str, int]:
    """Count held-out items whose very bytes were in the encoder's training data: leakage by the letter."""
    known = subject.bundle.item_hashes
    held = [row.tobytes().hex() for row in subject.held_out.manifest.hashes]
    return {"held_out_items_seen_in_training": sum(item in known for item in held)}


def _write_items(path: Path, dataset: Dataset, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    hashes = dataset.manifest.hashes
    columns = {name: values for name, values in columns.items() if name != "sha256"}  # a fact may be called so
    table = {"sha256": pa.array([row.tobytes() for row in hashes], pa.binary(32))}
    table |= {name: pa.array(np.asarray(values)) for name, values in columns.items()}
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(table), temporary, compression="zstd")


def _read_items(path: Path) -> tuple[list[Key], dict[str, npt.NDArray[Any]]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    seen: Counter[bytes] = Counter()
    keys = []
    for digest in table["sha256"].to_pylist():
        keys.append((digest, seen[digest]))
        seen[digest] += 1
    return keys, {name: table[name].to_numpy() for name in table.column_names if name != "sha256"}
