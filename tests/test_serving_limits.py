"""What a service bears: bodies that are made to be costly, a log that cannot be written, searches that are slow."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fastness.core.errors import BadInput
from fastness.registry import Registry
from fastness.registry.keys import issue, revoke
from fastness.serving.app import make_app
from fastness.serving.batching import Overloaded
from fastness.serving.latency import Latency
from fastness.serving.release import Calls
from fastness.serving.service import Service, Settings
from fastness.serving.telemetry import Telemetry
from fastness.serving.wanted import Embeddings, Search, read
from served import COLLECTION, PATIENCE, YES, Made, release, sentences

MOST = 512


@pytest.fixture(scope="module")
def registry(words: list[Made], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with two versions of texts, each with an index."""
    with Registry(tmp_path_factory.mktemp("limits") / "registry") as opened:
        release(opened, words[:2], "words")
        yield opened


@asynccontextmanager
async def started(registry: Registry, telemetry: Telemetry, poll: float = 3600) -> AsyncIterator[tuple[Service, Any]]:
    """Yield a service in this process, and a client of it."""
    service = Service(registry, Settings("words", "production", COLLECTION, poll=poll), telemetry)
    watches = await service.start()
    transport = httpx.ASGITransport(make_app(service))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=PATIENCE) as client:
            yield service, client
    finally:
        await service.stop(watches)


async def until(holds: Any) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


# -- bodies ------------------------------------------------------------------------------------------------------------

_BODIES = """
import resource, sys
from fastness.core.errors import BadInput
from fastness.serving.wanted import Search, read

MB = 1 << 20
lists, cells = "[]," * (4 * MB // 3), ",".join(f'"{i}":[]' for i in range(400_000))
row = "{" + cells[: cells.rindex(",")] + "}"
short = "{" + ",".join(f'"{i}":[]' for i in range(1000)) + "}"
bodies = {
    "lists": '{"input": [' + lists + "[]]}",
    "texts": '{"input": [' + '"a",' * MB + '"a"]}',
    "row": '{"input": ' + row + "}",
    "rows": '{"input": [' + ",".join([short] * 400) + "]}",
    "ids": '{"input": "x", "ids": [' + lists + "[]]}",
    "metadata": '{"input": "x", "metadata": [' + lists + "[]]}",
    "names": '{"input": "x", "metadata": [' + row + "]}",
    "where": '{"input": "x", "where": "x in [' + "0," * 2 * MB + '0]"}',
    "hits": '{"input": [' + '"a",' * 99 + '"a"], "k": 101}',
    "deep": "[" * 4 * MB,
}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600 * MB, used + 600 * MB))
for name, body in bodies.items():
    try:
        read(Search, body.encode(), 512)
    except BadInput as error:
        print(name, error)
"""


def test_no_body_costs_more_than_a_few_times_its_bytes() -> None:
    ended = subprocess.run([sys.executable, "-c", _BODIES], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-1000:]
    told = dict(line.split(" ", 1) for line in ended.stdout.splitlines())
    expected = {
        "lists": "input: 1398102 items; at most 512 in a request",
        "texts": "input: 1048577 items; at most 512 in a request",
        "row": "input",
        "rows": "input",
        "ids": "ids: 1398102 items; at most 512 in a request",
        "metadata": "metadata: 1398102 items; at most 512 in a request",
        "names": "metadata.0: An object should have at most 16 names",
        "where": "where: String should have at most 4000 characters",
        "hits": "k: 101 for 100 items is 10,100 hits; at most 10,000 in a request",
        "deep": "body: Invalid JSON: recursion limit exceeded",
    }
    assert set(told) == set(expected)
    assert all(told[name].startswith(said) and len(told[name]) < 200 for name, said in expected.items()), told


def test_as_much_as_is_allowed_is_read() -> None:
    rows = [{f"c{i}": [None, True, 1, 0.5, "x", 2**70, -1e300][i % 7] for i in range(300)}] * MOST
    body = {"input": rows, "ids": ["x" * 200] * MOST, "metadata": [{f"n{i}": i for i in range(16)}] * MOST, "k": 19}
    found = read(Search, json.dumps({**body, "where": "x" * 4000}).encode(), MOST)
    assert found.items == rows and found.ids == body["ids"] and found.metadata == body["metadata"]
    assert read(Embeddings, b'{"input": {"a": NaN}}', MOST).items[0]["a"] != 0  # as Python's clients write it
    with pytest.raises(BadInput, match="input"):
        read(Embeddings, b'{"input": [{"a": 1}, {"a": {}}]}', MOST)


@pytest.mark.parametrize(
    "where", ["price < 'a\nb'", "x" * 4000, "`" + "x" * 3000 + "` < 3", "not " * 900 + "price", "9" * 4000]
)
def test_what_is_wrong_with_a_condition_is_said_in_a_line(where: str) -> None:
    from fastness.core.conditions import parse

    with pytest.raises(BadInput) as refused:
        parse(where, {"price": "number"}, "where")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 700


# -- a log that cannot be written --------------------------------------------------------------------------------------


def test_a_log_that_cannot_be_written_loses_no_answer_and_ends_no_watch(registry: Registry) -> None:
    key, token = issue(registry, "shop")

    async def main(telemetry: Telemetry) -> None:
        async with started(registry, telemetry, poll=0.05) as (service, client):

            async def status() -> int:
                header = {"Authorization": f"Bearer {token}"}
                return (await client.post("/v1/embeddings", json={"input": "red"}, headers=header)).status_code

            assert await status() == 200
            registry.remove("words", "production", why=YES)  # of which the watch wants to tell
            await until(lambda: service.live.trouble)
            before = telemetry.lost._value.get()
            registry.promote("words@2", "production", why=YES, override=True)
            await until(lambda: service.live.now is not None and service.live.now.version == "words@2")
            assert await status() == 200 and telemetry.lost._value.get() > before > 0
            revoke(registry, key.id)
            async with asyncio.timeout(PATIENCE):
                while await status() != 401:
                    await asyncio.sleep(0.01)
            registry.promote("words@1", "production", why=YES, override=True)

    with Path("/dev/full").open("wb", buffering=0) as full:
        stream = io.TextIOWrapper(full, write_through=True)
        asyncio.run(main(Telemetry(stream)))
    telemetry = Telemetry(stream)  # which is closed
    telemetry.beside().log("anything")
    assert b"fastness_log_lost_total 1.0" in telemetry.exposed()


# -- what a release knows from the start -------------------------------------------------------------------------------


def test_a_fresh_release_takes_what_it_can_do_in_time(registry: Registry) -> None:
    header = {"Authorization": f"Bearer {issue(registry, 'large')[1]}"}

    async def main() -> None:
        async with started(registry, Telemetry(None)) as (service, client):
            assert service.live.now is not None and service.live.now.search is not None
            lines = [service.live.now.side("text", None).batcher._latency, service.live.now.search.searches._latency]
            assert all(line.pace != Latency().pace for line in lines)
            texts = [" ".join(sentences(8, seed)) for seed in range(MOST)]  # at 2 ms a token a minute
            answer = await client.post("/v1/embeddings", json={"input": texts}, headers=header)
            assert answer.status_code == 200 and len(answer.json()["data"]) == MOST

    asyncio.run(main())


# -- searches ----------------------------------------------------------------------------------------------------------


def test_calls_wait_no_longer_than_is_borne_and_what_is_given_up_is_not_counted() -> None:
    opened = threading.Event()

    async def main() -> None:
        calls = Calls(2, 0.5, "test")
        calls.learn(10, 1.0)  # a tenth of a second each

        def call(number: int) -> int:
            assert opened.wait(PATIENCE)
            return number

        running = [asyncio.create_task(calls.make(1, call, number)) for number in range(2)]
        await until(lambda: calls._running == 2)
        calls.check_room(10)
        waiting = [asyncio.create_task(calls.make(1, call, number)) for number in range(2, 12)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:  # ten to begin, and half of two
            calls.check_room(10)
        assert refused.value.reason == "queue" and refused.value.after == pytest.approx(0.3)
        for task in waiting[4:]:
            task.cancel()
        await until(lambda: calls._waiting == 4)
        calls.check_room(10)
        with pytest.raises(Overloaded) as refused:
            calls.check_room(0.2)
        assert refused.value.reason == "deadline"
        opened.set()
        assert await asyncio.gather(*running, *waiting[:4]) == list(range(6))
        await until(lambda: calls._calls == 0)
        assert calls._waiting == calls._running == 0

        def broken() -> None:
            raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            await calls.make(1, broken)
        calls.learn(1, 1e6)
        calls.check_room(0)  # nothing waits, whatever it took before
        calls.pool.shutdown()
        with pytest.raises(RuntimeError):
            await calls.make(1, call, 1)
        assert calls._calls == calls._waiting == calls._running == 0

    asyncio.run(main())


def test_searches_that_would_come_late_are_refused_at_once_and_previews_are_shown(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()
    header = {"Authorization": f"Bearer {issue(registry, 'searcher')[1]}"}

    async def main() -> None:
        async with started(registry, Telemetry(None)) as (service, client):
            now = service.live.now
            assert now is not None and now.search is not None
            really = now.search.find

            def slow(*told: Any) -> Any:
                assert opened.wait(PATIENCE)
                return really(*told)

            async def search() -> httpx.Response:
                return await client.post("/v1/search", json={"input": "red"}, headers=header)

            first = (await search()).json()
            now.search.searches.learn(1, 1000.0)
            monkeypatch.setattr(now.search, "find", slow)
            running = [asyncio.create_task(search()) for _ in range(2)]
            await until(lambda: now.search is not None and now.search.searches._running == 2)
            embedded = service.telemetry.batch_items._sum.get()
            late = await search()
            assert late.status_code == 503 and int(late.headers["retry-after"]) >= 1
            assert service.telemetry.batch_items._sum.get() == embedded  # it was not even embedded
            assert service.telemetry.refused.labels("queue")._value.get() == 1
            shown = await client.get(first["results"][0][0]["preview"], headers=header)
            assert shown.status_code == 200
            assert (await client.post("/v1/embeddings", json={"input": "red"}, headers=header)).status_code == 200
            opened.set()
            for answer in await asyncio.gather(*running):
                assert answer.status_code == 200 and answer.json()["results"] == first["results"]
            assert (await search()).status_code == 200

    asyncio.run(main())


def test_every_thread_has_opened_the_index_before_the_first_search(registry: Registry) -> None:
    async def main() -> None:
        async with started(registry, Telemetry(None)) as (service, _):
            now = service.live.now
            assert now is not None and now.search is not None
            before = list(now.search._opened)
            vectors = np.eye(8, len(now.side("text", None).encoder.embed(["red"])[0]), dtype=np.float32)
            await asyncio.gather(*(now.search.nearest(vectors, 3, None) for _ in range(8)))
            assert now.search._opened == before and len(before) == now.search.searches.threads

    asyncio.run(main())
