"""``fastness index``: build, add, remove, search, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fastness.cli import options

Address = Annotated[str, typer.Argument(help="A folder, or postgresql://user@host/database?table=NAME.")]
Bundled = Annotated[str, typer.Argument(help="A bundle's or a run's folder: the one whose vectors the index holds.")]
index = typer.Typer(no_args_is_help=True, help="Keep a collection's vectors, and search them.")


@index.command()
@options.takes_columns
def build(
    address: Address,
    bundle: Bundled,
    data: Annotated[str, typer.Argument(help="The collection.")],
    kind: Annotated[str, typer.Option(help="flat, hnsw, int8, binary, pq; on PostgreSQL flat, hnsw, binary.")] = "flat",
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Embed DATA with BUNDLE and keep the vectors, with the data's columns as metadata."""
    from fastness.tasks.index import build as make

    embedded = make(address, bundle, data, kind=kind, **columns)
    _said(address, len(embedded.vectors), len(embedded.dataset.quarantine), json)


@index.command()
@options.takes_columns
def add(
    address: Address,
    bundle: Bundled,
    data: Annotated[str, typer.Argument(help="What is added; items with the same names are replaced.")],
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Embed DATA and add it to an index."""
    from fastness.tasks.index import add as more

    embedded = more(address, bundle, data, **columns)
    _said(address, len(embedded.vectors), len(embedded.dataset.quarantine), json)


@index.command()
@options.takes_columns
def rebuild(
    collection: Annotated[str, typer.Argument(help="What the items are called.")],
    spec: Annotated[str, typer.Argument(help="NAME@NUMBER or NAME@ALIAS of a registry: the version that embeds.")],
    data: Annotated[
        str | None, typer.Argument(help="The items; default: those of NAME's newest index of COLLECTION.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="As of 'fastness index build'; default: as before.")] = None,
    to: Annotated[
        str | None, typer.Option(help="A folder, or postgresql://…?table=PREFIX; default: in the registry's folder.")
    ] = None,
    form: Annotated[str | None, typer.Option(help="Embed with this export of the version: onnx-int8, …")] = None,
    previews: Annotated[bool, typer.Option("--previews", help="Keep how items look, small, beside the index.")] = False,
    by: Annotated[str | None, typer.Option(help="Who does it; default: the user.")] = None,
    where: Annotated[
        str | None,
        typer.Option("--registry", help="A folder, or postgresql://user@host/database; default: FASTNESS_REGISTRY."),
    ] = None,
    *,
    columns: options.Columns,
    json: options.Json = False,
) -> None:
    """Embed COLLECTION anew with a version, beside what serves; run again after a kill, it goes on where it was."""
    import sys
    from dataclasses import asdict

    from fastness.registry import Registry
    from fastness.registry.reindex import rebuild as again
    from fastness.registry.says import moment

    with Registry(where, create=False) as opened:
        made = again(
            opened,
            spec,
            data,
            collection=collection,
            kind=kind,
            to=to,
            form=form,
            previews=previews,
            by=by,
            say=lambda line: print(line, file=sys.stderr),
            **columns,
        )
    if json:
        options.print_json({"index": str(made), **asdict(made), "at": moment(made.at)})
        return
    print(f"{made}  {made.name}@{made.number}  {made.items:,} items, {made.kind}  {made.address}")


@index.command()
def remove(
    address: Address,
    ids: Annotated[list[str], typer.Argument(help="Names of items, as a search says them.")],
    json: options.Json = False,
) -> None:
    """Remove items from an index: all of those named, or on an error none."""
    from fastness.index import Index

    with Index.open(address) as opened:
        removed, left = opened.remove(ids), len(opened)
    if json:
        options.print_json({"removed": removed, "items": left})
        return
    print(f"{opened.address}: removed {removed:,}; {left:,} items are left")


@index.command()
def search(
    address: Address,
    bundle: Bundled,
    query: Annotated[str, typer.Option(help="A picture's file, or words.")],
    k: Annotated[int, typer.Option("-k", help="How many answers.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="Only items for which this holds: price < 20 and colour == 'red'.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Find the items of an index that are nearest to a picture or to words."""
    from dataclasses import asdict

    from fastness.tasks.index import search as find

    hits = find(address, bundle, query, k, where)
    if json:
        options.print_json({"query": query, "where": where, "hits": [asdict(hit) for hit in hits]})
        return
    for rank, hit in enumerate(hits, 1):
        known = ", ".join(f"{name} {_cell(value)}" for name, value in hit.metadata.items())
        print(f"{rank:>3}  {hit.similarity:.4f}  {hit.id}" + (f"  ({known[:100]})" if known else ""))


@index.command()
def show(address: Address, json: options.Json = False) -> None:
    """Say what an index holds: items, kind, columns, bytes on the disk and in memory."""
    from fastness.index import Index

    with Index.open(address) as opened:
        found = opened.show()
    if json:
        options.print_json(found)
        return
    for name, value in found.items():
        print(f"{name.replace('_', ' '):<13} {_shown(value)}")


def _said(address: str, items: int, quarantined: int, json: bool) -> None:
    from fastness.index import Index

    with Index.open(address) as opened:
        held = len(opened)
        shown: str | Path = opened.address
    if json:
        options.print_json({"index": str(shown), "added": items, "items": held, "quarantined": quarantined})
        return
    print(f"{shown}: {items:,} added, {held:,} items" + (f"; {quarantined} damaged left out" if quarantined else ""))


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} ({kind})" for name, kind in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
