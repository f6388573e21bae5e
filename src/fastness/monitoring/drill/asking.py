"""Clients of a drill: they ask a service without pause, of items that may become others from one moment to the next."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from fastness.core.seeds import numpy_generator
from fastness.monitoring.drill.rehearsed import Item

_TIMEOUT = 180.0  # seconds
_PAUSE = 0.2  # seconds between two requests of a client: service and monitor are to keep up with them


class Asking:
    """Clients, each a thread.

    Args:
        address: ``host:port``.
        routes: that are asked in turn.
        items: what is asked about at first.
        clients: how many.
        batch: items in a request.

    Attributes:
        items: what is asked about from now on.
        statuses: how often each was answered; 0: not at all.
    """

    def __init__(self, address: str, routes: Sequence[str], items: Sequence[Item], clients: int, batch: int) -> None:
        self.items, self.statuses = items, Counter[int]()
        self._address, self._routes, self._batch = address, routes, batch
        self._over, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_TIMEOUT)

    def _ask(self, number: int) -> None:
        lots, turn = numpy_generator(0, "asking", number), number
        while not self._over.wait(_PAUSE):
            items, turn = self.items, turn + 1
            rows = lots.integers(len(items), size=self._batch)
            status = post(
                self._address, self._routes[turn % len(self._routes)], {"input": [items[row] for row in rows]}
            )
            with self._lock:
                self.statuses[status] += 1


def post(address: str, path: str, body: dict[str, Any]) -> int:
    """Return the status that a service answers with, 0 if it does not answer."""
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
