"""Classify: what a bundle's head says of items, as a file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastness.bundle import Bundle, heads, load
from fastness.bundle.heads import Head
from fastness.core.files import atomic_path
from fastness.data import Dataset
from fastness.data.manifest import printable
from fastness_runtime import Answers


@dataclass(frozen=True)
class Classified:
    """Answers to a data set: row i of ``answers`` is item i of ``dataset``; damaged items are in its quarantine."""

    answers: Answers
    dataset: Dataset
    head: Head


def classify(
    bundle: Bundle | str | Path,
    data: Any,
    *,
    head: str | None = None,
    out: str | Path | None = None,
    **columns: str | None,
) -> Classified:
    """Let a head of a bundle answer.

    Args:
        bundle: a bundle or its path.
        data: items, of things with several sides those of the side that the head sees; see `open_data`.
        head: its name; may be left out where the bundle has one only.
        out: a CSV file to write: ``id``, ``label`` (empty where it abstains), ``likeliest``, ``probability``,
            ``novelty``.
        **columns: see `open_data`.

    Raises:
        BadInput: there is no such head, or the data cannot be opened.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load(bundle)
    chosen = heads.read(loaded, head)
    one = loaded.one_side(chosen.about["side"])
    embedded = one.embed_dataset(one.open(data, **columns), normalize=False)
    found = Classified(chosen.answer(embedded.vectors), embedded.dataset, chosen)
    if out is not None:
        _write(found, embedded.ids, Path(out))
    return found


def _write(found: Classified, ids: Any, path: Path) -> None:
    answers = found.answers
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "label", "likeliest", "probability", "novelty"])
        for i, (name, label) in enumerate(zip(ids, answers.labels, strict=True)):
            given = "" if answers.abstained[i] else label
            sure, novelty = float(answers.probabilities[i].max()), float(answers.novelty[i])
            writer.writerow([printable(name), given, label, f"{sure:.4f}", f"{novelty:.4f}"])
