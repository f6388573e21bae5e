"""Options that several verbs share, and how they print."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Columns = dict[str, str | None]

_COLUMNS = {
    "image": "Column or array of the pictures; several, with commas or said again, are sides of one thing.",
    "text": "Column that holds the texts; several are sides of one thing.",
    "row": "Columns that together are a row of a table; 'rest': all others.",
    "label": "Column that holds the label; 'none' ignores class folders.",
    "split": "Column that holds the split; 'none' ignores split folders.",
    "group": "Column whose equal values stay together; 'folder' for trees.",
    "score": "Column that says how alike the sides of an item are.",
}


def takes_columns(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb that has a parameter ``columns`` the options that say which columns mean what."""
    own = inspect.signature(verb, eval_str=True)
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[list[str] | None, typer.Option(help=text, metavar="COLUMN")],
        )
        for name, text in _COLUMNS.items()
    ]
    kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, p in own.parameters.items() if name != "columns"]
    place = next((i for i, p in enumerate(kept) if p.name == "json"), len(kept))
    whole = own.replace(parameters=[*kept[:place], *options, *kept[place:]])

    @functools.wraps(verb)
    def with_columns(**given: Any) -> None:
        columns = {name: ",".join(given.pop(name) or ()) or None for name in _COLUMNS}
        verb(columns=columns, **given)

    with_columns.__signature__ = whole  # type: ignore[attr-defined]
    with_columns.__annotations__ = {name: p.annotation for name, p in whole.parameters.items()}
    del with_columns.__wrapped__  # else its own signature would be read
    return with_columns


def names(listed: list[str] | None) -> list[str] | None:
    """Return what stands between commas, of an option that may also be repeated."""
    return [name.strip() for part in listed or () for name in part.split(",") if name.strip()] or None


def print_json(value: dict[str, Any]) -> None:
    """Print one line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False, default=str))
