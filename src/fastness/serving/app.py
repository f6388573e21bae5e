"""The HTTP application: which address answers what, and how it describes itself."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from fastness.registry.says import moment
from fastness.serving.answers import Questions
from fastness.serving.doors import Asked, Doors, Handler, Refusal, answer, refused
from fastness.serving.page import search_page
from fastness.serving.service import Service
from fastness.serving.wanted import Embeddings, Search, Wanted


def make_app(service: Service) -> FastAPI:
    """Return the application, for a service that has been started."""
    app = FastAPI(title="fastness", version=metadata.version("fastness"), docs_url=None, redoc_url=None)
    doors, questions, about = Doors(service), Questions(service), About(service)
    told: dict[str, Any] = {}

    def post(path: str, scope: str, handler: Handler, body: type[Wanted]) -> None:
        app.add_route(path, doors.endpoint(path, scope, handler, asks=True), methods=["POST"])
        content = {"application/json": {"schema": body.model_json_schema()}}
        summary = (handler.__doc__ or "").partition(": ")[2]
        told[path] = {"post": _operation(path, summary, requestBody={"required": True, "content": content})}

    def get(path: str, scope: str | None, handler: Handler, kind: str = "application/json") -> None:
        app.add_route(path, doors.endpoint(path.partition("{")[0], scope, handler), methods=["GET"])
        names = re.findall(r"{(\w+)", path)
        taken = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        shown = path.replace(":path", "")
        told[shown] = {"get": _operation(shown, handler.__doc__ or "", kind, parameters=taken)}

    post("/v1/embeddings", "embed", questions.embeddings, Embeddings)
    post("/v1/search", "search", questions.search, Search)
    post("/v1/classify", "classify", questions.classify, Wanted)
    post("/v1/anomaly", "classify", questions.anomaly, Wanted)
    get("/v1/about", None, about.shown)
    get("/v1/models", None, about.models)
    get("/v1/items/{id:path}", "search", about.item, "image/webp")
    get("/metrics", "metrics", about.metrics, "text/plain")
    _open(app, service, told)
    app.openapi = lambda: _described(app, told)  # type: ignore[method-assign]
    return app


def _operation(path: str, summary: str, kind: str = "application/json", **more: Any) -> dict[str, Any]:
    """Return what OpenAPI says of a route. The routes are Starlette's own, which cost a request less than FastAPI's."""
    name = re.sub(r"\W+", "_", path).strip("_")
    responses = {"200": {"description": "The answer.", "content": {kind: {}}}, **_REFUSALS}
    return {"summary": summary, "operationId": name, "security": [{"key": []}], "responses": responses, **more}


def _described(app: FastAPI, told: dict[str, Any]) -> dict[str, Any]:
    """Return what OpenAPI says of the application."""
    made = get_openapi(title=app.title, version=app.version, routes=app.routes, summary="What a release answers.")
    made["paths"] = {**told, **made["paths"]}
    made.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return made


def _open(app: FastAPI, service: Service, told: dict[str, Any]) -> None:
    """Add what needs no key."""
    page = search_page()

    async def front(request: Request) -> Response:
        return page

    async def healthz(request: Request) -> Response:
        return answer({"status": "ok"})

    async def readyz(request: Request) -> Response:
        now = service.live.now
        return answer({"ready": now is not None, "behind": service.live.trouble is not None}, 200 if now else 503)

    for path, endpoint, summary in (
        ("/", front, ""),
        ("/healthz", healthz, "Say that it is alive."),
        ("/readyz", readyz, "Say whether it has something to serve."),
    ):
        app.add_route(path, endpoint, methods=["GET"])
        if summary:
            told[path] = {"get": _operation(path, summary) | {"security": []}}

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return refused(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}")


class About:
    """What the service says of itself and of the collection's items.

    Args:
        service: whose.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def shown(self, asked: Asked) -> Response:
        """Say what serves, since when, and what it can."""
        live, release = self._service.live, asked.release
        assert release is not None
        first = next(iter(release.sides.values()))
        heads = [side.head for side in release.sides.values() if side.head is not None]
        can = ["embeddings", *(["search"] if release.search else []), *(["classify", "anomaly"] if heads else [])]
        wanted = None if live.wanted is None else str(live.wanted.version)
        return answer(
            {
                "name": live.name,
                "alias": live.alias,
                "version": release.version,
                "bundle": release.target.version.bundle,
                "since": moment(release.target.since),
                "form": first.encoder.about["form"],
                "modality": first.modality,
                "sides": {name: side.modality for name, side in release.sides.items() if name is not None},
                "takes": [column["name"] for column in first.encoder.about.get("columns", ())],
                "dim": first.encoder.dim,
                "classes": heads[0]["classes"] if heads else None,
                "collection": live.collection,
                "index": release.index,
                "items": release.search and release.search.items,
                "columns": release.search.columns if release.search else {},
                "wanted": wanted if live.trouble else None,
                "trouble": live.trouble,
                "abstains": self._service.abstains,
                "can": can,
                "trial": self._service.router and self._service.router.shown(),
            }
        )

    async def models(self, asked: Asked) -> Response:
        """List what serves, as OpenAI's clients ask."""
        assert asked.release is not None
        since = asked.release.target.since // 1_000_000
        model = {"id": asked.release.version, "object": "model", "created": since, "owned_by": "fastness"}
        return answer({"object": "list", "data": [model]})

    async def item(self, asked: Asked) -> Response:
        """Show an item of the collection."""
        assert asked.release is not None
        if asked.release.search is None:
            raise Refusal(404, "no collection is served here")
        search = asked.release.search
        search.looks.check_room(asked.timeout)
        seen = await search.look(asked.request.path_params["id"])
        if seen is None:
            raise Refusal(404, "no preview of such an item; rebuild the index with --previews")
        kind, content = seen
        headers = {"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"}
        return Response(content, headers=headers, media_type=kind)

    async def metrics(self, asked: Asked) -> Response:
        """Show counters, as Prometheus reads them."""
        assert asked.release is not None
        waiting = max(side.batcher.waiting for side in asked.release.sides.values())
        self._service.telemetry.waiting.set(waiting)
        return Response(self._service.telemetry.exposed(), media_type="text/plain; version=0.0.4; charset=utf-8")


_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message", "type", "code"]}},
}
_REFUSALS: dict[str, Any] = {
    str(status): {"description": said, "content": {"application/json": {"schema": _ERROR}}}
    for status, said in (
        (400, "Something in the request cannot be used; the message names it."),
        (401, "No valid key."),
        (403, "The key is for something else."),
        (404, "This version cannot do it, or there is no such item."),
        (413, "Too large."),
        (429, "More than the key's rate."),
        (503, "Too much to do; see Retry-After."),
    )
}
