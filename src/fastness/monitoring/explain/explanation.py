"""What an explanation is: causes, the items that tell, and a signature by which it is found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cause:
    """Something that explains why new items differ from the reference.

    Attributes:
        kind: ``slice``, ``column``, ``cluster new``, ``cluster grew``, ``cluster shrank``, ``cluster vanished`` or
            ``all moved``.
        what: an expression, a column, or what a cluster is called.
        before, after: its share of the reference and of the new items; of a column of numbers the medians; of
            ``all moved`` the share of items that a classifier takes for new ones.
        effect: which share of all that differs it explains, 0 to 1; the causes before it are held.
        p: of it under permutations, the search among all parts considered.
        said: a sentence.
        rows: positions of the new items (of the reference's, where it shrank) that are of it, the most telling first.
    """

    kind: str
    what: str
    before: float
    after: float
    effect: float
    p: float
    said: str
    rows: Sequence[int] = field(default=(), compare=False, repr=False)

    @property
    def gone(self) -> bool:
        """Return whether ``rows`` are of the reference, since it is they that are missed."""
        return self.kind in ("cluster shrank", "cluster vanished") or (
            self.kind == "slice" and self.after < self.before
        )


@dataclass(frozen=True)
class Driver:
    """An item that could hardly be one of the other side.

    Attributes:
        row: its position.
        id: as its client named it.
        odds: log of the odds that it is a new one, by a classifier that did not see it.
    """

    row: int
    id: str
    odds: float


@dataclass(frozen=True)
class Share:
    """A cluster's share before and after."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Signature:
    """What a change looks like, to be found again.

    Attributes:
        shift: direction of the mean's shift ``[D]``, length 1.
        clusters: change of each known cluster's share ``[K]``; of a reference without clusters empty.
        causes: what the causes were called.
    """

    shift: list[float]
    clusters: list[float]
    causes: list[str]

    def alike(self, other: Signature) -> float:
        """Return how alike two changes are, 1: the same; directions count only where both have one, in one space."""
        pairs = ((self.shift, other.shift), (self.clusters, other.clusters))
        found = [cosine for a, b in pairs if len(a) == len(b) and (cosine := _cosine(a, b)) is not None]
        if self.causes or other.causes:
            both = set(self.causes) | set(other.causes)
            found.append(len(set(self.causes) & set(other.causes)) / len(both))
        return float(np.mean(found)) if found else 0.0


@dataclass(frozen=True)
class Past:
    """A change that was seen before: its id, what it is called, and how it looked."""

    id: str
    title: str
    signature: Signature


@dataclass(frozen=True)
class Explanation:
    """Why new items differ from the reference.

    Attributes:
        causes: those that explain most first; each explains what those before it leave.
        difference: how much the two differ by all that is known, in nats an item: 0 as they are the same, at most the
            entropy of which side an item is of.
        left: share of it that no cause explains.
        drivers: new items that could hardly be of the reference, the most telling first.
        missed: items of the reference that could hardly be new ones.
        clusters: shares of the reference's clusters, or of clusters of all items, the most changed first.
        only: columns that only one of the two has, and that are not compared.
        signature: to find it again.
        nearest: the past change that it resembles most, and how much; ``None`` without any.
    """

    causes: list[Cause]
    difference: float
    left: float
    drivers: list[Driver]
    missed: list[Driver]
    clusters: list[Share]
    only: list[str]
    signature: Signature
    nearest: tuple[Past, float] | None

    @property
    def said(self) -> str:
        """Return the first cause in a sentence."""
        return self.causes[0].said if self.causes else "nothing that is known of the items explains a difference"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        found = asdict(self)
        for cause in found["causes"]:
            del cause["rows"]
        near = self.nearest
        nearest = None if near is None else {"id": near[0].id, "title": near[0].title, "alike": near[1]}
        return {**found, "nearest": nearest, "said": self.said}


def _cosine(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the cosine of two directions, ``None`` where one of them has no length."""
    a, b = np.array(first), np.array(second)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 0 else None
