"""``fastness registry``: add, promote, rollback, log and all that keeps it in order."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastness.cli import options

if TYPE_CHECKING:
    from fastness.registry import Move, Registry, Version
    from fastness.registry.keys import Key

registry = typer.Typer(no_args_is_help=True, help="Keep versions, say which one serves, and what served when.")
key = typer.Typer(no_args_is_help=True, help="Keys of those who may ask the service.")
registry.add_typer(key, name="key")
Where = Annotated[
    str | None,
    typer.Option("--registry", help="A folder, or postgresql://user@host/database; default: FASTNESS_REGISTRY."),
]
Stored = Annotated[str | None, typer.Option(help="Where a new registry on PostgreSQL keeps files: folder, s3://…")]
Spec = Annotated[str, typer.Argument(help="NAME@NUMBER or NAME@ALIAS.")]
Name = Annotated[str, typer.Argument(help="Of the versions.")]
Alias = Annotated[str, typer.Argument(help="production, canary, …")]
By = Annotated[str | None, typer.Option(help="Who does it; default: the user.")]
Tracking = Annotated[str, typer.Option("--uri", help="MLflow's: http://… or sqlite:///FILE.")]
Why = Annotated[str, typer.Option(help="What is said of it in the log.")]


@registry.command()
def add(
    bundle: Annotated[str, typer.Argument(help="A bundle's or a run's folder; all that lies in it goes along.")],
    name: Name,
    note: Annotated[str, typer.Option(help="What is said of it.")] = "",
    by: By = None,
    where: Where = None,
    store: Stored = None,
    json: options.Json = False,
) -> None:
    """Add BUNDLE as the next version of NAME."""
    with _opened(where, store, create=True) as opened:
        version = opened.add(bundle, name, by=by, note=note)
    _added(version, json)


@registry.command()
@options.takes_columns
def promote(
    spec: Spec,
    alias: Alias,
    gate: Annotated[Path | None, typer.Option(help="Policy (YAML) that it must pass; see fastness compare.")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled data to measure it on, and what serves now.")] = None,
    checks: Annotated[list[str] | None, typer.Option(metavar="NAMES", help="As of 'fastness evaluate'.")] = None,
    slice: Annotated[list[str] | None, typer.Option(help="As of 'fastness compare'.")] = None,
    override: Annotated[bool, typer.Option("--override", help="Do it without a gate's yes; needs --why.")] = False,
    why: Why = "",
    by: By = None,
    seed: Annotated[int, typer.Option()] = 0,
    where: Where = None,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Let ALIAS name a version, if the gate says yes; else ends with 3, and the log says so."""
    from fastness.core.errors import BadInput
    from fastness.registry import promotion

    if (gate is None) != (data is None):
        raise BadInput("a gate needs both a policy and data to measure on: --gate policy.yaml --data DATA")
    with _opened(where) as opened:
        if gate is None:
            move = opened.promote(spec, alias, why=why, by=by, override=override)
        else:
            asked: dict[str, Any] = {"checks": options.names(checks), "slices": slice, "seed": seed, **columns}
            move = promotion.promote(
                opened,
                spec,
                alias,
                policy=gate,
                data=data,
                why=why,
                by=by,
                override=override,
                say=lambda line: print(line, file=sys.stderr),
                **asked,
            )
    _said(move, json)


@registry.command()
def rollback(
    name: Name,
    alias: Alias,
    to: Annotated[int | None, typer.Option(help="Number; default: the one before.")] = None,
    why: Why = "",
    by: By = None,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Let ALIAS name the version again that it named before."""
    with _opened(where) as opened:
        move = opened.rollback(name, alias, to=to, why=why, by=by)
    _said(move, json)


@registry.command()
def remove(
    name: Name, alias: Alias, why: Why = "", by: By = None, where: Where = None, json: options.Json = False
) -> None:
    """Let ALIAS name nothing; the versions and the log stay."""
    with _opened(where) as opened:
        move = opened.remove(name, alias, why=why, by=by)
    _said(move, json)


@registry.command()
def log(
    name: Annotated[str | None, typer.Argument(help="Of the versions; default: all.")] = None,
    alias: Annotated[str | None, typer.Argument(help="Default: all.")] = None,
    at: Annotated[str | None, typer.Option(help="Say what served at this moment: 2026-05-01T13:30+02:00.")] = None,
    limit: Annotated[int, typer.Option(help="Most moves that are shown.")] = 30,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Say what happened to aliases, the newest first; with --at what each of NAME's named then."""
    from fastness.core.errors import BadInput
    from fastness.registry.says import parsed_moment

    with _opened(where) as opened:
        if at is None:
            found = opened.log(name, alias, limit)
        elif name is None:
            raise BadInput("--at: say of which name: fastness registry log NAME --at …")
        else:
            served = opened.serving(name, parsed_moment(at))
            found = [move for key, move in served.items() if alias in (None, key)]
    if json:
        options.print_json({"moves": [_plain(move) for move in found]})
        return
    for move in found:
        print(_line(move))
    if not found:
        print("nothing served then" if at else "no alias was ever moved")


@registry.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Of the versions; default: all.")] = None,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """List versions, and which aliases name them now."""
    with _opened(where) as opened:
        listed = opened.versions(name)
        named: dict[str, list[str]] = {}
        for one in {version.name for version in listed}:
            for alias, move in opened.serving(one).items():
                named.setdefault(f"{one}@{move.number}", []).append(alias)
    if json:
        rows = [{**_plain(version), "aliases": named.get(str(version), [])} for version in listed]
        options.print_json({"versions": rows})
        return
    for version in listed:
        marks = ", ".join(named.get(str(version), ())) or ("given up" if version.collected is not None else "")
        size = f"{version.bytes / 1e6:.1f} MB"
        print(f"{version!s:<24} {version.bundle[:12]}  {size:>12}  {marks:<20} {version.note}".rstrip())
    if not listed:
        print("no version here" if name is None else f"no version of {name} here")


@registry.command()
def pull(
    spec: Spec,
    folder: Annotated[Path, typer.Argument(help="Where the bundle is written.")],
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Write a version's bundle into FOLDER, verified file by file."""
    with _opened(where) as opened:
        version = opened.find(spec)
        written = opened.pull(str(version), folder)
    if json:
        options.print_json({"version": _plain(version), "folder": str(written)})
        return
    print(f"{version}  {written}")


@registry.command()
def gc(
    newest: Annotated[int, typer.Option(min=1, help="How many versions of a name stay in any case.")] = 3,
    days: Annotated[float, typer.Option(min=0, help="How long something stays that has served.")] = 30,
    dry: Annotated[bool, typer.Option("--dry-run", help="Change nothing, only say.")] = False,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Give up versions that serve nowhere and are old, and remove the files that nothing needs."""
    from fastness.registry.collect import collect

    with _opened(where) as opened:
        found = collect(opened, newest=newest, days=days, dry=dry)
    if json:
        options.print_json({**asdict(found), "versions": [_plain(version) for version in found.versions]})
        return
    for version in found.versions:
        print(f"{version}  {'would be ' if dry else ''}given up")
    left = f"; {found.left} stay for now, since something is being added" if found.left else ""
    print(f"{found.files:,} files, {found.bytes / 1e6:.1f} MB {'would be ' if dry else ''}removed{left}")


@registry.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="An empty one, or that of an earlier backup.")],
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Write all of a registry into FOLDER: every row, and every file that it needs."""
    from fastness.registry import backup as backups

    with _opened(where) as opened:
        found = backups.backup(opened, folder)
    _counted(asdict(found), f"kept in {folder}", json)


@registry.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="What 'fastness registry backup' wrote.")],
    where: Where = None,
    store: Stored = None,
    json: options.Json = False,
) -> None:
    """Fill a new registry, of either kind, with a backup."""
    from fastness.registry import backup as backups

    with _opened(where, store, create=True) as opened:
        found = backups.restore(opened, folder)
    _counted(asdict(found), f"restored from {folder}", json)


@registry.command("to-mlflow")
def to_mlflow(
    spec: Spec,
    uri: Tracking,
    model: Annotated[str | None, typer.Option(help="Name there; default: the same.")] = None,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Write a version into MLflow's registry, with the aliases that name it."""
    from fastness.registry import mlflow

    with _opened(where) as opened:
        sent = mlflow.to_mlflow(opened, spec, uri, model)
    if json:
        options.print_json(asdict(sent))
        return
    print(f"{spec} is version {sent.version} of {sent.model} in {uri}")


@registry.command("from-mlflow")
def from_mlflow(
    model: Annotated[str, typer.Argument(help="MODEL/3 or MODEL@ALIAS.")],
    uri: Tracking,
    name: Annotated[str | None, typer.Option(help="Name here; default: the same.")] = None,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Add a version of MLflow's registry: a bundle, or what sentence-transformers or transformers saved."""
    from fastness.registry import mlflow

    with _opened(where, create=True) as opened:
        version = mlflow.from_mlflow(opened, model, uri, name)
    _added(version, json)


@registry.command()
def upgrade(where: Where = None) -> None:
    """Bring a registry of an earlier version up to date; back it up first."""
    from fastness.registry import Registry
    from fastness.registry.tables import REVISION

    with Registry(where, upgrade=True, create=False) as opened:
        print(f"{opened.shown}: is at revision {REVISION}")


@key.command()
def issue(
    who: Annotated[str, typer.Argument(help="Whom it is for.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="NAMES", help="embed, search, classify, metrics; default: all."),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Items a second at most; default: no limit.")] = None,
    by: By = None,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Make a key; its token is printed once and kept nowhere."""
    from fastness.registry import keys

    with _opened(where) as opened:
        made, token = keys.issue(opened, who, scopes=options.names(scopes) or keys.SCOPES, rate=rate, by=by)
    if json:
        options.print_json({**_told(made), "token": token})
        return
    print(f"{_key_line(made)}; nobody can say this again:", file=sys.stderr)
    print(token)


@key.command("list")
def listed(where: Where = None, json: options.Json = False) -> None:
    """List all keys that were ever issued, the oldest first."""
    from fastness.registry import keys

    with _opened(where) as opened:
        found = keys.keys(opened)
    if json:
        options.print_json({"keys": [_told(one) for one in found]})
        return
    for one in found:
        print(_key_line(one))
    if not found:
        print("no key here; make one with: fastness registry key issue WHO")


@key.command()
def revoke(
    id: Annotated[str, typer.Argument(help="Of the key, as the list says.")],
    by: By = None,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Let a key open nothing any more."""
    from fastness.registry import keys

    with _opened(where) as opened:
        gone = keys.revoke(opened, id, by)
    if json:
        options.print_json(_told(gone))
        return
    print(_key_line(gone))


def _told(one: Key) -> dict[str, Any]:
    from fastness.registry.says import moment

    return {**asdict(one), "at": moment(one.at), "revoked": None if one.revoked is None else moment(one.revoked)}


def _key_line(one: Key) -> str:
    from fastness.registry.says import moment

    rate = "" if one.rate is None else f", {one.rate:g} items a second"
    gone = "" if one.revoked is None else f"; revoked at {moment(one.revoked)} by {one.revoked_by}"
    return f"{one.id}  {one.who}: {', '.join(one.scopes)}{rate}; issued at {moment(one.at)} by {one.by}{gone}"


def _opened(where: str | None, store: str | None = None, create: bool = False) -> Registry:
    from fastness.registry import Registry

    return Registry(where, store, create=create)


def _added(version: Version, json: bool) -> None:
    if json:
        options.print_json(_plain(version))
        return
    print(f"{version}  {version.bundle[:12]}  {version.files} files, {version.bytes / 1e6:.1f} MB")


def _plain(thing: Version | Move) -> dict[str, Any]:
    from fastness.registry.says import moment

    return {**asdict(thing), "at": moment(thing.at)}


def _line(move: Move) -> str:
    from fastness.registry.says import moment

    named = "nothing" if move.number is None else f"{move.name}@{move.number}"
    before = f" (before: {move.before})" if move.before not in (None, move.number) else ""
    marks = " OVERRIDE" if move.override else ""
    why = f": {move.why}" if move.why else ""
    gate = f" [{move.gate['said']}]" if move.gate and "said" in move.gate else ""
    where = f"{move.name}@{move.alias}"
    return f"{moment(move.at)}  {move.what:<8} {where} -> {named}{before}{marks}  by {move.by}{why}{gate}"


def _said(move: Move, json: bool) -> None:
    if json:
        options.print_json(_plain(move))
    else:
        print(_line(move))


def _counted(found: dict[str, int], said: str, json: bool) -> None:
    if json:
        options.print_json(found)
    else:
        print(", ".join(f"{number:,} {what}" for what, number in found.items()), said)
