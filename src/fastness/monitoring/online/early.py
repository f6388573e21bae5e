"""Looks at what is embedded between the ends of windows: a change is not to wait until the present one is over."""

from __future__ import annotations

import threading

import numpy as np

from fastness.monitoring.online.online import Online, least
from fastness.monitoring.sketch import Sketch
from fastness.monitoring.window import Floats

_BATCH = 32  # items that are looked at together
_RUN = 20_000.0  # batches until it is mistaken, in the mean; a mistake ends a window early, and no more
_MOST = 2_048  # items between two looks; of more, these are enough


class Early:
    """Holds what a version embeds against its reference, as it comes. `seen` may be called from any thread.

    Args:
        sketch: the version's reference; see `early`.
    """

    def __init__(self, sketch: Sketch) -> None:
        self._reference = sketch.window.vectors
        self._detector: Online | None = None
        self._lock = threading.Lock()
        self._fresh: list[Floats] = []
        self._items = 0

    def seen(self, vectors: Floats) -> None:
        """Remember items until the next look, ``[N, D]``, unless they are too many or no vectors of the reference's."""
        with self._lock:
            if self._items < _MOST and vectors.shape[1] == self._reference.shape[1]:
                self._fresh.append(vectors)
                self._items += len(vectors)

    def look(self) -> bool:
        """Say whether what has come since the last look is otherwise than the reference; the first takes seconds."""
        with self._lock:
            fresh, self._fresh, self._items = self._fresh, [], 0
        if not fresh:
            return False
        if self._detector is None:
            self._detector = Online(self._reference, _RUN, batch=_BATCH)
        vectors = np.concatenate(fresh)[:_MOST]
        return self._detector.update(vectors[np.isfinite(vectors).all(1)])


def early(sketch: Sketch) -> Early | None:
    """Return what looks at a version's items, ``None`` if its reference is too small for it."""
    return Early(sketch) if len(sketch.window) >= least(_BATCH) else None
