"""A reference and new items, one behind the other, and what a classifier thinks of which is which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.seeds import numpy_generator
from fastness.evaluation.slices import described
from fastness.monitoring.explain import parts
from fastness.monitoring.explain.explanation import Driver
from fastness.monitoring.window import Floats, Window

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

_MOST = 2000  # items of either that are looked at
_DRIVERS = 12


@dataclass(frozen=True)
class Scene:
    """Items of both, one behind the other.

    Attributes:
        reference, window: as they were given.
        rows: positions of the items that are looked at, of the reference and of the window.
        vectors, columns: of these.
        new: bool ``[N]``, which are of the window.
        seed: of all that is drawn.
    """

    reference: Window
    window: Window
    rows: tuple[Ints, Ints]
    vectors: Floats
    columns: dict[str, Array]
    new: Mask
    seed: int

    @staticmethod
    def of(reference: Window, window: Window, seed: int) -> Scene:
        rows = tuple(
            np.sort(numpy_generator(seed, "explain", side).permutation(len(items))[:_MOST]).astype(np.int64)
            for side, items in (("reference", reference), ("window", window))
        )
        looked = reference.select(rows[0]), window.select(rows[1])
        return Scene(
            reference,
            window,
            (rows[0], rows[1]),
            np.concatenate([looked[0].vectors, looked[1].vectors]),
            parts.pooled(*looked),
            np.arange(len(rows[0]) + len(rows[1])) >= len(rows[0]),
            seed,
        )

    def positions(self, mask: Mask, odds: Numbers, new: bool) -> list[int]:
        """Return positions, among all items of a side, of those that a mask has; of the largest odds first."""
        side = mask[self.new == new]
        chosen = np.flatnonzero(side)
        order = np.argsort(-odds[self.new == new][chosen], kind="stable")
        return [int(i) for i in self.rows[new][chosen[order]]]

    def drivers(self, odds: Numbers, *, new: bool) -> list[Driver]:
        """Return the items of a side that the odds speak for most; those that they speak against are none."""
        side = self.window if new else self.reference
        mine = odds[self.new == new]
        order = np.argsort(-mine, kind="stable")[:_DRIVERS]
        rows = [(int(self.rows[new][i]), float(mine[i])) for i in order if mine[i] > 0]
        sign = 1 if new else -1
        return [Driver(row, side.ids[row] if len(side.ids) else "", round(sign * odd, 3)) for row, odd in rows]

    def described(self, mask: Mask, new: bool) -> str:
        """Return what tells the items of a side that a mask has from that side's others, by all that it knows."""
        side = (self.window if new else self.reference).select(self.rows[new])
        inside = mask[self.new == new]
        if not 0 < inside.sum() < len(inside):
            return ""
        text = described(inside, parts.as_known(side.columns))
        return "" if text.startswith("nothing") else text


def odds_of(scene: Scene) -> Numbers:
    """Return of each item the log of the odds that it is a new one, by a classifier that did not see it, ``[N]``.

    Logistic regression on the strongest principal directions and their squares, so that a spread that grew is seen too;
    odds are as if both sides had as many items.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    strong = parts.directions(scene.vectors)
    features = np.concatenate([strong, strong**2], 1)
    folds = StratifiedKFold(min(5, int(scene.new.sum()), int((~scene.new).sum())), shuffle=True, random_state=0)
    found = np.zeros(len(features))
    for fit, held in folds.split(features, scene.new):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=200))
        found[held] = model.fit(features[fit], scene.new[fit]).decision_function(features[held])
    return found


def told_by(odds: Numbers, new: Mask) -> float:
    """Return what odds tell of the side, in nats an item: the entropy of the side less the loss of the odds.

    A classifier that saw few items is too sure of itself, so odds are first made smaller by the factor, one of 21, that
    fits best.
    """
    share = float(new.mean())
    logits = np.linspace(0, 1, 21)[:, None] * odds + np.log(share / (1 - share))
    loss = np.logaddexp(0, np.where(new, -logits, logits)).mean(1).min()
    return float(-share * np.log(share) - (1 - share) * np.log(1 - share) - loss)
