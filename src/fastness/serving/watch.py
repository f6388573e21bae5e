"""What a service writes down of its traffic, where that is asked for: vectors and facts of items, not the items."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastness.core.errors import BadInput
from fastness.data import traits
from fastness.monitoring.kept.journal import Journal, Known
from fastness.monitoring.kept.payloads import Payloads
from fastness.monitoring.online.early import Early, early
from fastness.monitoring.sketch import DESCRIPTION, FOLDER, Sketch
from fastness.serving.release import Floats, Release, Side
from fastness.serving.telemetry import Telemetry
from fastness.serving.wanted import Item, Wanted
from fastness_runtime import Answers

_REST = 100  # times as long as a writing takes passes before the next begins, but no more than
_LONGEST_REST = 30.0  # seconds


@dataclass(frozen=True)
class Watching:
    """What is written down, and where.

    Attributes:
        folder: of all that is watched.
        window: seconds that a window lasts.
        most: items of a window that are kept.
        cut: items after which a window ends before its time; 0: never.
        flush: seconds between two writings; a process that is killed loses what came since.
        keep: days for which windows are kept.
        payloads: folder for the kept items themselves; ``None``: they are not kept.
        ttl: hours after which they are deleted.
    """

    folder: Path
    window: float = 300.0
    most: int = 2000
    cut: int = 0
    flush: float = 5.0
    keep: float = 30.0
    payloads: Path | None = None
    ttl: float = 24.0


class Watch:
    """Writes down what a service embeds.

    Args:
        watching: see `Watching`.
        name, alias: what is served.
        telemetry: told of sketches that cannot be used.

    Raises:
        BadInput: a number is out of its range.
        Failure: nothing can be written there.
    """

    def __init__(self, watching: Watching, name: str, alias: str, telemetry: Telemetry) -> None:
        self.every, self._next = watching.flush, 0.0
        self._telemetry = telemetry
        self._sketches: dict[str, Sketch | None] = {}
        self._early: dict[str, Early] = {}
        self._window, self._quiet = watching.window, 0.0  # one early end in the time of a window
        self._payloads = None if watching.payloads is None else Payloads(watching.payloads, watching.ttl * 3600)
        self._journal = Journal(
            watching.folder,
            name,
            alias,
            window=watching.window,
            most=watching.most,
            cut=watching.cut,
            keep=watching.keep * 86_400,
            centroids=self._centroids,
        )

    def learn(self, release: Release) -> None:
        """Read the sketch of a version before it serves, if it has one; by its clusters items are counted."""
        folder = next(iter(release.sides.values())).encoder.folder.parent.parent
        try:
            there = (folder / FOLDER / DESCRIPTION).is_file()
            found = Sketch.load(folder) if there else None
        except BadInput as error:
            self._telemetry.log("sketch not used", version=release.version, why=str(error))
            found = None
        self._sketches[release.version] = found
        forms = {str(side.encoder.about["form"]) for side in release.sides.values()}
        if found is not None and found.about["form"] not in {"float32", *forms}:
            said = f"is of {found.about['form']}, and served is {', '.join(forms)}: what is rounded otherwise looks new"
            self._telemetry.log("sketch of another form", version=release.version, why=said)
        elif found is not None and (looking := early(found)) is not None:
            self._early[release.version] = looking

    def seen(
        self,
        route: str,
        release: Release,
        side: Side,
        wanted: Wanted,
        items: Sequence[Any],
        vectors: Floats,
        answers: Answers | None,
    ) -> None:
        """Write down the items of a request.

        Args:
            route: that was asked.
            release: what answered.
            side: which side of it.
            wanted: the request.
            items: as the runtime took them.
            vectors: their embeddings, float32 ``[N, dim]``.
            answers: what the head says of them, if there is one.
        """
        columns: dict[str, Any] = {} if answers is None else _said(answers)
        sketch = self._sketches.get(release.version)
        if len(release.sides) > 1:
            name = next(name for name, one in release.sides.items() if one is side)
            if sketch is not None and sketch.about["side"] not in (None, name):
                return  # there is nothing to hold it against
            columns["side"] = [str(name)] * len(vectors)

        def facts(places: Sequence[int]) -> Known:
            told = _told(side, [wanted.items[place] for place in places], [items[place] for place in places])
            if self._payloads is not None:
                told["payload"] = [self._payloads.put(_content(wanted.items[place])) for place in places]
            return told

        if release.version in self._early:
            self._early[release.version].seen(vectors)
        self._journal.seen(
            vectors,
            version=release.version,
            index=release.index,
            route=route,
            ids=wanted.ids,
            metadata=wanted.metadata,
            columns=columns,
            facts=facts,
        )

    def count(
        self, route: str, status: int, seconds: float, items: int, release: Release | None, unreadable: bool
    ) -> None:
        """Count a request; see `Journal.count`."""
        version, index = (None, None) if release is None else (release.version, release.index)
        self._journal.count(route, status, seconds, items, version=version, index=index, undecodable=unreadable)

    def flush(self) -> None:
        """Write what has come since the last time; takes a while, but no more than a hundredth of the time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._look(now)
        began = time.monotonic()  # what looks takes long only once
        try:
            self._journal.flush()
        finally:
            self._next = began + min(_REST * (time.monotonic() - began), _LONGEST_REST)
            if self._payloads is not None:
                self._payloads.flush()

    def _look(self, now: float) -> None:
        """End windows early where what comes has changed, so that they are judged at once."""
        for version, looking in [*self._early.items()]:
            if looking.look() and now >= self._quiet:
                self._quiet = now + self._window
                self._journal.end_early(version)
                self._telemetry.log("window ended early", version=version, why="what comes has changed")

    def close(self) -> None:
        """Write everything."""
        try:
            self._journal.close()
        finally:
            if self._payloads is not None:
                self._payloads.flush()

    def _centroids(self, version: str) -> Floats | None:
        sketch = self._sketches.get(version)
        return None if sketch is None else sketch.centroids


def _said(answers: Answers) -> dict[str, Any]:
    return {
        "label": answers.labels,
        "confidence": answers.probabilities.max(1),
        "novelty": answers.novelty,
        "abstained": answers.abstained,
    }


def _told(side: Side, asked: Sequence[Item], items: Sequence[Any]) -> dict[str, Any]:
    """Return what can be told of items by looking, by the functions that told it of the reference."""
    if side.modality == "table":
        cells = np.concatenate([batch for _, batch in side.encoder.batches(items, len(items))])
        return dict(traits.of_cells(cells, side.encoder.about["columns"]))
    if side.modality == "text":
        return _by_name(traits.OF_TEXT, [traits.of_text(str(text)) for text in asked])
    return _by_name(traits.OF_PICTURE, [traits.of_picture(pixels) for pixels in items])


def _by_name(names: Sequence[str], rows: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _content(item: Item) -> bytes:
    """Return the bytes of an item that was embedded."""
    if not isinstance(item, str):
        return json.dumps(item, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if item[:11].lower() == "data:image/":
        return base64.b64decode(item.partition(",")[2])
    return item.encode()
