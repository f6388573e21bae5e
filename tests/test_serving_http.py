"""The service over HTTP: every field of every answer, every refusal, and who is let in."""

from __future__ import annotations

import base64
import hmac
import http.client
import io
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import fastness as fs
from conftest import picture, png
from fastness.registry import Registry
from fastness.registry.controls import ABSTAIN, controlled
from fastness.registry.keys import PREFIX, SCOPES, digests, issue, keys, revoke
from fastness.serving import guard as guards
from fastness.serving.guard import Denied, Guard
from served import COLLECTION, YES, Made, Service, data_url, release, sentences, serving, until

SEARCHES = ("--collection", COLLECTION)


@pytest.fixture(scope="module")
def registry(
    words: list[Made], photos: Made, cells: Made, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """A registry with texts, pictures and rows, without keys."""
    with Registry(tmp_path_factory.mktemp("http") / "registry") as opened:
        release(opened, words[:1], "words")
        release(opened, [photos], "photos")
        release(opened, [cells], "cells", index=False)
        yield opened


@pytest.fixture(scope="module")
def services(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    """A service of each of them, which asks for no key."""
    log, place = tmp_path_factory.mktemp("logs"), registry.address
    small = ("--max-mb", 0.5, "--max-items", 64, "--timeout", 60)
    with ExitStack() as stack:
        yield {
            "words": stack.enter_context(serving("words@production", place, log / "words", *SEARCHES, *small)),
            "photos": stack.enter_context(serving("photos@production", place, log / "photos", *SEARCHES)),
            "cells": stack.enter_context(serving("cells@production", place, log / "cells")),
        }


ROW = {"a": 0.5, "b": -1, "colour": "x"}


def items(name: str) -> list[Any]:
    """Return items that a service takes."""
    return {
        "words": ["red rose wine", "sea salt"],
        "photos": [data_url(picture(3)), data_url(picture(1003))],
        "cells": [ROW, {"a": None, "b": 1e30, "colour": "of none"}],
    }[name]


def raw(name: str) -> list[Any]:
    """Return the same items as the runtime takes them."""
    return [picture(3), picture(1003)] if name == "photos" else items(name)


@pytest.mark.parametrize("name", ["words", "photos", "cells"])
def test_embeddings_are_openais_and_the_exports_own(
    services: dict[str, Service], words: list[Made], photos: Made, cells: Made, name: str
) -> None:
    made = {"words": words[0], "photos": photos, "cells": cells}[name]
    expected = made.encoder.embed(raw(name))
    answer = services[name].ask("/v1/embeddings", {"input": items(name), "model": "whatever", "user": "x"})
    index = None if name == "cells" else answer.headers["fastness-index"]
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"object", "data", "model", "usage", "version", "index"}
    tokens = answer.json["usage"]["total_tokens"]  # of texts; nothing else has any
    assert answer.json["object"] == "list" and answer.json["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert tokens >= 5 if name == "words" else tokens == 0
    assert answer.json["model"] == answer.json["version"] == answer.headers["fastness-version"] == f"{name}@1"
    assert answer.json["index"] == index and answer.headers["fastness-index"] == (index or "none")
    for place, one in enumerate(answer.json["data"]):
        assert (one["object"], one["index"], set(one)) == ("embedding", place, {"object", "index", "embedding"})
    np.testing.assert_allclose([one["embedding"] for one in answer.json["data"]], expected, atol=1e-5)

    told = services[name].ask("/v1/embeddings", {"input": items(name), "encoding_format": "base64"}).json["data"]
    vectors = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in told]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    alone = services[name].ask("/v1/embeddings", {"input": items(name)[1], "dimensions": expected.shape[1]})
    np.testing.assert_allclose(alone.json["data"][0]["embedding"], expected[1], atol=1e-5)
    assert services[name].ask("/v1/embeddings", {"input": items(name), "dimensions": 3}).status == 400
    assert len({services[name].ask("/healthz").status for _ in range(3)} | {answer.status}) == 1


@pytest.mark.parametrize("name", ["words", "photos", "cells"])
def test_classes_and_novelty_are_the_exports_own(
    services: dict[str, Service], words: list[Made], photos: Made, cells: Made, name: str
) -> None:
    made = {"words": words[0], "photos": photos, "cells": cells}[name]
    expected = made.encoder.classify(raw(name))
    answer = services[name].ask("/v1/classify", {"input": items(name)})
    assert answer.status == 200 and set(answer.json) == {"threshold", "results", "version", "index"}
    for place, one in enumerate(answer.json["results"]):
        assert set(one) == {"label", "probability", "abstained", "novelty", "probabilities"}
        assert one["abstained"] == expected.abstained[place]
        assert one["label"] == (None if expected.abstained[place] else expected.labels[place])
        assert list(one["probabilities"]) == list(expected.classes)
        np.testing.assert_allclose([*one["probabilities"].values()], expected.probabilities[place], atol=1e-5)
        assert one["probability"] == max(one["probabilities"].values())
        assert one["novelty"] == pytest.approx(expected.novelty[place], rel=1e-3)
    found = services[name].ask("/v1/anomaly", {"input": items(name)}).json
    assert set(found) == {"threshold", "results", "version", "index"}
    assert found["threshold"] == answer.json["threshold"] == made.encoder.about["head"]["threshold"]
    for one, same in zip(found["results"], answer.json["results"], strict=True):
        assert one == {"novelty": pytest.approx(same["novelty"], rel=1e-3), "abnormal": same["abstained"]}


@pytest.mark.parametrize("name", ["words", "photos"])
def test_a_search_finds_what_the_index_finds(
    services: dict[str, Service], registry: Registry, words: list[Made], photos: Made, name: str
) -> None:
    from fastness.registry.indexes import indexed

    made, written = {"words": words[0], "photos": photos}[name], indexed(registry, name, 1, COLLECTION)
    where = "price < 20" if name == "words" else "label == 'b'"
    with fs.Index.open(written.address) as index:
        for condition in (None, where):
            expected = index.search(made.encoder.embed(raw(name)), 4, condition)
            answer = services[name].ask("/v1/search", {"input": items(name), "k": 4, "where": condition})
            assert answer.status == 200 and set(answer.json) == {"results", "version", "index"}, answer.json
            assert (answer.json["version"], answer.json["index"]) == (f"{name}@1", str(written))
            for hits, wanted in zip(answer.json["results"], expected, strict=True):
                assert [hit["id"] for hit in hits] == [hit.id for hit in wanted]
                assert [hit["metadata"] for hit in hits] == [hit.metadata for hit in wanted]
                np.testing.assert_allclose([h["similarity"] for h in hits], [h.similarity for h in wanted], atol=1e-5)
                assert all(set(hit) == {"id", "similarity", "metadata", "preview"} for hit in hits)
    assert len(services[name].ask("/v1/search", {"input": items(name)[0]}).json["results"][0]) == 10
    hit = answer.json["results"][0][0]
    seen = services[name].ask(hit["preview"])
    assert seen.status == 200 and seen.headers["content-security-policy"] == "default-src 'none'"
    if name == "photos":
        assert seen.headers["content-type"] == "image/webp" and Image.open(io.BytesIO(seen.content)).size == (12, 12)
    else:
        assert seen.headers["content-type"].startswith("text/plain")
        assert seen.content.decode().endswith(f" {int(hit['metadata']['price'])}")  # as `make_words` has it
    for item in ("nothing", "", "..%2F..%2Fetc%2Fpasswd", "%00", "%ff"):
        assert services[name].ask(f"/v1/items/{item}").status == 404, item


def test_it_says_what_it_is(services: dict[str, Service], registry: Registry, words: list[Made]) -> None:
    version = registry.find("words@1")
    about = services["words"].ask("/v1/about")
    assert about.json == {
        "name": "words",
        "alias": "production",
        "version": "words@1",
        "bundle": version.bundle,
        "since": about.json["since"],
        "form": "onnx",
        "modality": "text",
        "sides": {},
        "takes": [],
        "dim": words[0].encoder.dim,
        "classes": ["red", "sea"],
        "collection": COLLECTION,
        "index": about.headers["fastness-index"],
        "items": 240,
        "columns": {"price": "number", "label": "text"} | about.json["columns"],
        "wanted": None,
        "trouble": None,
        "abstains": False,
        "trial": None,
        "can": ["embeddings", "search", "classify", "anomaly"],
    }
    assert about.json["columns"]["price"] == "number" and about.json["since"].startswith("20")
    cells = services["cells"].about()
    assert cells["modality"] == "table" and cells["collection"] is None and cells["index"] is None
    assert cells["takes"] == ["a", "b", "colour"]
    assert cells["can"] == ["embeddings", "classify", "anomaly"] and cells["items"] is None and cells["columns"] == {}
    listed = services["words"].ask("/v1/models").json
    assert listed["object"] == "list" and [model["id"] for model in listed["data"]] == ["words@1"]
    assert set(listed["data"][0]) == {"id", "object", "created", "owned_by"}
    assert services["words"].ask("/healthz").json == {"status": "ok"}
    assert services["words"].ask("/readyz").json == {"ready": True, "behind": False}
    page = services["words"].ask("/")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    described = services["words"].ask("/openapi.json").json
    assert {"/v1/embeddings", "/v1/search", "/v1/classify", "/v1/anomaly", "/metrics"} <= set(described["paths"])


BAD: list[tuple[Any, str]] = [
    (b"", "body"),
    (b"{", "body"),
    (b"\xff\xfe{}", "body"),
    (b'{"input": "\xff"}', "body"),
    (b'{"input": "\\ud800"}', "body"),
    (b"[" * 100_000, "body"),
    (b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}", ""),
    (b"null", ""),
    (b"3", ""),
    ({}, "input"),
    ({"input": None}, "input"),
    ({"input": 3}, "input"),
    ({"input": [3]}, "input"),
    ({"input": [[1, 2]]}, "input"),
    ({"input": []}, "input: is empty"),
    ({"input": ["red", "  "]}, "item 1"),
    ({"input": ["red", {"a": 1}]}, "table and text items in one request"),
    ({"input": {"a": [1]}}, "input"),
    ({"input": {"a": 1}}, "takes texts; got rows as objects"),
    ({"input": "data:image/png;base64,AAAA"}, "takes texts; got pictures"),
    ({"input": ["red"] * 65}, "input: 65 items; at most 64 in a request"),
    ({"input": "red", "side": "left"}, "side 'left'"),
    ({"input": "red", "model": 3}, "model"),
]


def test_heads_abstain_as_long_as_they_are_told_to(services: dict[str, Service], registry: Registry) -> None:
    service, asked = services["cells"], {"input": items("cells")}

    def told(why: str | None) -> list[dict[str, Any]]:
        with registry.database.writing() as connection:
            controlled(connection, "cells", "production", ABSTAIN, why, "ann")
        service.until(lambda about: about["abstains"] == (why is not None))
        found: list[dict[str, Any]] = service.ask("/v1/classify", asked).json["results"]
        return found

    before = service.ask("/v1/classify", asked).json["results"]
    assert told("incident 7") == [{**one, "label": None, "abstained": True} for one in before]
    assert told(None) == before


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/search", "/v1/classify", "/v1/anomaly"])
def test_what_cannot_be_used_is_named(services: dict[str, Service], path: str) -> None:
    for body, said in BAD:
        answer = services["words"].ask(path, body)
        assert answer.status == 400 and said in answer.json["error"]["message"], (body, answer)
        assert set(answer.json["error"]) == {"message", "type", "code", "param"}
        assert answer.json["error"]["type"] == "invalid_request_error" and answer.json["error"]["code"] == 400
        assert "\n" not in answer.json["error"]["message"] and len(answer.content) < 2000
        assert answer.headers["fastness-version"] == "words@1" and answer.headers["x-request-id"]


def test_what_cannot_be_asked_of_a_search_is_named(services: dict[str, Service]) -> None:
    wrong = [
        ({"k": 0}, "k"),
        ({"k": 1001}, "k"),
        ({"k": "many"}, "k"),
        ({"k": 1e400}, "k"),
        ({"where": 3}, "where"),
        ({"where": "cost < 3"}, "nothing is known of 'cost'"),
        ({"where": "price <"}, "write it like"),
        ({"where": "__import__('os').system('true')"}, "write it like"),
        ({"where": "(" * 3000 + "price < 3" + ")" * 3000}, "where"),
        ({"where": " and ".join(["price < 3"] * 3000)}, ""),
        ({"where": "price < '3'"}, "price"),
        ({"where": "price in []"}, ""),
        ({"where": "price == 1e999"}, ""),
        ({"where": "label == '\x00'"}, ""),
    ]
    for more, said in wrong:
        answer = services["words"].ask("/v1/search", {"input": "red", **more})
        assert answer.status == 400 or (said == "" and answer.status == 200), (more, answer)
        assert answer.status == 200 or said in answer.json["error"]["message"], (more, answer)
    for more in ({"encoding_format": "hex"}, {"dimensions": "x"}, {"dimensions": -1}):
        answer = services["words"].ask("/v1/embeddings", {"input": "red", **more})
        assert answer.status == 400 and next(iter(more)) in answer.json["error"]["message"]
    answer = services["cells"].ask("/v1/search", {"input": ROW})
    assert answer.status == 404 and "--collection" in answer.json["error"]["message"]
    assert services["cells"].ask("/v1/items/1").status == 404


def _bomb() -> bytes:
    """Return a small PNG that says it is 30,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_damaged_pictures_are_named_and_stop_nothing(services: dict[str, Service]) -> None:
    good, whole = data_url(picture(1)), png(picture(1))

    def url(content: bytes, head: str = "data:image/png;base64,") -> str:
        return head + base64.b64encode(content).decode()

    for bad, said in (
        (url(_bomb()), "pixels"),
        (url(whole[:-30]), "item 1"),
        (url(b"GIF89a nothing"), "item 1"),
        (url(b""), "item 1: empty file"),
        (url(whole) + "!", "item 1: its base64 is none"),
        (url(whole)[:-3], "item 1"),
        (url(whole).replace(";base64", ""), "item 1: a picture is given as"),
        ("data:image/", "item 1: a picture is given as"),
        ("data:image/png;base64,\u00e9", "item 1: its base64 is none"),
    ):
        answer = services["photos"].ask("/v1/embeddings", {"input": [good, bad]})
        assert answer.status == 400 and said in answer.json["error"]["message"], (bad[:80], answer)
        assert len(answer.content) < 1000
    assert services["photos"].ask("/v1/embeddings", {"input": "https://example.com/a.png"}).status == 400
    jpeg = io.BytesIO()
    Image.fromarray(picture(1, 40)[:, :7]).convert("L").save(jpeg, "JPEG")
    for odd in (url(jpeg.getvalue(), "data:image/jpeg;base64,"), good.replace("data:image", "DATA:IMAGE"), good):
        assert services["photos"].ask("/v1/classify", {"input": odd}).status == 200


def test_pictures_that_would_fill_the_memory_are_refused_undecoded(services: dict[str, Service]) -> None:
    def large(side: int) -> str:
        content = io.BytesIO()
        Image.new("1", (side, side)).save(content, "PNG")
        return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()

    service, size = services["photos"], len(large(7000))
    assert size < 50_000  # and would be 147 MB
    before = _most_memory(service)
    answer = service.ask("/v1/embeddings", {"input": [large(7000)] * 20})
    assert answer.status == 400 and "pictures of 980,000,000 pixels in all" in answer.json["error"]["message"]
    assert _most_memory(service) < before + 100
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: service.ask("/v1/embeddings", {"input": large(3000)}), range(16))]
    assert {answer.status for answer in answers} <= {200, 503}
    assert all("retry-after" in answer.headers for answer in answers if answer.status == 503)
    assert service.ask("/v1/embeddings", {"input": large(3000)}).status == 200  # what was taken is given back


def _most_memory(service: Service) -> int:
    """Return the most megabytes that a service ever had."""
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def test_rows_with_odd_numbers_are_answered_or_named(services: dict[str, Service]) -> None:
    def ask(content: str) -> Any:
        return services["cells"].ask("/v1/classify", content.encode())

    for odd in ("NaN", "Infinity", "-Infinity", "1e308", "-1e400", "1" * 400, "null", '"7"', '""', "true", "-0.0"):
        answer = ask(f'{{"input": {{"a": {odd}, "b": 1, "colour": "x"}}}}')
        assert answer.status in (200, 400), (odd, answer)
        if answer.status == 200:
            assert isinstance(answer.json["results"][0]["novelty"], float), (odd, answer)
    for row, said in (
        ({"a": 1, "b": 2}, "no column 'colour'"),
        ({"a": "many", "b": 2, "colour": "x"}, "item 0"),
        ({}, "no column"),
    ):
        answer = services["cells"].ask("/v1/embeddings", {"input": row})
        assert answer.status == 400 and said in answer.json["error"]["message"], answer
    assert services["cells"].ask("/v1/embeddings", {"input": {**ROW, "more": 1}}).status == 200


def test_there_is_no_other_address_or_method(services: dict[str, Service]) -> None:
    service = services["words"]
    for path in ("/v1/nothing", "/v1", "/docs", "/redoc", "/v1/embeddings/x", "/..%2f..%2fetc", "/" + "x" * 5000):
        answer = service.ask(path)
        assert answer.status == 404 and answer.json["error"]["type"] == "not_found_error", path
    for method, path in (("GET", "/v1/embeddings"), ("DELETE", "/v1/about"), ("PUT", "/v1/search"), ("POST", "/")):
        answer = service.ask(path, b"{}" if method == "PUT" else None, method=method)
        assert answer.status == 405 and answer.json["error"]["code"] == 405, (method, path)


def chunked(service: Service, path: str, parts: Iterator[bytes]) -> Any:
    """Send a body in chunks, without saying how long it is; return status and what was sent before the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    sent = 0
    try:
        connection.putrequest("POST", path)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        try:
            for part in parts:
                connection.send(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                sent += len(part)
            connection.send(b"0\r\n\r\n")
        except OSError:
            sent += 0  # refused before all of it was sent
        return connection.getresponse().status, sent
    finally:
        connection.close()


def test_too_much_is_refused_unread(services: dict[str, Service]) -> None:
    service = services["words"]
    for length in (str(600_000), str(10**15)):
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
            head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode())  # and no byte of the body
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    answer = service.ask("/v1/embeddings", b" " * 600_000)
    assert answer.status == 413 and "more than 524,288 bytes" in answer.json["error"]["message"]
    whole = json.dumps({"input": "red"}).encode()
    assert chunked(service, "/v1/embeddings", iter([whole[:5], whole[5:]])) == (200, len(whole))
    status, _ = chunked(service, "/v1/embeddings", (b" " * 100_000 for _ in range(7)))
    assert status == 413
    assert service.ask("/v1/embeddings", {"input": "red"}).status == 200


def test_a_request_may_ask_for_less_time(services: dict[str, Service]) -> None:
    service = services["words"]
    for said in ("0", "-1", "nan", "soon", ""):
        answer = service.ask("/v1/embeddings", {"input": "red"}, Fastness_Timeout=said)
        assert answer.status == 400 and "Fastness-Timeout" in answer.json["error"]["message"], said
    for said in ("60", "1e400", "1000000"):
        assert service.ask("/v1/embeddings", {"input": "red"}, Fastness_Timeout=said).status == 200
    answer = service.ask("/v1/embeddings", {"input": sentences(60)}, Fastness_Timeout="0.000001")
    assert answer.status == 503 and answer.json["error"]["type"] == "overloaded_error"
    assert int(answer.headers["retry-after"]) >= 1
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:  # who sends nothing is let go
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nFastness-Timeout: 0.1\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 503 ")


def test_more_than_can_be_done_is_refused_and_the_rest_is_right(
    registry: Registry, words: list[Made], tmp_path: Path
) -> None:
    some = sentences(64, seed=9)
    expected = words[0].encoder.embed(some)
    options = ("--wait-ms", 1, "--batch-ms", 1, "--max-items", 64)
    with serving("words@production", registry.address, tmp_path / "log", *options) as service:

        def ask(_: int) -> tuple[int, bool]:
            answer = service.ask("/v1/embeddings", {"input": some})
            if answer.status == 200:
                vectors = [one["embedding"] for one in answer.json["data"]]
                return 200, bool(np.allclose(vectors, expected, atol=1e-5))
            error = answer.json["error"]
            return answer.status, error["type"] == "overloaded_error" and int(answer.headers["retry-after"]) >= 1

        statuses: set[int] = set()
        with ThreadPoolExecutor(32) as pool:
            while statuses != {200, 503}:
                answers = list(pool.map(ask, range(200)))
                assert all(right for _, right in answers)
                statuses |= {status for status, _ in answers}
                assert statuses <= {200, 503}
        assert service.ask("/v1/embeddings", {"input": "red"}).status == 200
        assert service.metric("fastness_refused_total", why="queue") > 0
        waiting = until(lambda: service.metric("fastness_waiting_seconds"), lambda seconds: seconds == 0)
        assert waiting == 0


def test_the_log_says_who_what_and_when_but_nothing_of_what_was_asked(registry: Registry, tmp_path: Path) -> None:
    secretive = "cherryred"
    photo = data_url(picture(77))
    private = Path(registry.address).parent / "private"
    with Registry(private) as own:
        for name, spec in (("photos", "photos@1"), ("words", "words@1")):
            own.add(registry.pull(spec), name)
            own.promote(f"{name}@1", "production", why=YES, override=True)
        key, token = issue(own, "shop")
    for name, body in (("words", f"red wine {secretive}"), ("photos", photo)):
        with serving(f"{name}@production", private, tmp_path / name) as service:
            service.key = token
            assert service.ask("/v1/embeddings", {"input": body}).status == 200
            assert service.ask("/v1/classify", {"input": [body, body]}).status == 200
            assert service.ask("/v1/embeddings", {"input": [body, {"a": body}]}).status == 400
            assert service.ask("/v1/embeddings", {"input": {body: body}}).status == 400
            assert service.ask("/v1/embeddings", f'{{"input": "{body}'.encode()).status == 400
            assert service.ask("/v1/embeddings", {"input": body}, key=token[:-1]).status == 401
            assert service.ask(f"/v1/about?key={token}&text={secretive}").status == 200
            lines, text = service.lines, (service.log / "err").read_text() + (service.log / "out").read_text()
        assert secretive not in text and photo[30:80] not in text
        assert token not in text and token.rpartition("_")[2][:16] not in text
        told = [line for line in lines if line["event"] == "request"]
        assert [line["status"] for line in told] == [
            200,
            200,
            400,
            400,
            400,
            401,
        ]  # of looks at what serves none is written
        assert [line["items"] for line in told][:2] == [1, 2]
        assert {line["key"] for line in told} == {key.id, None} and told[5]["key"] is None
        assert all(
            set(line) == {"time", "event", "id", "route", "status", "items", "seconds", "version", "index", "key"}
            for line in told
        )
        assert len({line["id"] for line in told}) == len(told)
        assert {"switched", "listening"} <= {line["event"] for line in lines}


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked(registry: Registry, tmp_path: Path) -> Iterator[tuple[Registry, str, str]]:
    """A registry of texts with a key; the key's id, and its token."""
    with Registry(tmp_path / "locked") as own:
        own.add(registry.pull("words@1"), "words")
        own.promote("words@1", "production", why=YES, override=True)
        key, token = issue(own, "shop")
        yield own, key.id, token


def test_nobody_passes_without_a_key_that_is_valid_now(
    locked: tuple[Registry, str, str], registry: Registry, tmp_path: Path
) -> None:
    own, name, token = locked
    secret = token.rpartition("_")[2]
    with Registry(tmp_path / "other") as other:
        other.add(registry.pull("words@1"), "words")
        _, foreign = issue(other, "shop")
    one, second = issue(own, "one", scopes=("embed",))
    _, reader = issue(own, "prometheus", scopes=("metrics",))
    flipped = token[:-1] + ("0" if token[-1] != "0" else "1")
    with serving("words@production", own.address, tmp_path / "log") as service:

        def status(header: str | None, path: str = "/v1/embeddings", body: Any = None) -> int:
            told = {} if header is None else {"Authorization": header}
            body = body or (None if path in ("/metrics", "/v1/about") else {"input": "red"})
            answer = service.ask(path, body, **told)
            if answer.status == 401:
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json["error"]["type"] == "authentication_error" and name not in answer.content.decode()
            return answer.status

        wrong = [
            None,
            "",
            "Bearer",
            "Bearer ",
            token,
            f"Basic {token}",
            f"Basic {base64.b64encode(token.encode()).decode()}",
            f"Bearer {foreign}",
            f"Bearer {flipped}",
            f"Bearer {token[:-1]}",
            f"Bearer {token}0",
            f"Bearer {token} x",
            f"Bearer {token.upper()}",
            f"Bearer {PREFIX.upper()}{token[len(PREFIX) :]}",
            f"Bearer {PREFIX}{name}_{secret.upper()}",
            f"Bearer {PREFIX}{name}_",
            f"Bearer {PREFIX}{name}",
            f"Bearer {PREFIX}_{secret}",
            f"Bearer {PREFIX}{one.id}_{secret}",
            f"Bearer {PREFIX}__",
            f"Bearer {PREFIX}",
            f"Bearer {name}_{secret}",
            f"Bearer {secret}",
            f"Bearer {token}, Bearer {token}",
            f"Bearer\t{token}",
            f"Bearer {PREFIX}\xe9_{secret}",
            f"Bearer {'x' * 8000}",
        ]
        for header in wrong:
            for path in ("/v1/embeddings", "/v1/search", "/v1/classify", "/v1/anomaly", "/metrics", "/v1/about"):
                assert status(header, path) == 401, (header, path)
        assert status(f"bearer {token}") == status(f"Bearer  {token}") == status(f"Bearer {token}  ") == 200
        assert service.ask(f"/v1/about?key={token}").status == 401
        with_body = {"input": "red", "key": token, "Authorization": f"Bearer {token}"}
        assert status(None, body=with_body) == 401
        for path, scope in (("/v1/embeddings", "embed"), ("/v1/classify", "classify"), ("/metrics", "metrics")):
            for held, scopes in ((second, {"embed"}), (reader, {"metrics"}), (token, set(SCOPES))):
                assert status(f"Bearer {held}", path) == (200 if scope in scopes else 403), (path, scopes)
        assert status(f"Bearer {second}", "/v1/search") == 403 and status(f"Bearer {reader}", "/v1/about") == 200
        for path in ("/healthz", "/readyz", "/"):
            assert service.ask(path).status == 200

        for key in (name, one.id):
            revoke(own, key)
        until(lambda: status(f"Bearer {token}"), lambda found: found == 401)
        until(lambda: status(f"Bearer {second}"), lambda found: found == 401)
        assert status(f"Bearer {reader}", "/metrics") == 200
        for issued in keys(own):
            revoke(own, issued.id)
        until(lambda: status(f"Bearer {reader}", "/metrics"), lambda found: found == 401)
        assert status(None) == status("Bearer ") == 401  # that the last key is gone opens nothing
        _, fresh = issue(own, "new")
        until(lambda: status(f"Bearer {fresh}"), lambda found: found == 200)
    with serving("words@production", own.address, tmp_path / "again", "--open") as service:
        assert service.ask("/v1/about").status == 401  # --open is for a registry that has never issued one
        assert service.ask("/v1/about", key=fresh).status == 200


def test_a_key_has_its_rate(locked: tuple[Registry, str, str], tmp_path: Path) -> None:
    own, _, token = locked
    _, slow = issue(own, "slow", rate=0.01)
    _, quick = issue(own, "quick", rate=1000)
    with serving("words@production", own.address, tmp_path / "log") as service:
        assert service.ask("/v1/embeddings", {"input": ["red"] * 3}, key=slow).status == 200  # and paid for afterwards
        for path in ("/v1/embeddings", "/v1/classify"):
            answer = service.ask(path, {"input": "red"}, key=slow)
            assert answer.status == 429 and answer.json["error"]["type"] == "rate_limit_error"
            assert 200 < int(answer.headers["retry-after"]) <= 300 and "0.01 items a second" in answer.content.decode()
        assert service.ask("/v1/about", key=slow).status == 200
        for key in (token, quick):
            assert {service.ask("/v1/embeddings", {"input": ["red"] * 9}, key=key).status for _ in range(9)} == {200}


def test_a_service_opened_to_others_wants_keys(registry: Registry, tmp_path: Path, fastness: Any) -> None:
    words = ("serve", "words@production", "--registry", registry.address, "--port", 0)
    for host in ("0.0.0.0", "::", "", "0"):
        ended = fastness(*words, "--host", host)
        assert ended.status == 2 and ended.out == "" and ended.err.count("\n") == 1, ended
        assert "no key was ever issued" in ended.err and "fastness registry key issue" in ended.err
    ended = fastness(*words, "--host", "192.0.2.1", "--open")
    assert ended.status == 2 and ended.err.count("\n") == 1 and "cannot listen there" in ended.err
    with serving("words@production", registry.address, tmp_path / "log", "--host", "0.0.0.0", "--open") as service:
        assert service.ask("/v1/about").status == 200
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = fastness(*words[:-1], taken.getsockname()[1])
    assert ended.status == 2 and ended.err.count("\n") == 1 and "cannot listen there" in ended.err


def test_secrets_are_compared_in_constant_time_whoever_asks(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    really = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return really(one, other)

    with Registry(tmp_path / "keys") as own:
        key, token = issue(own, "shop", scopes=("embed",))
        guard = Guard(open=False)
        guard.learn(digests(own), issued=True)
    monkeypatch.setattr(guards.hmac, "compare_digest", counted)
    assert guard.admit(f"Bearer {token}", "embed") == key
    headers = [None, "", "Basic x", f"Bearer {token}x", f"Bearer {PREFIX}nobody_{token}", f"Bearer {PREFIX}{key.id}_"]
    for number, header in enumerate(headers, 2):
        with pytest.raises(Denied) as denied:
            guard.admit(header, "embed")
        assert denied.value.status == 401 and len(compared) == number
    assert set(compared) == {(32, 32)}  # hashes, whatever was sent
    with pytest.raises(Denied) as denied:
        guard.admit(f"Bearer {token}", "search")
    assert denied.value.status == 403


def test_before_the_keys_are_read_nobody_is_let_in() -> None:
    guard = Guard(open=True)
    with pytest.raises(Denied):
        guard.admit(None, "embed")
    guard.learn({}, issued=False)
    assert guard.admit(None, "embed") is None
    for issued in (True, False):  # what was locked once stays so
        guard.learn({}, issued)
        with pytest.raises(Denied):
            guard.admit(None, "embed")


@given(st.text(st.characters(max_codepoint=255), max_size=120), st.sampled_from(["", "Bearer ", f"Bearer {PREFIX}"]))
def test_no_header_that_is_made_up_opens_anything(text: str, head: str) -> None:
    with pytest.raises(Denied) as denied:
        Guard(open=False).admit(head + text, None)
    assert denied.value.status == 401
