"""What every request passes on its way in and out: its key, its size, its errors, its headers, its line in the log."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from fastness.core.errors import BadInput, Failure
from fastness.registry.keys import Key
from fastness.serving.batching import Overloaded, Unreadable
from fastness.serving.guard import Denied
from fastness.serving.release import Release
from fastness.serving.router import Made
from fastness.serving.service import Service

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
}
_WHY = {
    "queue": "what waits would take too long",
    "deadline": "it could not be done in time",
    "pixels": "too many pictures are in memory",
    "requests": "too many requests are under way",
}
_numbers = itertools.count(int.from_bytes(os.urandom(6)))


class Refusal(Exception):
    """A request cannot be answered for a reason of HTTP's own.

    Attributes:
        status: of the response.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


@dataclass
class Asked:
    """A request that was let in.

    Attributes:
        request: as it came.
        key: by which it was let in, if one was asked for.
        body: its bytes.
        timeout: seconds that its answer may take.
        release: what answers it.
        unreadable: whether it was refused for an item that cannot be read.
        items: how many it asks about, once that is known.
        pixels: of its pictures, which are in memory.
        made: where what is made of its items is put, if it is to be compared with what another version makes of them.
        aside: whether it is asked beside another that is its double: then it is not written down again.
    """

    request: Request
    key: Key | None
    body: bytes
    timeout: float
    release: Release | None = None
    unreadable: bool = False
    items: int = 0
    pixels: int = 0
    made: list[Made] | None = None
    aside: bool = False


Handler = Callable[[Asked], Awaitable[Response]]


class Doors:
    """Makes an endpoint of a handler.

    Args:
        service: whose.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._under_way = 0

    def endpoint(
        self, route: str, scope: str | None, handler: Handler, asks: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that lets in, answers, and writes down.

        Args:
            route: what it is called in counters.
            scope: that a key must have; ``None``: any key will do.
            handler: answers.
            asks: whether something is to be computed. It is refused unread when too much waits; and what does not ask,
                pages and scrapers every few seconds, is worth a line in the log only if it goes wrong.
        """
        telemetry = self._service.telemetry

        async def answered(request: Request) -> Response:
            started, number = time.perf_counter(), f"{next(_numbers):012x}"
            asked = Asked(request, None, b"", self._service.settings.timeout)
            self._under_way += 1
            try:
                response = await self._answer(asked, scope, handler, asks)
            finally:
                self._under_way -= 1
                self._service.pixels -= asked.pixels
            seconds = time.perf_counter() - started
            headers, release = response.headers, asked.release
            headers["X-Request-Id"] = number
            if release is not None:
                headers["Fastness-Version"] = release.version
                headers["Fastness-Index"] = release.index or "none"
            telemetry.requests.labels(route, str(response.status_code)).inc()
            telemetry.seconds.labels(route).observe(seconds)
            if asked.items and response.status_code == 200:
                telemetry.items.labels(route).inc(asked.items)
            if asks:
                self._write_down(route, response.status_code, seconds, asked)
            elif response.status_code < 400:
                return response
            telemetry.log(
                "request",
                id=number,
                route=route,
                status=response.status_code,
                items=asked.items,
                seconds=round(seconds, 5),
                version=release and release.version,
                index=release and release.index,
                key=asked.key and asked.key.id,
            )
            return response

        return answered

    async def _answer(self, asked: Asked, scope: str | None, handler: Handler, asks: bool) -> Response:
        try:
            asked.key = self._service.guard.admit(asked.request.headers.get("authorization"), scope)
            if self._under_way > self._service.settings.most_requests:
                raise Overloaded("requests", 1.0)
            if asks and (release := self._service.live.now) is not None:
                release.check_room()
            asked.timeout = _timeout(asked.request.headers.get("fastness-timeout"), asked.timeout)
            async with asyncio.timeout(asked.timeout):
                asked.body = await _body(asked.request, self._service.settings.most_bytes)
                with self._service.live.held() as asked.release:
                    router = self._service.router if asks else None
                    return await (handler(asked) if router is None else router.answer(asked, handler))
        except Denied as error:
            return refused(error.status, str(error), error.after)
        except TimeoutError:
            return self._overloaded(Overloaded("deadline", 1.0))
        except Overloaded as error:
            return self._overloaded(error)
        except Refusal as error:
            return refused(error.status, str(error))
        except BadInput as error:
            asked.unreadable = isinstance(error, Unreadable)
            return refused(400, str(error))
        except Failure as error:
            return refused(503, str(error), 1.0)
        except ClientDisconnect:
            return refused(499, "the client has gone")
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told, and what it is stands in the log
            self._service.telemetry.log("broken", path=asked.request.url.path, why=_where(error))
            return refused(500, "something is wrong here; the log says what")

    def _write_down(self, route: str, status: int, seconds: float, asked: Asked) -> None:
        """Count a question where traffic is watched; one that was refused unread for what would have answered it."""
        if self._service.watch is not None:
            release = asked.release or self._service.live.now
            self._service.watch.count(route, status, seconds, asked.items, release, asked.unreadable)

    def _overloaded(self, error: Overloaded) -> Response:
        self._service.telemetry.refused.labels(error.reason).inc()
        return refused(503, f"too much to do ({_WHY[error.reason]}); try again", max(error.after, 1.0))


def _where(error: BaseException) -> list[str]:
    """Return what kind of error it was and where; not what it says, which may be what was asked."""
    cause = error.__cause__ or error
    return [
        type(cause).__name__,
        *(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(cause.__traceback__)),
    ]


def refused(status: int, said: str, after: float | None = None) -> Response:
    """Return an error, in OpenAI's form."""
    told = {"message": said, "type": _KINDS.get(status, "invalid_request_error"), "code": status, "param": None}
    headers = {} if not after else {"Retry-After": str(max(1, math.ceil(after)))}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return answer({"error": told}, status, headers)


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON; arrays of NumPy are lists."""
    content = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status, headers, media_type="application/json")


def _timeout(said: str | None, most: float) -> float:
    if said is None:
        return most
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise BadInput(f"Fastness-Timeout: '{said[:40]}' is no number of seconds above 0")
    return min(seconds, most)


async def _body(request: Request, most: int) -> bytes:
    """Return a request's body, of which no more is read than is allowed."""
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or int(stated) > most:
        raise Refusal(413, f"the request has more than {most:,} bytes; ask about fewer items at a time")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Refusal(413, f"the request has more than {most:,} bytes; ask about fewer items at a time")
        parts.append(part)
    return b"".join(parts)
