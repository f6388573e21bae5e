"""What others bring along: OpenAI's client, a fuzzer that reads the description, and Prometheus."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import picture
from fastness.registry import Registry
from fastness.registry.keys import issue
from served import COLLECTION, Made, Service, data_url, release, sentences, serving, until


@pytest.fixture(scope="module")
def registry(words: list[Made], photos: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with texts and pictures."""
    with Registry(tmp_path_factory.mktemp("clients") / "registry") as opened:
        release(opened, words[:1], "words")
        release(opened, [photos], "photos", index=False)
        yield opened


@pytest.fixture(scope="module")
def token(registry: Registry) -> str:
    """A key for everything."""
    return issue(registry, "clients")[1]


@pytest.fixture(scope="module")
def service(registry: Registry, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of texts that wants a key."""
    log = tmp_path_factory.mktemp("log")
    with serving("words@production", registry.address, log, "--collection", COLLECTION) as running:
        running.key = token
        yield running


def test_openais_client_gets_vectors(
    service: Service, registry: Registry, token: str, words: list[Made], photos: Made, tmp_path: Path
) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key=token, max_retries=0)
    some, expected = sentences(40, seed=3), words[0].encoder.embed(sentences(40, seed=3))
    for more in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}, {"dimensions": 16}):
        answer = client.embeddings.create(model="words", input=some, **more)
        found = [one.embedding for one in answer.data]
        if more.get("encoding_format") == "base64":
            found = [np.frombuffer(base64.b64decode(one), "<f4") for one in found]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert [one.index for one in answer.data] == list(range(40)) and answer.model == "words@1"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens >= 40
    assert client.embeddings.create(model="x", input=some[0]).data[0].embedding == pytest.approx(expected[0], abs=1e-5)
    assert [model.id for model in client.models.list()] == ["words@1"]
    with pytest.raises(openai.BadRequestError, match="input: is empty"):
        client.embeddings.create(model="words", input=[])
    with pytest.raises(openai.AuthenticationError, match="no valid key"):
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="sk-none", max_retries=0).models.list()
    _, narrow = issue(registry, "narrow", scopes=("search",))
    with serving("photos@production", registry.address, tmp_path / "photos") as pictures:
        client = openai.OpenAI(base_url=f"{pictures.url}/v1", api_key=token, max_retries=0)
        answer = client.embeddings.create(model="photos", input=[data_url(picture(5)), data_url(picture(6, 30))])
        expected = photos.encoder.embed([picture(5), picture(6, 30)])
        np.testing.assert_allclose([one.embedding for one in answer.data], expected, atol=1e-5)
        with pytest.raises(openai.PermissionDeniedError, match="may search, not embed"):
            client.with_options(api_key=narrow).embeddings.create(model="photos", input="x")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/search", "/v1/classify", "/v1/anomaly", ""])
def test_a_fuzzer_finds_no_server_error_and_nothing_that_is_not_described(service: Service, path: str) -> None:
    import schemathesis
    from schemathesis.checks import load_all_checks
    from schemathesis.specs.openapi import checks

    load_all_checks()
    conform = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.response_headers_conformance,
    ]
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    chosen = [
        operation for operation in operations if operation.path == path or (not path and operation.method == "get")
    ]
    reached: dict[str, set[int]] = {}

    @settings(max_examples=40 if path else 60, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.one_of(*(operation.as_strategy() for operation in chosen)))
    def ask(case: Any) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {service.key}"})
        refused = answer.status_code == 503 and "Retry-After" in answer.headers
        assert answer.status_code < 500 or refused, (case.as_curl_command(), answer.text)
        case.validate_response(answer, checks=conform)
        reached.setdefault(case.path, set()).add(answer.status_code)

    ask()
    assert all(200 in statuses or "{id}" in place for place, statuses in reached.items()), reached
    assert set(reached) == {operation.path for operation in chosen}
    assert not [line for line in service.lines if line["event"] == "broken"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    ),
    st.sampled_from(["/v1/embeddings", "/v1/search", "/v1/classify"]),
    st.sampled_from(["input", "k", "where", "side", "model", "dimensions", "encoding_format", ""]),
)
@settings(max_examples=150)
def test_whatever_json_is_sent_is_answered_or_named(service: Service, value: Any, path: str, field: str) -> None:
    body = {"input": ["red wine"], field: value} if field else value
    answer = service.ask(path, json.dumps(body).encode())
    assert answer.status in (200, 400), (body, answer)
    assert answer.headers["fastness-version"] == "words@1" and isinstance(answer.json, dict)


@given(st.binary(max_size=200))
def test_whatever_bytes_are_sent_are_named(service: Service, body: bytes) -> None:
    answer = service.ask("/v1/embeddings", body)
    assert answer.status == 400 and answer.json["error"]["message"].startswith(("body: ", "input: "))


def test_prometheus_scrapes_with_a_key_of_its_own(service: Service, registry: Registry, tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus here; apt-get install prometheus (Debian's package)")
    _, key = issue(registry, "prometheus", scopes=("metrics",))
    (tmp_path / "key").write_text(key)
    (tmp_path / "prometheus.yml").write_text(
        f"""
scrape_configs:
  - job_name: fastness
    scrape_interval: 200ms
    scrape_timeout: 200ms
    authorization: {{credentials_file: {tmp_path / "key"}}}
    static_configs: [{{targets: ["127.0.0.1:{service.port}"]}}]
"""
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"config.file": tmp_path / "prometheus.yml", "storage.tsdb.path": tmp_path / "tsdb"}
    words = [f"--{name}={value}" for name, value in options.items()]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, *words, f"--web.listen-address=127.0.0.1:{port}"], stderr=log, stdout=log)

    def query(text: str) -> list[float]:
        try:
            address = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
            with urllib.request.urlopen(address, timeout=30) as answer:
                said = json.load(answer)
        except OSError:  # it is not up yet
            return []
        assert said["status"] == "success"
        return [float(row["value"][1]) for row in said["data"]["result"]]

    asked = 'sum(fastness_requests_total{route="/v1/embeddings",status="200"})'
    try:
        before = until(lambda: query('up{job="fastness"} == 1') and query(f"{asked} or vector(0)"))[0]
        for _ in range(7):
            assert service.ask("/v1/embeddings", {"input": ["red", "sea"]}).status == 200
        until(lambda: query(asked), lambda found: found and found[0] >= before + 7)
        assert query(asked) == [before + 7]
        assert query('fastness_serving{version="words@1"}') == [1] and query("fastness_behind") == [0]
        assert query("histogram_quantile(0.5, sum by (le) (fastness_request_seconds_bucket))")[0] > 0
        assert query("fastness_batch_items_count > 0") and query("fastness_items_total > 0")
    finally:
        process.terminate()
        process.wait()
