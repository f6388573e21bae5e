"""Evidence: what was measured of one bundle on one data set, kept beside it and never changed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastness.core import hardware
from fastness.core.files import atomic_path, sha256_file, write_json, write_text
from fastness.data import Dataset
from fastness.evaluation.checks import Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject

_PACKAGES = ("fastness", "torch", "numpy", "scikit-learn", "timm")


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
        """Return the measurement called ``name``."""
        return next((m for m in self.measurements if m.name == name), None)

    def find(self, start: str) -> list[Measurement]:
        """Return the measurements whose names begin so."""
        return [m for m in self.measurements if m.name.startswith(start)]


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
    """Write the measurements, the outcomes of single items, and what they are about with all hashes."""
    measurements = [m for found in findings.values() for m in found.measurements]
    lines = [json.dumps(m.to_dict(), ensure_ascii=False) for m in measurements]
    write_text(folder / "measurements.jsonl", "".join(line + "\n" for line in lines))
    for name, found in findings.items():
        if found.items:
            _write_items(folder / f"{name}.parquet", found.dataset or subject.test.dataset, found.items)
    about = {
        "bundle": subject.bundle.id,
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
        "files": {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.suffix in {".jsonl", ".parquet"}},
    }
    write_json(folder / "evidence.json", about)
    return Evidence(folder, about, measurements)


def read(folder: Path) -> Evidence:
    """Read what `write` wrote."""
    lines = (folder / "measurements.jsonl").read_text(encoding="utf-8").splitlines()
    about = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
    return Evidence(folder, about, [Measurement.from_dict(json.loads(line)) for line in lines])


def _overlap(subject: Subject) -> dict[str, int]:
    """Count held-out items whose very bytes were in the encoder's training data: leakage by the letter."""
    known = subject.bundle.item_hashes
    held = [row.tobytes().hex() for row in subject.held_out.manifest.hashes]
    return {"held_out_items_seen_in_training": sum(item in known for item in held)}


def _write_items(path: Path, dataset: Dataset, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    hashes = dataset.manifest.hashes
    table = {"sha256": pa.array([row.tobytes() for row in hashes], pa.binary(32))}
    table |= {name: pa.array(np.asarray(values)) for name, values in columns.items()}
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(table), temporary, compression="zstd")
