"""``fastness monitor``."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from fastness.cli import options
from fastness.cli.registry import Where


def monitor(
    spec: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="What is watched.")],
    watch: Annotated[Path, typer.Option(help="Folder in which 'fastness serve --watch' keeps windows.")],
    policy: Annotated[Path, typer.Option(help="YAML: what counts as wrong, what is done; see docs/watching.md.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 10,
    once: Annotated[bool, typer.Option("--once", help="Look once, do what is due, and end.")] = False,
    where: Where = None,
    json: options.Json = False,
) -> None:
    """Judge what an alias serves, window by window, and do what the policy says when something is wrong."""
    from fastness.monitoring.monitor import Monitor
    from fastness.monitoring.policy import Policy
    from fastness.registry import Registry

    with Registry(where, create=False) as opened:
        watching = Monitor(opened, spec, watch, Policy.load(policy), say=_say)
        if once:
            found = watching.look()
            taken = watching.act()
            if json:
                options.print_json({"windows": [vars(judged) for judged in found], "actions": taken})
            else:
                print(f"{len(found)} judged, {taken} actions taken up")
            return
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        watching.run(every, stop)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
