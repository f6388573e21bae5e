"""Drift as it happens: looks at every batch, and where nothing drifts alarms as seldom as it was asked to.

The windows of the last 1, 2, 3, 5, 8 … batches are each held against the reference, so that what comes suddenly is seen
at once and what comes slowly is seen at all. Two things are compared: the mean of the embeddings, in units of what they
vary by, and their mean under a Gaussian kernel (Gretton et al. 2012), by random waves (Rahimi and Recht 2007). How
large the differences are without drift, and so the threshold, is simulated from the reference itself.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.core.seeds import numpy_generator
from fastness.metrics.finite import must_be_finite
from fastness.monitoring.online.run_length import Tails, calibrated

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
FORMAT = 1
_LEAST = 40  # reference items
_DIRECTIONS, _WAVES = 64, 64  # at most, of the mean and of the kernel
_USUAL = 0.9  # share of the items whose distance from the centre counts in full
_LONGEST = 256  # batches of the longest window, and it holds at most a quarter as many items as the reference


@dataclass(frozen=True)
class Features:
    """What of an embedding is averaged over windows.

    Attributes:
        centre: taken from embeddings, ``[D]``.
        projection: ``[D, K]``, first onto directions in which items vary, in units of that, then onto waves' lengths.
        directions: how many of K are directions.
        most: how far from the centre an item counts as, at most, along the directions.
    """

    centre: Floats
    projection: Floats
    directions: int
    most: float

    @classmethod
    def chosen(cls, some: Floats, others: Floats, generator: np.random.Generator) -> Features:
        """Choose directions by some items ``[M, D]``, and all scales by others ``[N, D]``."""
        centre = some.mean(0)
        most = min(_DIRECTIONS, max(1, len(some) // 5), some.shape[1])
        directions = np.linalg.svd(some - centre, full_matrices=False)[2][:most].T
        directions = directions / np.maximum(((others - centre) @ directions).std(0), 1e-6)
        far = np.linalg.norm((others - centre) @ directions, axis=1)
        one, other = generator.integers(len(others), size=(2, 2_000))
        width = max(float(np.median(np.linalg.norm(others[one] - others[other], axis=1))), 1e-6)
        waves = generator.normal(size=(some.shape[1], _WAVES)) / width
        projection = np.concatenate([directions, waves], 1).astype(np.float32)
        return cls(centre, projection, most, float(np.quantile(far, _USUAL)))

    @property
    def parts(self) -> tuple[slice, slice]:
        """Which features are the directions', and which the waves'."""
        return slice(0, self.directions), slice(self.directions, self.directions + 2 * _WAVES)

    def __call__(self, vectors: Floats) -> Floats:
        """Return the features of items ``[N, D]``, float32 ``[N, K]``."""
        moved = (vectors - self.centre) @ self.projection
        along, waves = moved[:, : self.directions], moved[:, self.directions :]
        far = np.linalg.norm(along, axis=1, keepdims=True)
        # One strange item is no drift; and how rare stranger ones are than any in the reference nobody could tell.
        along = along * np.minimum(1, self.most / np.maximum(far, 1e-12))
        return np.concatenate([along, np.cos(waves), np.sin(waves)], 1)


class Online:
    """A sequential detector of drift in embeddings.

    Args:
        reference: embeddings of items as they should be, float32 ``[N, D]``, N at least 40 and eight batches.
        run_time: after how many batches it shall alarm where nothing has drifted, in the mean; at least 10.
        batch: items that are looked at together.
        seed: decides which reference items choose the features, the features, and the simulation.

    Attributes:
        threshold: of the statistic, above which it alarms.
        statistic: the largest surprise of a window after the last whole batch, in nats; 0 before the first.

    Raises:
        BadInput: the reference is too small or no matrix of numbers, or a number is not one that is allowed.
    """

    def __init__(self, reference: Floats, run_time: float, *, batch: int = 1, seed: int = 0) -> None:
        _must_be_vectors(reference, None)
        if batch < 1 or len(reference) < least(batch):
            raise BadInput(f"reference: {len(reference)} items for batches of {batch}; give at least {least(batch)}")
        if not 10 <= run_time <= 1e7:
            raise BadInput(f"run time: {run_time} batches; give one of 10 to 10,000,000")
        generator = numpy_generator(seed, "online")
        order = generator.permutation(len(reference))
        # The items that choose the features would look more alike under them than items of the same kind that come.
        chosen, rows = np.split(reference[order].astype(np.float32), [min(500, len(reference) // 4)])
        self._features = Features.chosen(chosen, rows, generator)
        self._batch, self._windows = batch, _lengths(min(len(rows) // (4 * batch), _LONGEST, int(run_time)))
        features = self._features(rows)
        self._mean = features.mean(0, dtype=np.float64).astype(np.float32)
        self._tails, self.threshold = calibrated(features, self._features.parts, self._windows, run_time, batch, seed)
        self._wait, self.statistic = np.zeros((0, reference.shape[1]), np.float32), 0.0
        self._begin()

    def update(self, vectors: Floats) -> bool:
        """Look at the next items, and say whether they have drifted; after an alarm it begins anew.

        Args:
            vectors: float32 ``[M, D]``; what makes no whole batch waits for the next ones.
        """
        _must_be_vectors(vectors, len(self._features.centre))
        self._wait, alarm = np.concatenate([self._wait, vectors.astype(np.float32)]), False
        while len(self._wait) >= self._batch:
            batch, self._wait = np.split(self._wait, [self._batch])
            alarm = self._step(batch) or alarm
        return alarm

    def state(self) -> bytes:
        """Return all of it, as one npz, from which `resume` goes on bit for bit."""
        about = {
            "format": FORMAT,
            "batch": self._batch,
            "windows": self._windows,
            "directions": self._features.directions,
            "most": self._features.most,
            "threshold": self.threshold,
            "statistic": self.statistic,
        }
        arrays: dict[str, Any] = {
            "about": np.array(json.dumps(about)),
            "centre": self._features.centre,
            "projection": self._features.projection,
            "mean": self._mean,
            "wait": self._wait,
            "last": self._last,
            "start": self._tails.start,
            "spread": self._tails.spread,
            "shape": self._tails.shape,
        }
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    @classmethod
    def resume(cls, state: bytes) -> Online:
        """Return the detector that `state` was taken from.

        Raises:
            BadInput: it is no such state.
        """
        found = cls.__new__(cls)
        try:
            with np.load(io.BytesIO(state), allow_pickle=False) as file:
                about, arrays = json.loads(str(file["about"])), {name: file[name] for name in file.files}
            if about["format"] != FORMAT:
                raise BadInput(f"state of a detector: format {about['format']} is not this version's; make it anew")
            found._features = Features(arrays["centre"], arrays["projection"], about["directions"], about["most"])
            found._batch, found._windows = about["batch"], about["windows"]
            found.threshold, found.statistic = float(about["threshold"]), float(about["statistic"])
            found._mean, found._wait, found._last = arrays["mean"], arrays["wait"], arrays["last"]
            found._tails = Tails(arrays["start"], arrays["spread"], arrays["shape"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise BadInput(f"state of a detector: is not readable ({type(error).__name__}); make it anew") from None
        return found

    def _begin(self) -> None:
        self._last = np.zeros((0, len(self._mean)), np.float32)

    def _step(self, batch: Floats) -> bool:
        mean = self._features(batch).mean(0) - self._mean
        self._last = np.concatenate([mean[None], self._last[: self._windows[-1] - 1]])  # the newest first
        full = [w for w in self._windows if w <= len(self._last)]
        sums = np.cumsum(self._last, 0, dtype=np.float64)[np.array(full) - 1]
        values = np.full((len(self._features.parts), len(self._windows)), np.nan)
        for place, part in enumerate(self._features.parts):
            values[place, : len(full)] = np.square(sums[:, part]).sum(1) / full
        self.statistic = float(np.nanmax(self._tails.surprise(values.reshape(-1))))
        if self.statistic > self.threshold:
            self._begin()
            return True
        return False


def least(batch: int) -> int:
    """Return how many items a reference needs for batches of so many."""
    return max(_LEAST, 8 * batch)


def _lengths(longest: int) -> list[int]:
    """Return the Fibonacci numbers up to the longest window: each is about 1.6 times the one before."""
    found, following = [1], 2
    while following <= longest:
        found.append(following)
        following = found[-1] + found[-2]
    return found


def _must_be_vectors(vectors: Floats, width: int | None) -> None:
    if vectors.ndim != 2:
        raise BadInput(f"vectors: have shape {vectors.shape}; give one row an item, [N, D]")
    if width is not None and vectors.shape[1] != width:
        raise BadInput(f"vectors: have {vectors.shape[1]} numbers each, the reference {width}; embed with one encoder")
    must_be_finite(vectors, "vectors")
