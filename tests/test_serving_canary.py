"""A candidate beside production in a real service: no request fails for it, and what is decided moves the aliases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request, Response
from filelock import FileLock, Timeout

from fastness.core.errors import BadInput, Failure
from fastness.monitoring.kept import labels
from fastness.monitoring.trial.trial import Decision, Trial
from fastness.registry import Registry
from fastness.serving.batching import Overloaded
from fastness.serving.doors import Asked
from fastness.serving.router import Candidacy
from fastness.serving.service import Service, Settings
from fastness.serving.telemetry import Telemetry
from served import COLLECTION, YES, Made, release, sentences, serving, until

SPEC, CANARY = "words@production", "canary"
LOOSE = "least: 30\nlimits:\n" + "".join(
    f"  {name}: {{tolerated: {tolerated}, margin: {margin}}}\n"
    for name, tolerated, margin in (
        ("errors", 0.05, 0.4),
        ("latency", 1.5, 1.7),
        ("disagreement", 0.97, 1.0),
        ("abstained", 0.5, 0.9),
        ("wrong", 0.9, 0.99),
    )
)


@pytest.fixture(scope="module")
def made(words: list[Made], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two versions, each with an index; not to be changed."""
    folder = tmp_path_factory.mktemp("canary") / "registry"
    with Registry(folder) as registry:
        release(registry, words[:2], "words")
    return folder


@pytest.fixture
def registry(made: Path, tmp_path: Path) -> Iterator[Registry]:
    """A registry of one's own, whose second version is a canary."""
    with Registry(shutil.copytree(made, tmp_path / "registry")) as opened:
        opened.promote("words@2", CANARY, why=YES, override=True)
        yield opened


def terms(folder: Path, text: str = LOOSE) -> Path:
    """Write terms by which a trial ends soon."""
    path = folder / "terms.yaml"
    path.write_text(text)
    return path


def asked(service: Any, number: int, path: str = "/v1/search") -> list[Any]:
    """Return the answers to so many questions; each must be one."""
    answers = []
    for i, text in enumerate(sentences(number, seed=3)):
        answer = service.ask(path, {"input": text, "metadata": [{"app": "web"}], "ids": [f"{path} {i}"]})
        assert answer.status == 200, answer.content
        assert answer.json["version"] == answer.headers["fastness-version"]
        answers.append(answer)
    return answers


def test_a_canary_answers_its_share_and_an_equal_one_takes_over(registry: Registry, tmp_path: Path) -> None:
    words = ("--collection", COLLECTION, "--canary", CANARY, "--share", 0.5, "--terms", terms(tmp_path))
    with serving(SPEC, tmp_path / "registry", tmp_path / "log", *words, "--watch", tmp_path / "watch") as service:
        service.until(lambda about: about["trial"])
        answers = asked(service, 20)  # and 9: fewer than a decision needs, so that labels are in time for it
        versions = {answer.json["version"] for answer in answers}
        assert versions == {"words@1", "words@2"}
        # Vectors are of one space: those of a candidate of another one go to nobody.
        assert {answer.json["version"] for answer in asked(service, 9, "/v1/embeddings")} == {"words@1"}
        truth = tmp_path / "truth.csv"
        truth.write_text("\n".join(["id,label", *(f"/v1/search {i},red" for i in range(20))]))
        labels.add(tmp_path / "watch", *SPEC.split("@"), truth)
        service.until(lambda about: "wrong" in {figure["measure"] for figure in about["trial"]["figures"]})
        while service.about()["version"] == "words@1":
            asked(service, 20)
        trial = next(line for line in service.lines if line["event"] == "decided")
        assert trial["state"] == "promote"
    (kept,) = (tmp_path / "watch" / "trials" / SPEC).glob("*.json")
    resumed = Trial.resumed(json.loads(kept.read_bytes()))
    assert resumed.pairs >= trial["pairs"] and resumed.decision().state == "promote"
    move = registry.log("words", "production", 1)[0]
    assert (move.what, move.number, move.before, move.override) == ("promote", 2, 1, False)
    assert move.gate is not None and move.gate["passed"] and move.gate["trial"]["pairs"] >= 30
    (wrong,) = (f for f in move.gate["trial"]["figures"] if f["measure"] == "wrong" and not f["slice"])
    assert 0 < wrong["n"] <= 20 and wrong["state"] == "safe"  # labels that came in time took part
    until(lambda: registry.now_at("words", CANARY), lambda number: number is None)


def test_a_candidate_that_fails_is_sent_away_and_nobody_notices(registry: Registry, tmp_path: Path) -> None:
    from fastness.serving.app import make_app

    async def main() -> None:
        settings = Settings("words", "production", COLLECTION, testing=Candidacy(CANARY, share=0.5), poll=3600)
        service = Service(registry, settings, Telemetry(None))
        watches = await service.start()
        assert service.router is not None
        await service.router.look()
        candidate = service.router.candidate.now
        assert candidate is not None and candidate.search is not None
        candidate.search.searches.pool.shutdown()  # whoever searches there fails
        transport = httpx.ASGITransport(make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            while registry.now_at("words", CANARY) is not None:
                for text in sentences(20, seed=3):
                    answer = await client.post("/v1/search", json={"input": text})
                    assert answer.status_code == 200 and answer.json()["version"] == "words@1"
        await service.stop(watches)

    asyncio.run(main())
    refusal = registry.log("words", "production", 1)[0]
    assert (refusal.what, refusal.number) == ("refuse", 1) and "errors" in refusal.why
    assert registry.log("words", CANARY, 1)[0].what == "remove"


def test_a_registry_that_fails_once_is_asked_again_and_the_aliases_move(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastness.monitoring.trial.terms import read_terms
    from fastness.serving.app import make_app

    failed: list[str] = []
    really = registry.promote

    def promote(*told: Any, **more: Any) -> Any:
        if not failed:
            failed.append("promote")
            raise Failure("the registry is away")
        return really(*told, **more)

    def named() -> tuple[int | None, int | None]:
        return registry.now_at("words", "production"), registry.now_at("words", CANARY)

    async def main() -> None:
        testing = Candidacy(CANARY, share=0.5, terms=read_terms(terms(tmp_path)))
        service = Service(registry, Settings("words", "production", COLLECTION, testing=testing, poll=3600))
        watches = await service.start()
        router = service.router
        assert router is not None
        await router.look()
        monkeypatch.setattr(registry, "promote", promote)
        transport = httpx.ASGITransport(make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            while not failed:
                for text in sentences(20, seed=3):
                    assert (await client.post("/v1/search", json={"input": text})).status_code == 200
            while router._under_way:
                await asyncio.sleep(0.01)
            assert named() == (1, 2) and router.now is not None and router.now.over
            await router.look()
            assert named() == (2, None) and router.now.owed is None
            await service.live.look()
            assert (await client.post("/v1/search", json={"input": "red"})).json()["version"] == "words@2"
            await router.look()
            assert router.now is None
        await service.stop(watches)

    asyncio.run(main())
    assert registry.log("words", "production", 1)[0].gate["passed"]


def test_a_shadow_answers_nobody_and_moves_nothing(registry: Registry, tmp_path: Path) -> None:
    words = ("--collection", COLLECTION, "--shadow", CANARY, "--share", 0.5, "--terms", terms(tmp_path))
    with serving(SPEC, tmp_path / "registry", tmp_path / "log", *words) as service:
        service.until(lambda about: about["trial"])
        while not any(line["event"] == "decided" for line in service.lines):
            assert {answer.json["version"] for answer in asked(service, 20)} == {"words@1"}
        assert service.metric("fastness_pairs_total", candidate="words@2") >= 30
    assert registry.now_at("words", "production") == 1 and registry.now_at("words", CANARY) == 2


def test_half_of_the_requests_at_least_are_production_s_alone() -> None:
    for share in (0.0, -1.0, 0.6, float("nan")):
        with pytest.raises(BadInput, match="--share"):
            Candidacy("canary", share=share)


def tried(
    registry: Registry, what: Callable[[Service], Awaitable[None]], folder: Path | None = None, poll: float = 3600
) -> None:
    """Let a service try the canary, and do something with it."""

    async def main() -> None:
        testing = Candidacy(CANARY, share=0.5, folder=folder)
        service = Service(registry, Settings("words", "production", COLLECTION, testing=testing, poll=poll))
        watches = await service.start()
        assert service.router is not None
        await service.router.look()
        assert service.router.now is not None
        await what(service)
        await service.stop(watches)

    asyncio.run(main())


def test_a_canary_that_production_names_is_none_any_more(registry: Registry) -> None:
    """Nor is it tried against whatever production names next."""

    async def moved(service: Service) -> None:
        registry.promote("words@2", "production", why=YES, override=True)
        await service.live.look()
        assert service.router is not None
        await service.router.look()
        assert service.router.now is None and registry.now_at("words", CANARY) is None

    tried(registry, moved)


def test_what_nobody_nominates_any_more_is_asked_nothing(registry: Registry, words: list[Made]) -> None:
    """The canary is now a version that cannot be loaded yet: it has no index."""

    async def moved(service: Service) -> None:
        router = service.router
        assert router is not None and router.now is not None
        running = router.now
        registry.promote(str(registry.add(words[2].bundle, "words")), CANARY, why=YES, override=True)
        await router.look()
        assert router.now is None and running.over
        running.owed = Decision("promote", "it was decided just then", 99, [])
        await router._settle(running)
        assert registry.now_at("words", "production") == 1 and registry.now_at("words", CANARY) == 3

    tried(registry, moved)


def test_want_of_room_is_nobody_s_error(registry: Registry) -> None:
    async def crowded(service: Service) -> None:
        router = service.router
        assert router is not None and router.now is not None
        seen = []

        async def full(asked: Asked) -> Response:
            seen.append(asked.aside)
            raise Overloaded("queue", 1.0)

        async def only_beside(asked: Asked) -> Response:
            return await full(asked) if asked.aside else Response()

        running, scope = router.now, {"type": "http", "path": "/v1/search"}
        request = Asked(Request(scope), None, b"", 5.0, running.production)
        for handler in (full, only_beside):
            for _ in range(40):
                with contextlib.suppress(Overloaded):
                    await router.answer(request, handler)
        await asyncio.gather(*router._under_way)
        assert set(seen) == {False, True}
        errors = running.trial.state()["errors"][0]
        assert (errors["missed"], errors["failures"], errors["outcomes"]) == (0, [], 0)

    tried(registry, crowded)


def test_each_process_has_a_trial_of_its_own_and_finds_it_again(registry: Registry, tmp_path: Path) -> None:
    kept = tmp_path / "watch" / "trials" / SPEC

    async def two(service: Service) -> None:
        assert service.router is not None and service.router.now is not None
        await service.router.now.keep()
        testing = Candidacy(CANARY, share=0.5, folder=tmp_path / "watch")
        other = Service(registry, Settings("words", "production", COLLECTION, testing=testing, poll=3600))
        watches = await other.start()
        assert other.router is not None
        await other.router.look()
        await other.stop(watches)
        assert len([*kept.glob("*.json")]) == 2

    for _ in range(2):
        tried(registry, two, tmp_path / "watch")
        assert len([*kept.glob("*.json")]) == 2
    registry.remove("words", CANARY, why="once more")
    registry.promote("words@2", CANARY, why=YES, override=True)

    async def begun(service: Service) -> None:
        assert service.router is not None
        running = service.router.now
        assert running is not None and running._path is not None
        free = FileLock(running._path.with_suffix(".lock"))
        with pytest.raises(Timeout):
            free.acquire(timeout=0)
        running.end()
        free.acquire(timeout=0)  # also while something of it is still under way
        free.release()

    tried(registry, begun, tmp_path / "watch")
    assert len([*kept.glob("*.json")]) == 3  # it was nominated anew: what was known is of another trial


def test_a_damaged_file_of_labels_hides_none_of_the_others(registry: Registry, tmp_path: Path) -> None:
    async def came(service: Service) -> None:
        assert service.router is not None
        truth = tmp_path / "truth.csv"
        for number in range(3):
            truth.write_text(f"id,label\n{number},red\n")
            labels.add(tmp_path / "watch", *SPEC.split("@"), truth)
        labels.files(tmp_path / "watch", *SPEC.split("@"))[1].write_bytes(b"torn")
        assert service.router._new_labels() == {"0": "red", "2": "red"} and service.router._new_labels() == {}

    tried(registry, came, tmp_path / "watch")
