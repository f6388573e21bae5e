"""``fastness watch``: what is kept of traffic: add to it, list it, delete what is old."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options

watch = typer.Typer(no_args_is_help=True, help="See what is kept of traffic, or add embeddings of any model to it.")
Spec = Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="What is watched.")]
Folder = Annotated[Path, typer.Option("--watch", help="The folder that fastness serve --watch writes to.")]


@watch.command()
def add(
    spec: Spec,
    file: Annotated[Path, typer.Argument(help="npz or Parquet: vectors, and if known ids, at, label, confidence …")],
    folder: Folder,
    version: Annotated[str, typer.Option(help="Of the model that made them.")] = "",
    window: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds that a window lasts.")] = 300,
    items: Annotated[int, typer.Option(min=1, help="Of a window that are kept.")] = 2000,
    json: options.Json = False,
) -> None:
    """Write down embeddings of a model that is served elsewhere, so that it is monitored too."""
    from fastness.monitoring.kept.foreign import add as write

    name, alias = options.watched(spec)
    added = write(folder, name, alias, file, version=version, window=window, most=items)
    if json:
        options.print_json({"items": added})
        return
    print(f"{added:,} items written down")


@watch.command(name="list")
def listed(
    spec: Spec,
    folder: Folder,
    since: Annotated[str | None, typer.Option(help="Moment, ISO 8601: what ended before is left out.")] = None,
    json: options.Json = False,
) -> None:
    """List the windows that are over: how much was asked, what went wrong, how long it took."""
    from fastness.monitoring.kept.windows import kept, quantile
    from fastness.registry.says import moment, parsed_moment

    name, alias = options.watched(spec)
    windows = kept(folder, name, alias, 0 if since is None else parsed_moment(since))
    for w in windows if json else ():
        told = {"id": w.id, "start": w.start, "end": w.end, "version": w.version, "index": w.index, "whole": w.whole}
        options.print_json({**told, **w.counts, "p99": quantile(w.latency, 0.99)})
    if json:
        return
    print(f"{'end':<27} {'version':<16} {'items':>8} {'errors':>7} {'refused':>8} {'p99 s':>7}")
    for w in windows:
        numbers = [int(w.counts.get(name, 0)) for name in ("items", "errors", "refused")]
        print(
            f"{moment(w.end)[:26]:<27} {w.version:<16} {numbers[0]:>8,} {numbers[1]:>7,} {numbers[2]:>8,} "
            f"{quantile(w.latency, 0.99):>7.3f}{'' if w.whole else '  cut off'}"
        )


@watch.command()
def expire(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that --keep-payloads DIR writes to.")],
    ttl: Annotated[float, typer.Option(min=0, help="Hours: what came last that long ago is deleted.")] = 24,
    json: options.Json = False,
) -> None:
    """Delete items that were kept long enough; a running service does so by itself."""
    from fastness.monitoring.kept.payloads import expire as delete

    gone = delete(folder, ttl * 3600)
    if json:
        options.print_json({"deleted": gone})
        return
    print(f"{gone:,} items deleted")
