"""What is answered to each question about items."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import Response

from fastness.core.errors import BadInput
from fastness.index import Hit
from fastness.serving.batching import Overloaded
from fastness.serving.doors import Asked, Refusal, answer
from fastness.serving.release import Floats, Release, Side
from fastness.serving.router import Made
from fastness.serving.service import Service
from fastness.serving.wanted import Embeddings, Item, Search, Wanted, modality_of, pictures, read
from fastness_runtime import Answers
from fastness_runtime.items import Tokens

_SHORT = 4000  # characters whose tokens are found at once
_REQUESTS = 2  # as large as may be whose pictures are in memory at once


class Questions:
    """Answers them by the release that each request holds.

    Args:
        service: whose.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def embeddings(self, asked: Asked) -> Response:
        """``/v1/embeddings``: OpenAI's."""
        wanted = read(Embeddings, asked.body, self._service.settings.most_items)
        side, items = await self._items(asked, wanted)
        if wanted.dimensions not in (None, side.encoder.dim):
            raise BadInput(f"dimensions: embeddings have {side.encoder.dim} here; leave it out")
        vectors = await self._vectors(asked, wanted, side, items)
        shown = [row.tobytes() for row in vectors.astype("<f4")] if wanted.encoding_format == "base64" else vectors
        data = [
            {
                "object": "embedding",
                "index": place,
                "embedding": base64.b64encode(row).decode() if isinstance(row, bytes) else row,
            }
            for place, row in enumerate(shown)
        ]
        tokens = sum(len(item) for item in items if isinstance(item, Tokens))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        release = _release(asked)
        return answer({"object": "list", "data": data, "model": release.version, "usage": usage, **_by(release)})

    async def search(self, asked: Asked) -> Response:
        """``/v1/search``: the nearest items of the collection."""
        release = _release(asked)
        if release.search is None:
            raise Refusal(404, "no collection is served here; start the service with --collection")
        wanted = read(Search, asked.body, self._service.settings.most_items)
        release.search.searches.check_room(asked.timeout)  # nothing is embedded in vain
        side, items = await self._items(asked, wanted)
        vectors = await self._vectors(asked, wanted, side, items)
        release.search.searches.check_room(asked.timeout)
        results = await release.search.nearest(vectors, wanted.k, wanted.where)
        listed = [[_hit(hit, release.search.previews) for hit in hits] for hits in results]
        return answer({"results": listed, **_by(release)})

    async def classify(self, asked: Asked) -> Response:
        """``/v1/classify``: the likeliest class of each item, or none."""
        side, found = await self._answers(asked)
        results = [
            {
                "label": None if abstained or self._service.abstains else label,
                "probability": float(probabilities.max()),
                "abstained": bool(abstained) or self._service.abstains,
                "novelty": float(novelty),
                "probabilities": dict(zip(found.classes, map(float, probabilities), strict=True)),
            }
            for label, probabilities, novelty, abstained in zip(
                found.labels, found.probabilities, found.novelty, found.abstained, strict=True
            )
        ]
        return answer({"threshold": _head(side)["threshold"], "results": results, **_by(_release(asked))})

    async def anomaly(self, asked: Asked) -> Response:
        """``/v1/anomaly``: how unlike anything known each item is."""
        side, found = await self._answers(asked)
        results = [
            {"novelty": float(novelty), "abnormal": bool(abstained)}
            for novelty, abstained in zip(found.novelty, found.abstained, strict=True)
        ]
        return answer({"threshold": _head(side)["threshold"], "results": results, **_by(_release(asked))})

    async def _answers(self, asked: Asked) -> tuple[Side, Answers]:
        wanted = read(Wanted, asked.body, self._service.settings.most_items)
        side, items = await self._items(asked, wanted)
        head = _head(side)
        if self._heeded(asked):
            vectors, answers = await side.all(items, asked.timeout)
            assert answers is not None
            self._tell(asked, wanted, side, items, vectors, answers)
            return side, answers
        probabilities, novelty = await side.answer(items, asked.timeout)
        return side, Answers.of(probabilities, novelty, head["classes"], head["threshold"])

    async def _vectors(self, asked: Asked, wanted: Wanted, side: Side, items: list[Any]) -> Floats:
        """Return the embeddings of a request's items; where traffic is watched they are written down."""
        if not self._heeded(asked):
            return await side.embed(items, asked.timeout)
        vectors, answers = await side.all(items, asked.timeout)
        self._tell(asked, wanted, side, items, vectors, answers)
        return vectors

    def _heeded(self, asked: Asked) -> bool:
        """Whether somebody wants to know all that is made of a request's items."""
        return self._service.watch is not None or asked.made is not None

    def _tell(
        self, asked: Asked, wanted: Wanted, side: Side, items: list[Any], vectors: Floats, answers: Answers | None
    ) -> None:
        """Tell what was made of a request's items: who watches the traffic, and who compares two versions."""
        if asked.made is not None:
            asked.made.append(Made(wanted, vectors, answers))
        if self._service.watch is not None and not asked.aside:
            route = str(asked.request.scope["path"])
            self._service.watch.seen(route, _release(asked), side, wanted, items, vectors, answers)

    async def _items(self, asked: Asked, wanted: Wanted) -> tuple[Side, list[Any]]:
        """Return the side that takes a request's items, and these ready for it; its key has paid for them."""
        modality = modality_of(wanted.items)
        side = _release(asked).side(modality, wanted.side)
        asked.items = len(wanted.items)
        self._service.guard.spend(asked.key, asked.items)
        return side, await self._ready(asked, side, wanted.items)

    async def _ready(self, asked: Asked, side: Side, items: list[Item]) -> list[Any]:
        """Return items as the runtime takes them; what takes long is done beside the loop that answers others."""
        if side.modality == "image":
            allow = partial(self._allow, asked)
            return await pictures(items, self._service.decoders, allow, side.encoder.about.get("size"))
        if side.modality == "table":
            return list(items)
        texts = [item for item in items if isinstance(item, str)]
        if sum(map(len, texts)) <= _SHORT:
            return list(side.tokens(texts))
        return list(await asyncio.get_running_loop().run_in_executor(self._service.decoders, side.tokens, texts))

    def _allow(self, asked: Asked, pixels: int) -> None:
        """Take so many pixels for a request, which gives them back when it is answered."""
        most = self._service.settings.most_pixels
        if pixels > most:
            raise BadInput(f"input: pictures of {pixels:,} pixels in all; at most {most:,} in a request")
        if self._service.pixels + pixels > _REQUESTS * most:
            raise Overloaded("pixels", 1.0)
        self._service.pixels += pixels
        asked.pixels = pixels


def _release(asked: Asked) -> Release:
    assert asked.release is not None
    return asked.release


def _head(side: Side) -> Mapping[str, Any]:
    if side.head is None:
        raise Refusal(404, "this version has no head; fit one (fastness fit), export with it (--head), add it again")
    return side.head


def _by(release: Release) -> dict[str, str | None]:
    """Return what answered."""
    return {"version": release.version, "index": release.index}


def _hit(hit: Hit, shown: bool) -> dict[str, Any]:
    return {
        "id": hit.id,
        "similarity": round(hit.similarity, 6),
        "metadata": hit.metadata,
        "preview": f"/v1/items/{quote(hit.id, safe='')}" if shown else None,
    }
