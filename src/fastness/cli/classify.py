"""``fastness classify``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


@options.takes_columns
def classify(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="Folder, archive, file or name of a data set.")],
    head: Annotated[str | None, typer.Option(help="Which head; may be left out where there is one.")] = None,
    out: Annotated[Path, typer.Option(help="CSV file of the answers.")] = Path("answers.csv"),
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Name the class of each item of DATA; those unlike all that the head knows get none."""
    from fastness.tasks.classify import classify as answer

    found = answer(bundle, data, head=head, out=out, **columns)
    answers = found.answers
    counts = Counter(str(label) for label, none in zip(answers.labels, answers.abstained, strict=True) if not none)
    abstained, damaged = int(answers.abstained.sum()), len(found.dataset.quarantine)
    if json:
        options.print_json(
            {"out": str(out), "items": len(answers.labels), "abstained": abstained, "quarantined": damaged}
            | {"classes": dict(counts), "head": str(found.head.folder)}
        )
        return
    print(f"{out}: {len(answers.labels):,} items, {abstained} of them refused an answer")
    for label, count in counts.most_common(10):
        print(f"{count:7,} {label}")
    if damaged:
        print(f"{damaged} damaged items left out")
