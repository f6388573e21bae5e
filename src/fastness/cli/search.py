"""``fastness search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options


@options.takes_columns
def search(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder.")],
    data: Annotated[str, typer.Argument(help="The collection to search.")],
    query: Annotated[str, typer.Option(help="A picture's file, or words.")],
    k: Annotated[int, typer.Option("-k", help="How many answers.")] = 10,
    sheet: Annotated[Path | None, typer.Option(help="Write the answers as one PNG picture.")] = None,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Find the items of DATA that are nearest to a picture or to words."""
    from dataclasses import asdict

    from fastness.tasks.search import search as find

    answers = find(bundle, data, query, k, **columns)
    if sheet is not None:
        answers.contact_sheet(sheet)
    if json:
        hits = [asdict(hit) for hit in answers.hits]
        options.print_json({"query": answers.query, "hits": hits, "sheet": str(sheet) if sheet else None})
        return
    for rank, hit in enumerate(answers.hits, 1):
        print(
            f"{rank:>3}  {hit.similarity:.4f}  {hit.item}"
            + (f"  ({hit.label})" if hit.label else "")
            + (f"  {hit.text[:100]}" if hit.text else "")
        )
    if sheet is not None:
        print(f"sheet      {sheet}")
