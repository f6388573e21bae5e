"""Load for a server on this machine, in a process of its own, cheap enough to share its cores.

``serving_load.py closed PORT BODIES WARM SECONDS SEED CLIENTS``: so many clients, each asks again as soon as it was
answered; one that is refused waits as long as ``Retry-After`` says.

``serving_load.py open PORT BODIES WARM SECONDS SEED RATE``: so many requests a second on average, at random moments
(Poisson), however fast the answers come; a request's time counts from when it was due.

``serving_load.py null PORT``: the server that answers at once, whatever it is asked.

BODIES is a JSON list of bodies, asked in random order. The first WARM seconds are not counted. Prints one JSON object.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import uvloop

PATH, MOST, PATIENCE, IDLE = "/v1/embeddings", 4000, 30.0, 2.0  # connections; seconds for a late answer; seconds unused


class Tally:
    """What was answered within the seconds that count."""

    def __init__(self, warm: float, seconds: float) -> None:
        self.start = time.perf_counter() + warm
        self.end = self.start + seconds
        self.seconds = seconds
        self.took: list[float] = []
        self.refused: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.finished = self.every = self.bare = self.waiting = 0
        self.odd: list[str] = []

    def answered(self, due: float, status: int, head: bytes, body: bytes) -> None:
        """Count an answer."""
        now = time.perf_counter()
        self.every += status == 200
        if not (status == 200 and b'"embedding"' in body):
            if status == 200:
                self.errors["no embedding in it"] += 1
            elif status != 503 and len(self.odd) < 5:
                self.odd.append(f"{status}: {body[:300]!r}")
        if status == 503 and b"\r\nretry-after:" not in head.lower():
            self.bare += 1
        if status == 200 and self.start <= now < self.end:
            self.finished += 1
        if self.start <= due < self.end:
            self.statuses[str(status)] += 1
            (self.took if status == 200 else self.refused).append(now - due)

    def said(self, busy: float) -> dict:
        """Return the figures; ``busy`` is the processor time that this process took, as a share of one core."""
        return {
            "seconds": self.seconds,
            "throughput": round(self.finished / self.seconds, 1),
            **{f"p{q}_ms": _quantile(self.took, q) for q in (50, 95, 99)},
            "statuses": dict(self.statuses),
            "refused_p99_ms": _quantile(self.refused, 99),
            "refused_without_retry_after": self.bare,
            "errors": dict(self.errors),
            "odd": self.odd,
            "answered_with_warm_up": self.every,
            "generator_cores": round(busy, 3),
        }


def _quantile(seconds: list[float], percent: int) -> float | None:
    return round(1000 * float(np.percentile(seconds, percent)), 2) if seconds else None


class Connection(asyncio.Protocol):
    """One connection that is kept; one request at a time."""

    def __init__(self, tally: Tally, done) -> None:
        self._tally, self._done = tally, done
        self._transport = None
        self._found = b""
        self._due: float | None = None
        self.used = 0.0

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport) -> None:
        self._transport = transport

    def ask(self, request: bytes, due: float) -> None:
        """Send a request that was due at some time."""
        self._due = due
        self._tally.waiting += 1
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._found = found = self._found + data if self._found else data
        cut = found.find(b"\r\n\r\n")
        if cut < 0:
            return
        head = found[: cut + 2]
        at = head.lower().find(b"\r\ncontent-length:")
        length = int(head[at + 17 : head.find(b"\r\n", at + 2)]) if at >= 0 else 0
        if len(found) < cut + 4 + length or self._due is None:
            return
        due, self._due, self._found = self._due, None, b""
        self.used = time.perf_counter()
        self._tally.waiting -= 1
        status = int(head[9:12])
        self._tally.answered(due, status, head, found[cut + 4 :])
        self._done(self, _seconds(head) if status == 503 else 0.0)

    def connection_lost(self, error) -> None:
        if self._due is not None:
            self._due = None
            self._tally.waiting -= 1
            self._tally.errors[type(error).__name__ if error else "closed without an answer"] += 1
            self._done(self, 0.0)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _seconds(head: bytes) -> float:
    """Return what ``Retry-After`` says."""
    at = head.lower().find(b"\r\nretry-after:")
    return float(head[at + 14 : head.find(b"\r\n", at + 2)]) if at >= 0 else 0.0


async def closed(port: int, requests, tally: Tally, clients: int, lots) -> None:
    """So many clients, until the time is over and the last answers are there."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    async def renew() -> None:
        await asyncio.sleep(0.1)
        try:
            _, fresh = await loop.create_connection(lambda: Connection(tally, done), "127.0.0.1", port)
        except OSError as error:
            tally.errors[f"connecting: {type(error).__name__}"] += 1
            kept.add(asyncio.ensure_future(renew()))
            return
        again(fresh)

    def again(connection: Connection) -> None:
        now = time.perf_counter()
        if now >= tally.end:
            connection.close()
            if not tally.waiting and not over.done():
                over.set_result(None)
        elif connection.open:
            connection.ask(next(requests), now)
        else:
            kept.add(asyncio.ensure_future(renew()))

    def done(connection: Connection, wait: float) -> None:
        if wait:
            loop.call_later(wait, again, connection)
        else:
            again(connection)

    kept: set[asyncio.Future] = set()
    for _ in range(clients):
        _, connection = await loop.create_connection(lambda: Connection(tally, done), "127.0.0.1", port)
        loop.call_later(float(lots.uniform(0, 0.2)), again, connection)  # or they would all come in step
    loop.call_later(tally.end - time.perf_counter() + PATIENCE, lambda: over.done() or over.set_result(None))
    await over


async def opened(port: int, requests, tally: Tally, rate: float, lots) -> None:
    """So many requests a second, at random moments."""
    loop = asyncio.get_running_loop()
    idle: list[Connection] = []
    kept: set[asyncio.Future] = set()

    def done(connection: Connection, _: float) -> None:
        if connection.open:
            idle.append(connection)

    async def fresh(due: float) -> None:
        try:
            _, connection = await loop.create_connection(lambda: Connection(tally, done), "127.0.0.1", port)
            connection.ask(next(requests), due)
        except OSError as error:
            tally.errors[f"connecting: {type(error).__name__}"] += 1

    due = time.perf_counter()
    while due < tally.end:
        due += float(lots.exponential(1 / rate))
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        while idle and not (idle[-1].open and time.perf_counter() - idle[-1].used < IDLE):
            idle.pop().close()  # a server may be about to close it
        if idle:
            idle.pop().ask(next(requests), due)
        elif tally.waiting < MOST:
            task = asyncio.ensure_future(fresh(due))
            kept.add(task)
            task.add_done_callback(kept.discard)
        else:
            tally.errors["not sent: too many are waiting"] += 1
    given_up = time.perf_counter() + PATIENCE
    while tally.waiting and time.perf_counter() < given_up:
        await asyncio.sleep(0.05)


def forever(listed: list[bytes], lots):
    """Yield requests in random order, without end."""
    while True:
        for place in lots.permutation(len(listed)):
            yield listed[place]


async def null(port: int) -> None:
    """Answer at once, whatever comes; a request ends where nothing more is there to read."""
    body = json.dumps({"data": [{"embedding": "A" * 2048}]}).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    class Null(asyncio.Protocol):
        def connection_made(self, transport) -> None:
            self._transport, self._found = transport, b""

        def data_received(self, data: bytes) -> None:
            self._found += data
            head, _, rest = self._found.partition(b"\r\n\r\n")
            if len(rest) >= int(head.rpartition(b"Content-Length: ")[2] or 0):
                self._found = b""
                self._transport.write(answer)

    server = await asyncio.get_running_loop().create_server(Null, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Ask, and say how it went."""
    if sys.argv[1] == "null":
        uvloop.run(null(int(sys.argv[2])))
        return
    way, port, bodies, warm, seconds, seed, amount = sys.argv[1:]
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: "
    encoded = [body.encode() for body in json.loads(Path(bodies).read_text(encoding="utf-8"))]
    listed = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in encoded]
    lots = np.random.default_rng(int(seed))
    tally = Tally(float(warm), float(seconds))
    began = time.perf_counter(), time.process_time()
    if way == "open":
        uvloop.run(opened(int(port), forever(listed, lots), tally, float(amount), lots))
    else:
        uvloop.run(closed(int(port), forever(listed, lots), tally, int(amount), lots))
    busy = (time.process_time() - began[1]) / (time.perf_counter() - began[0])
    if tally.waiting:
        tally.errors["no answer in time"] += tally.waiting
    print(json.dumps(tally.said(busy)))


main()
