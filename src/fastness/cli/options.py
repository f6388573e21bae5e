"""Options that several verbs share, and how they print."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from fastness.core.errors import BadInput

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Columns = dict[str, str | None]

_COLUMNS = {
    "image": "Column or array of the pictures; several, with commas or said again, are sides of one thing.",
    "text": "Column that holds the texts; several are sides of one thing.",
    "row": "Columns that together are a row of a table; 'rest': all others.",
    "label": "Column that holds the label; 'none' ignores class folders.",
    "split": "Column that holds the split; of folders 'folder' or 'none': whether train, test … are splits.",
    "group": "Column whose equal values stay together; 'folder' for trees.",
    "score": "Column that says how alike the sides of an item are.",
}


def takes_columns(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb that has a parameter ``columns`` the options that say which columns mean what."""
    added = {
        name: Annotated[list[str] | None, typer.Option(help=text, metavar="COLUMN")] for name, text in _COLUMNS.items()
    }
    return taking(verb, "columns", added, lambda given: {n: ",".join(given[n] or ()) or None for n in _COLUMNS})


def taking(
    verb: Callable[..., None], taken: str, added: dict[str, Any], gathered: Callable[[dict[str, Any]], Any]
) -> Callable[..., None]:
    """Return a verb whose parameter ``taken`` is gathered from options of the command line.

    Args:
        verb: its other parameters are options of their own.
        taken: name of the parameter; the options stand in its place.
        added: annotation of each option by name; those that are not given are ``None``.
        gathered: makes the parameter of the options' values.
    """
    own = inspect.signature(verb, eval_str=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    new = [inspect.Parameter(name, kind, default=None, annotation=annotation) for name, annotation in added.items()]
    parameters: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        parameters += new if parameter.name == taken else [parameter.replace(kind=kind)]
    whole = own.replace(parameters=parameters)

    @functools.wraps(verb)
    def with_options(**given: Any) -> None:
        values = {name: given.pop(name) for name in added}
        verb(**{taken: gathered(values)}, **given)

    with_options.__signature__ = whole  # type: ignore[attr-defined]
    with_options.__annotations__ = {name: p.annotation for name, p in whole.parameters.items()}
    del with_options.__wrapped__  # else its own signature would be read
    return with_options


def watched(spec: str) -> tuple[str, str]:
    """Return the name and the alias that ``NAME@ALIAS`` says.

    Raises:
        BadInput: it says none.
    """
    name, _, alias = spec.partition("@")
    if not name or not alias or alias.isdecimal():
        raise BadInput(f"'{spec[:80]}': what is watched is an alias; say {name[:40] or 'NAME'}@production")
    return name, alias


def names(listed: list[str] | None) -> list[str] | None:
    """Return what stands between commas, of an option that may also be repeated."""
    return [name.strip() for part in listed or () for name in part.split(",") if name.strip()] or None


def print_json(value: dict[str, Any]) -> None:
    """Print one line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False, default=str))
