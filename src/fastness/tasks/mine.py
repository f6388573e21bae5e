"""Mine: pairs become triplets with hard negatives that an encoder finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastness.bundle import Bundle, load
from fastness.core.errors import BadInput
from fastness.core.files import atomic_path
from fastness.data.sides import SideItems, right_answers
from fastness.data.text import texts_of
from fastness.encoders import ready
from fastness.index.mining import hard_negatives


def mine(
    bundle: Bundle | str | Path,
    data: Any,
    out: Path,
    *,
    number: int = 1,
    margin: float = 0.05,
    **columns: str | None,
) -> tuple[int, int]:
    """Write the pairs of ``data`` with hard negatives, one triplet a row: ``anchor, positive, negative``.

    Args:
        bundle: what finds the negatives.
        data: pairs of texts, see `open_data`; held-out parts are left out, and right answers (`right_answers`) are
            never negatives.
        out: a ``.parquet`` or ``.csv`` file.
        number, margin: see `hard_negatives`.

    Returns:
        the number of triplets, and of pairs without any hard negative, which are left out.

    Raises:
        BadInput: the data are no pairs of texts.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise BadInput(f"--out {out}: give a name that ends in .parquet or .csv")
    bundle = bundle if isinstance(bundle, Bundle) else load(bundle)
    items = ready(bundle.encoder, bundle.open(data, **columns).training_part())
    if not isinstance(items, SideItems) or {s.dataset.modality for s in items.sides.values()} != {"text"}:
        raise BadInput(f"{items.dataset.whole.source}: mining needs two columns of texts (--text FIRST,SECOND)")
    (first, questions), (second, answers) = list(items.sides.items())[:2]
    asked = bundle.of_side(first).embed_items(questions, precision="auto")
    told = bundle.of_side(second).embed_items(answers, precision="auto")
    right = right_answers(items.dataset, first, second)
    found = hard_negatives(asked, told, right, number=number, margin=margin)
    triplets = [(i, int(j)) for i, row in enumerate(found.rows) for j in row if j >= 0]
    _write(out, texts_of(questions.dataset), texts_of(answers.dataset), triplets)
    return len(triplets), int((found.rows < 0).all(1).sum())


def _write(out: Path, questions: list[str], answers: list[str], triplets: list[tuple[int, int]]) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "anchor": [questions[i] for i, _ in triplets],
            "positive": [answers[i] for i, _ in triplets],
            "negative": [answers[j] for _, j in triplets],
        }
    )
    with atomic_path(out) as temporary:
        pq.write_table(table, temporary) if out.suffix == ".parquet" else pyarrow.csv.write_csv(table, temporary)
