"""A cause in words: what a part of the items did, between a reference and new items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastness.core.conditions import missing
from fastness.monitoring.explain.explanation import Cause
from fastness.monitoring.explain.parts import Part
from fastness.monitoring.explain.scene import Scene

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

_HARDLY = {"found": 0.25, "cluster": 0.1}
"""How much a cluster's smaller share is of its larger one, below which it is new or has vanished."""
_MOVED_MOST = 0.25  # share of the new items by which «all moved» is described


@dataclass(frozen=True)
class Choice:
    """A candidate that was taken, what it tells, and how items are divided by it."""

    part: Part
    gain: float
    p: float
    whole: bool
    bins: Ints


def cause_of(scene: Scene, one: Choice, odds: Numbers, difference: float) -> Cause:
    """Return what was taken as a cause, with a sentence."""
    effect = min(1.0, one.gain / difference)
    if one.whole:
        return _column_moved(scene, one, odds, effect)
    mask, part = one.part.mask, one.part
    before, after = float(mask[~scene.new].mean()), float(mask[scene.new].mean())
    moved = f"{before:.1%} of the reference, {after:.1%} of the new items"
    if part.kind in ("fact", "answer"):
        kind, said = "slice", f"{'more' if after >= before else 'fewer'} items have {part.what}: {moved}"
    else:
        kind, said = _cluster_words(scene, part, before, after, moved)
    rows = scene.positions(mask, odds, True) if after >= before else scene.positions(mask, -odds, False)
    said += f"; it explains {effect:.0%} of what differs"
    return Cause(kind, part.what, before, after, effect, one.p, said, rows)


def _cluster_words(scene: Scene, part: Part, before: float, after: float, moved: str) -> tuple[str, str]:
    """Return what happened to a cluster, and a sentence of it."""
    grew = after >= before
    few = min(before, after) <= _HARDLY[part.kind] * max(before, after)
    kind = {(True, True): "new", (True, False): "grew", (False, True): "vanished", (False, False): "shrank"}[grew, few]
    words = {
        "new": f"new items lie where the reference has hardly any, {part.what}",
        "grew": f"more items lie in the cluster {part.what}",
        "vanished": f"items are hardly there any more that lay in the cluster {part.what}",
        "shrank": f"fewer items lie in the cluster {part.what}",
    }
    tells = scene.described(part.mask, grew)
    return f"cluster {kind}", f"{words[kind]}: {moved}" + (f" ({tells})" if tells else "")


def _column_moved(scene: Scene, one: Choice, odds: Numbers, effect: float) -> Cause:
    """Return a cause that is a column of which no single value or range says it."""
    name = one.part.column
    values = scene.columns[name]
    there = ~missing(values)
    if values.dtype.kind == "f":
        before, after = (float(np.median(values[there & (scene.new == new)])) for new in (False, True))
        said = f"values of {name} moved as a whole: the median went from {before:.4g} to {after:.4g}"
    else:
        before, after = float(one.part.mask[~scene.new].mean()), float(one.part.mask[scene.new].mean())
        said = f"the mix of {name} changed, most {one.part.what}: {before:.1%} before, {after:.1%} now"
    mask = one.part.mask
    grew = mask[scene.new].mean() >= mask[~scene.new].mean()
    rows = scene.positions(mask if grew else ~mask, odds, True)
    said += f"; it explains {effect:.0%} of what differs"
    return Cause("column", name, before, after, effect, one.p, said, rows)


def all_moved(scene: Scene, odds: Numbers, effect: float, p: float) -> Cause:
    """Return the cause of last resort: items differ, and no part of them says how."""
    seems = odds > 0
    before, after = float(seems[~scene.new].mean()), float(seems[scene.new].mean())
    telling = scene.new & (odds >= np.quantile(odds[scene.new], 1 - _MOVED_MOST))
    tells = scene.described(telling, True)
    said = (
        f"items moved without any part of them saying how: a classifier takes {after:.0%} of the new items"
        f" and {before:.0%} of the reference's for new ones"
        + (f"; those that moved most: {tells}" if tells else "")
        + f"; it explains {effect:.0%} of what differs"
    )
    return Cause("all moved", "embeddings", before, after, effect, p, said, scene.positions(seems, odds, True))
