"""Serve until told to stop."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from fastness.core.errors import BadInput
from fastness.registry import Registry
from fastness.registry.keys import keys
from fastness.serving.service import Service, Settings
from fastness.serving.telemetry import Telemetry

_IDLE = 75  # seconds that a connection is kept while nothing is asked: longer than load balancers do
_BACKLOG = 2048  # connections that wait to be taken
_GRACE = 30  # seconds for what is under way when it is told to stop


def serve(
    spec: str,
    *,
    registry: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    open: bool = False,
    log: bool = True,
    **settings: Any,
) -> None:
    """Serve what an alias names over HTTP, and follow it, until a signal says to stop (SIGINT, SIGTERM).

    Args:
        spec: ``NAME@ALIAS``.
        registry: a folder or ``postgresql://…``; default: ``FASTNESS_REGISTRY``.
        host, port: where it listens; port 0 is any that is free.
        open: answer without keys also beyond this machine, as long as none was ever issued.
        log: write a line of JSON a request to stderr.
        **settings: further fields of `service.Settings`: ``collection``, ``form``, ``timeout`` …

    Raises:
        BadInput: there is nothing by that name, no key to let anyone in, or the address is taken.
        Failure: what the alias names could not be loaded.
    """
    name, _, alias = spec.partition("@")
    if not name or not alias or alias.isdecimal():
        raise BadInput(f"'{spec}': a service follows an alias: fastness serve {name or 'NAME'}@production")
    here = _loopback(host)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # batches are already computed side by side
    with Registry(registry, create=False) as opened:
        if not (here or open or keys(opened)):
            said = f"issue a key (fastness registry key issue WHO), or say --open: anyone who reaches {host} may ask"
            raise BadInput(f"{spec}: no key was ever issued; {said}")
        service = Service(
            opened, Settings(name, alias, open=open or here, **settings), Telemetry(sys.stderr if log else None)
        )
        with _listening(host, port) as listener:
            _run(_serving(service, listener))


async def _serving(service: Service, listener: socket.socket) -> None:
    import uvicorn

    from fastness.serving.app import make_app

    watches = await service.start()
    try:
        config = uvicorn.Config(
            make_app(service),
            lifespan="off",
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=_GRACE,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_IDLE,
        )
        host, port = listener.getsockname()[:2]
        release = service.live.now
        assert release is not None
        _take(listener)
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        service.telemetry.log("listening", address=address, version=release.version, index=release.index)
        print(f"serving {release.version} at {address}", flush=True)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):  # the server handles them, then hands them on to these
                signal.signal(number, lambda *_: None)
        await uvicorn.Server(config).serve([listener])
    finally:
        await service.stop(watches)


def _run(main: Any) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise _elsewhere(host, port, error) from None
    return listener


def _take(listener: socket.socket) -> None:
    """Let connections come: who reads that it serves is not turned away, and of two at one address one is too late."""
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _elsewhere(host, port, error) from None


def _elsewhere(host: str, port: int, error: Exception) -> BadInput:
    return BadInput(f"{host}:{port}: cannot listen there ({error}); say another --host or --port")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
