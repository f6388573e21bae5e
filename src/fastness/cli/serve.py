"""``fastness serve``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastness.serving.router import Candidacy
    from fastness.serving.watch import Watching


def serve(
    spec: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="What is served, and followed when it moves.")],
    collection: Annotated[str | None, typer.Option(help="Whose index is searched; see fastness index rebuild.")] = None,
    form: Annotated[
        str | None, typer.Option(help="Of the export; default: what a target picked, else the most exact.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where it listens; beyond this machine it wants keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    workers: Annotated[int | None, typer.Option(min=1, help="Batches at once; default: a core each.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="For each batch.")] = 1,
    batch_ms: Annotated[float, typer.Option(min=1, help="How long a batch may take.")] = 20,
    wait_ms: Annotated[float, typer.Option(min=1, help="How long an item may wait; more is refused at once.")] = 500,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds after which a request is given up.")] = 10,
    max_items: Annotated[int, typer.Option(min=1, help="Items in a request.")] = 512,
    max_mb: Annotated[float, typer.Option(min=0.01, help="Size of a request.")] = 16,
    max_megapixels: Annotated[float, typer.Option(min=0.01, help="Of all pictures in a request.")] = 64,
    poll: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks at the registry.")] = 1,
    watch: Annotated[
        Path | None, typer.Option(help="Write down here what is to be monitored: vectors, no items.")
    ] = None,
    window: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds that a window of it lasts.")] = 300,
    window_items: Annotated[int, typer.Option(min=0, help="Items after which it ends early; 0: never.")] = 0,
    keep_days: Annotated[float, typer.Option(min=0.01, help="For which windows are kept.")] = 30,
    keep_payloads: Annotated[Path | None, typer.Option(help="Also keep the sampled items themselves, here.")] = None,
    ttl: Annotated[float, typer.Option(min=0.01, help="Hours after which these are deleted.")] = 24,
    canary: Annotated[
        str | None, typer.Option(help="An alias whose version answers a share, until it is sent away or promoted.")
    ] = None,
    shadow: Annotated[str | None, typer.Option(help="An alias whose version is asked, and answers nobody.")] = None,
    share: Annotated[float, typer.Option(help="Of requests that production and such a version both compute.")] = 0.1,
    terms: Annotated[Path | None, typer.Option(help="YAML: how much worse it may be, and how sure that is.")] = None,
    open: Annotated[bool, typer.Option("--open", help="Answer without keys, whoever asks.")] = False,
    log: Annotated[bool, typer.Option("--log/--no-log", help="A line of JSON a request, on stderr.")] = True,
    where: Annotated[str | None, typer.Option("--registry", help="Default: FASTNESS_REGISTRY.")] = None,
) -> None:
    """Serve what an alias names: embeddings, search, classes, over HTTP; switch when it moves, without a pause."""
    from fastness.core.hardware import cores
    from fastness.serving.batching import Limits
    from fastness.serving.release import Power
    from fastness.serving.run import serve as run

    run(
        spec,
        registry=where,
        host=host,
        port=port,
        open=open,
        log=log,
        collection=collection,
        form=form,
        power=Power(workers or max(1, cores() // threads), threads),
        limits=Limits(batch=batch_ms / 1000, wait=wait_ms / 1000),
        timeout=timeout,
        most_items=max_items,
        most_bytes=int(max_mb * (1 << 20)),
        most_pixels=int(max_megapixels * 1e6),
        poll=poll,
        watch=_watching(watch, window, window_items, keep_days, keep_payloads, ttl),
        testing=_testing(spec, canary, shadow, share, terms, watch),
    )


def _watching(
    folder: Path | None, window: float, cut: int, keep: float, payloads: Path | None, ttl: float
) -> Watching | None:
    from fastness.core.errors import BadInput
    from fastness.serving.watch import Watching

    if folder is None and payloads is not None:
        raise BadInput("--keep-payloads: goes with --watch DIR; what is sampled there is kept")
    if folder is None:
        return None
    return Watching(folder, window=window, cut=cut, keep=keep, payloads=payloads, ttl=ttl)


def _testing(
    spec: str, canary: str | None, shadow: str | None, share: float, terms: Path | None, watch: Path | None
) -> Candidacy | None:
    from fastness.core.errors import BadInput
    from fastness.monitoring.trial.terms import Terms, read_terms
    from fastness.serving.router import Candidacy

    if canary is not None and shadow is not None:
        raise BadInput("--canary, --shadow: one candidate at a time; say one of them")
    alias = canary or shadow
    if alias is None:
        if terms is not None:
            raise BadInput("--terms: goes with --canary ALIAS or --shadow ALIAS")
        return None
    if alias == spec.partition("@")[2]:
        raise BadInput(f"--{'canary' if canary else 'shadow'}: '{alias}' is what serves; name another alias")
    stated = Terms() if terms is None else read_terms(terms)
    return Candidacy(alias, shadow is not None, share, stated, watch)
