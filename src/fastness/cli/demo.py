"""``fastness demo``: the whole way on a known data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fastness.cli import options

# The digits get a number of steps, about a minute's, so that the demo ends alike on fast and slow machines.
_LENGTHS: dict[str, dict[str, Any]] = {
    "digits": {"steps": 600},
    "fashion-mnist": {"budget": "6m"},
    "cifar10": {"budget": "10m"},
}


def demo(
    data: Annotated[str, typer.Option(help="digits, fashion-mnist or cifar10.")] = "digits",
    budget: Annotated[str | None, typer.Option(help="Training time.")] = None,
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option()] = 0,
    json: options.Json = False,
) -> None:
    """Train, measure and search on a known data set, and show where to look."""
    import shutil

    from fastness.cli.evaluate import print_table
    from fastness.core.errors import BadInput
    from fastness.core.recipe import Recipe
    from fastness.data import open_data
    from fastness.evaluation.evaluate import evaluate
    from fastness.tasks.search import search
    from fastness.training.progress import Display
    from fastness.training.run import train

    if data not in _LENGTHS:
        raise BadInput(f"--data {data}: known: {', '.join(_LENGTHS)}")
    folder = out / data
    shutil.rmtree(folder, ignore_errors=True)
    # Characters and clothes change their meaning when mirrored; photographs do not.
    views = {} if data == "cifar10" else {"flip": 0.0}
    length = {"budget": budget} if budget else _LENGTHS[data]
    recipe = Recipe.parse({**length, "seed": seed, "views": views})
    dataset = open_data(data)
    run = train(dataset, recipe, folder, display=Display(quiet=json))
    report = evaluate(run.bundle, dataset, say=lambda text: print(text, file=sys.stderr))
    query = folder / "query.png"
    _save_first(dataset.split("test"), query)
    sheet = search(run.bundle, dataset.split("train"), query, 11).contact_sheet(folder / "search.png")
    if json:
        measured = [m.to_dict() for m in report.evidence.measurements]
        found = {"bundle": str(run.bundle), "report": str(report.html), "search": str(sheet), "measurements": measured}
        options.print_json(found)
        return
    print_table(report)
    print(f"\nbundle     {run.bundle}\nreport     {report.html}\nsearch     {sheet}")


def _save_first(dataset: object, path: Path) -> None:
    """Write the data set's first item as a picture, to search for."""
    from PIL import Image

    from fastness.data import Dataset
    from fastness_runtime.decode import decode

    assert isinstance(dataset, Dataset)
    Image.fromarray(decode(dataset.payloads.read(int(dataset.rows[0])))).save(path)
