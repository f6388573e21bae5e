"""Is what was exported what was trained? Measured on real items, through the code that runs it elsewhere."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from fastness.bundle.heads import Head
from fastness.delivery.intake import Floats, Sample
from fastness_runtime import Answers, Encoder
from fastness_runtime.sessions import OUTPUTS

_SAME = 0.98  # share of items that must be given the same answer, be it a class or none
_ALONE = 16  # items that are also given one by one
_DIFFERENT = 1e-3  # of a number of an embedding of length 1
_SHOWN = 64  # items from which those are taken that stay with the export
_LARGEST = 4 << 20  # bytes of these, if there are smaller pictures
_APART = (1, 2, 4, 8, 16)  # places between the items of a pair


@dataclass(frozen=True)
class Alike:
    """How the answers of an export's head compare with the head's own on the encoder's features.

    Attributes:
        same: share of items that are given the same answer: the same class, or none.
        probability: largest difference of a probability.
        novelty: largest difference of the novelty, as a share of its standard deviation over the items.
        abstained, expected: shares of items that are refused an answer, by the export and by the head.
    """

    same: float
    probability: float
    novelty: float
    abstained: float
    expected: float

    @property
    def holds(self) -> bool:
        """Whether enough answers are the same."""
        return self.same >= _SAME

    @property
    def said(self) -> str:
        """What is judged, in words."""
        return (
            f"its head gives {self.same:.1%} of items the answer of the encoder's head, not {_SAME:.0%}, and refuses "
            f"{self.abstained:.1%} instead of {self.expected:.1%}"
        )


@dataclass(frozen=True)
class Parity:
    """How an export's embeddings compare with the encoder's.

    Attributes:
        items: how many were compared.
        least, mean: of the cosines between the two embeddings of each item.
        worst: position of the item with the least.
        alone: largest difference of a number of an embedding between an item alone and among 63 others.
        order: rank correlation (Spearman) of the cosines of pairs of items, by the one and by the other.
        judged: which of these is refused below the floor, ``least`` or ``order``.
        floor: of it.
        head: how its head compares, if it has one.
    """

    items: int
    least: float
    mean: float
    worst: int
    alone: float
    order: float
    judged: str
    floor: float
    head: Alike | None = None

    @property
    def holds(self) -> bool:
        """Whether the floor is kept, whatever an item comes with, and the head says what it said."""
        return self._kept and self.alone <= _DIFFERENT and (self.head is None or self.head.holds)

    @property
    def _kept(self) -> bool:
        return bool(getattr(self, self.judged) >= self.floor)

    @property
    def said(self) -> str:
        """What is judged, in words."""
        if self.alone > _DIFFERENT:
            return f"an item alone is embedded otherwise than among others, by {self.alone:.2g}, not {_DIFFERENT:g}"
        if self._kept and self.head is not None:
            return self.head.said
        if self.judged == "order":
            return f"it orders pairs of {self.items} items as the encoder does by {self.order:.3f} of {self.floor}"
        return f"item {self.worst} of {self.items} has a cosine of {self.least:.5f} to the encoder's, not {self.floor}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {**asdict(self), "holds": self.holds}


def compared(exported: Encoder, sample: Sample, judged: str, floor: float, head: Head | None = None) -> Parity:
    """Embed a sample by an export, let its head answer, and compare; see `Parity`."""
    found = exported.embed(sample.items, batch_size=64)
    alike = cosines(found, sample.vectors)
    few = sample.select(range(min(_ALONE, len(sample))))
    alone = float(np.abs(exported.embed(few.items, batch_size=1) - found[: len(few)]).max())
    return Parity(
        len(sample),
        float(alike.min()),
        float(alike.mean()),
        int(alike.argmin()),
        alone,
        _order(found, sample.vectors),
        judged,
        floor,
        None if head is None else answers_alike(exported.classify(sample.items), head.answer(sample.features)),
    )


def sample_of(exported: Encoder, sample: Sample) -> bytes:
    """Return a few of the items, as the graph takes them, and their embeddings, float32 ``[B, dim]``, as ``.npz``.

    Wherever the export is loaded later, whether it still gives these can be seen without any data.
    """
    few = sample.select(range(min(_SHOWN, len(sample))))
    batches = [
        batch[: max(1, min(_ALONE, _LARGEST // batch[:1].nbytes))] for _, batch in exported.batches(few.items, _ALONE)
    ]
    batch = max(batches, key=lambda batch: (batch.nbytes <= _LARGEST, len(batch), -batch.nbytes))
    file = io.BytesIO()
    np.savez(file, batch=batch, embeddings=exported.session.run(batch, OUTPUTS[0])[0])
    return file.getvalue()


def answers_alike(found: Answers, expected: Answers) -> Alike:
    """Compare answers to the same items."""
    same = (found.labels == expected.labels) & ~found.abstained & ~expected.abstained
    same |= found.abstained & expected.abstained
    spread = max(float(expected.novelty.std()), 1e-12)
    return Alike(
        float(same.mean()),
        float(np.abs(found.probabilities - expected.probabilities).max()),
        float(np.abs(found.novelty - expected.novelty).max()) / spread,
        float(found.abstained.mean()),
        float(expected.abstained.mean()),
    )


def cosines(these: Floats, those: Floats) -> npt.NDArray[np.float64]:
    """Return the cosine of each row of ``[N, D]`` with the row of the same place of the other."""
    a, b = these.astype(np.float64), those.astype(np.float64)
    return np.asarray((a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12))


def _order(these: Floats, those: Floats) -> float:
    """Return the rank correlation of the similarities of items with some others; NaN of fewer than three pairs."""
    apart = [shift for shift in _APART if shift < len(these)]
    pairs = [np.concatenate([(x * np.roll(x, shift, 0)).sum(1) for shift in apart] or [[]]) for x in (these, those)]
    return float(stats.spearmanr(*pairs)[0]) if len(pairs[0]) > 2 else float("nan")
