"""``fastness incident``: what is wrong with what serves, what happened to it, and what is said of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastness.cli import options
from fastness.cli.registry import By, Where, Why

if TYPE_CHECKING:
    from fastness.registry.incidents import Incident

incident = typer.Typer(no_args_is_help=True, help="See what is wrong with what serves, and what was done about it.")
Number = Annotated[int, typer.Argument(min=1, help="Of the incident, as the list says.")]


@incident.command("list")
def listed(
    spec: Annotated[str | None, typer.Argument(metavar="NAME@ALIAS", help="Default: all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Those that are over too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most that are shown.")] = 30,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """List incidents, the newest first."""
    from fastness.registry import Registry
    from fastness.registry.incidents import incidents

    name, _, alias = (spec or "").partition("@")
    with Registry(where, create=False) as opened:
        found = incidents(opened, name or None, alias or None, closed=every, limit=limit)
    if json:
        options.print_json({"incidents": [_plain(one) for one in found]})
        return
    for one in found:
        print(_line(one))
    if not found:
        print("no incident" if every else "no incident is open")


@incident.command()
def show(number: Number, where: Where = None, json: options.Json = False) -> None:
    """Tell an incident's story: what was found, said and done, and what is due."""
    from fastness.registry import Registry, incidents, outbox
    from fastness.registry.says import moment

    with Registry(where, create=False) as opened:
        found = incidents.incident(opened, number)
        story, due = incidents.timeline(opened, number), outbox.actions_of(opened, number)
    if json:
        told = [{**asdict(one), "at": moment(one.at)} for one in story]
        options.print_json({**_plain(found), "timeline": told, "actions": [asdict(action) for action in due]})
        return
    print(_line(found))
    for one in story:
        print(f"{moment(one.at)}  {one.what:<12} {one.said}  by {one.by}")
    for action in due:
        if action.open:
            print(f"{moment(action.due)}  due          {action.action}: {action.said or 'to be done'}")


@incident.command("ack")
def acknowledge(
    number: Number,
    why: Why = "",
    by: By = None,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Say that somebody looks after an incident."""
    from fastness.registry import Registry, incidents

    with Registry(where, create=False) as opened:
        _said(incidents.acknowledge(opened, number, why, by), json)


@incident.command()
def note(
    number: Number,
    text: Annotated[str, typer.Argument(help="What is written into its timeline.")],
    by: By = None,
    where: Where = None,
) -> None:
    """Write into an incident's timeline."""
    from fastness.registry import Registry, incidents

    with Registry(where, create=False) as opened:
        incidents.note(opened, number, text, by)


@incident.command()
def close(
    number: Number,
    why: Why = "",
    by: By = None,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Close an incident; whoever was told of it is told so."""
    from fastness.registry import Registry, incidents

    with Registry(where, create=False) as opened:
        _said(incidents.close(opened, number, why, by), json)


def _said(found: Incident, json: bool) -> None:
    if json:
        options.print_json(_plain(found))
    else:
        print(_line(found))


def _plain(found: Incident) -> dict[str, Any]:
    from fastness.registry.says import moment

    closed = None if found.closed is None else moment(found.closed)
    return {**asdict(found), "opened": moment(found.opened), "seen": moment(found.seen), "closed": closed}


def _line(found: Incident) -> str:
    from fastness.registry.says import moment

    return f"{found.id:>4}  {found.state:<12} {moment(found.opened)}  {found.times:>3} windows  {found.title}"
