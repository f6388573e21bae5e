"""What changed: causes in the order of how much each explains, and the items that tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.core.seeds import numpy_generator
from fastness.monitoring.drift import EMBEDDINGS, Verdict, drifted
from fastness.monitoring.explain import parts
from fastness.monitoring.explain.causes import Choice, all_moved, cause_of
from fastness.monitoring.explain.explanation import Cause, Explanation, Past, Share, Signature
from fastness.monitoring.explain.information import gains, shuffled, together, told
from fastness.monitoring.explain.parts import Part
from fastness.monitoring.explain.scene import Scene, odds_of, told_by
from fastness.monitoring.sketch import Sketch
from fastness.monitoring.window import Window

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]

_PERMUTATIONS = 199
_LEVEL = 0.01  # of what is called a cause
_CAUSES = 5
_SMALL = 0.05  # share of all that differs, below which nothing is called a cause
_ALONE = 0.8  # share of what a column tells, above which one value or range of it is named instead
_HALF = 0.5
_LIKED = {"fact": 1.0, "cluster": 0.9, "found": 0.85, "answer": 0.4}
"""How much of what a part tells counts when causes are ranked: of two that tell nearly the same, the one that says more
to a person comes first."""


def explain(
    reference: Window | Sketch,
    window: Window,
    verdict: Verdict | None = None,
    past: Sequence[Past] = (),
    *,
    seed: int = 0,
) -> Explanation:
    """Say what changed between a reference and new items.

    Candidates are values and ranges of all that is known of the items, clusters of the reference, and clusters found
    among both together. A cause is the candidate that tells most of which side an item is of (mutual information), then
    the one that tells most where the first is held, and so on while a permutation test within what is held finds more.
    At most 2,000 items of either are looked at, drawn at random.

    Args:
        reference: items, or a sketch, of which clusters are known.
        window: the new items.
        verdict: what the tests found; slices that it names are candidates.
        past: changes that were seen before.
        seed: of the items that are drawn and the permutations.

    Raises:
        BadInput: one of the two has fewer than ten items, or they are not of one space.
    """
    before = reference if isinstance(reference, Window) else reference.window
    _check(before, window)
    scene = Scene.of(before, window, seed)
    clusters, shares, changes = _clusters(scene, None if isinstance(reference, Window) else reference)
    expressions = [f.what for f in verdict.findings if f.what not in (*before.columns, EMBEDDINGS)] if verdict else []
    candidates = [*parts.of_columns(scene.columns, expressions), *clusters]
    odds = odds_of(scene)
    causes, difference, left = _ranked(scene, candidates, odds)
    shift = window.vectors.mean(0, dtype=np.float64) - before.vectors.mean(0, dtype=np.float64)
    length = float(np.linalg.norm(shift))
    direction = [round(float(x), 5) for x in shift / length] if length > 0 else []
    signature = Signature(direction, changes, [c.what for c in causes if c.kind in ("slice", "column")])
    near = max(((one, signature.alike(one.signature)) for one in past), key=lambda pair: pair[1], default=None)
    return Explanation(
        causes,
        difference,
        left,
        scene.drivers(odds, new=True),
        scene.drivers(-odds, new=False),
        shares,
        sorted(set(before.columns) ^ set(window.columns)),
        signature,
        near,
    )


def _check(before: Window, window: Window) -> None:
    for called, items in (("the reference", before), ("the new items", window)):
        if len(items) < 10:
            raise BadInput(f"{called}: {len(items)} items; at least 10 are needed to say what changed")
    if before.vectors.shape[1] != window.vectors.shape[1]:
        raise BadInput(
            f"vectors: the reference's have length {before.vectors.shape[1]} and the new ones"
            f" {window.vectors.shape[1]}; give embeddings of one encoder"
        )


def _clusters(scene: Scene, known: Sketch | None) -> tuple[list[Part], list[Share], list[float]]:
    """Return clusters as parts, with names; shares of the reference's, to be shown; changes of those it knew before."""
    sketch = known or _sketched(scene)
    made, number = parts.of_clusters(scene.vectors, sketch.centroids, sketch.names)
    count = [np.bincount(number[scene.new == new], minlength=len(sketch.names)) for new in (False, True)]
    before, after = (counted / counted.sum() for counted in count)
    shares = [Share(n, float(b), float(a)) for n, b, a in zip(sketch.names, before, after, strict=True)]
    found = [
        Part(p.kind, "", f"near '{sketch.names[int(np.bincount(number[p.mask]).argmax())]}'", p.mask)
        for p in parts.found_clusters(scene.vectors)
    ]
    changes = [] if known is None else [round(float(x), 5) for x in after - before]
    # Clusters that were only just fitted to the reference hold its items a little more tightly than any other's, so
    # that they may be shown but are no fair candidates.
    return [*(made if known else []), *found], sorted(shares, key=lambda s: -abs(s.after - s.before)), changes


def _sketched(scene: Scene) -> Sketch:
    from fastness.monitoring.sketching import of_window

    return of_window(scene.reference.select(scene.rows[0]), {}, seed=scene.seed)


def _ranked(scene: Scene, candidates: list[Part], odds: Numbers) -> tuple[list[Cause], float, float]:
    """Return causes, how much differs, and which share of it none of them explains."""
    by_vectors = told_by(odds, scene.new)
    taken = _taken(scene, candidates, by_vectors)
    explained = sum(one.gain for one in taken)
    difference = max(by_vectors, explained, 0.0)
    causes = [cause_of(scene, one, odds, difference) for one in taken]
    left = 1 - explained / difference if difference > 0 else 0.0
    if left > _HALF and (p := _chance(scene)) <= _LEVEL:
        causes.append(all_moved(scene, odds, left, p))
        causes.sort(key=lambda cause: -cause.effect)
    return causes, difference, left


def _chance(scene: Scene) -> float:
    """Return p of the embeddings alone, exact: ranks of odds that several fits gave are not independent."""
    old, new = (Window(scene.vectors[scene.new == side]) for side in (False, True))
    return drifted(old, new, level=_LEVEL, seed=scene.seed).findings[0].p


def _taken(scene: Scene, candidates: list[Part], by_vectors: float) -> list[Choice]:
    """Return the candidates that tell most, each where those before it are held."""
    masks = np.stack([p.mask for p in candidates], 1) if candidates else np.zeros((len(scene.new), 0), np.bool_)
    bins = {name: parts.divided(values) for name, values in scene.columns.items()}
    liked = np.array([_LIKED[p.kind] for p in candidates])
    strata = np.zeros(len(scene.new), np.int64)
    taken: list[Choice] = []
    while candidates and len(taken) < _CAUSES:
        rng = numpy_generator(scene.seed, "explain", "permuted", len(taken))
        all_gains = gains(masks, shuffled(scene.new, strata, _PERMUTATIONS, rng), strata)
        alone = all_gains[:, 0] - all_gains[:, 1:].mean(1)
        of_column = {name: told(values, scene.new, strata) for name, values in bins.items()}
        worth = np.array([max(g, of_column.get(p.column, 0.0)) for g, p in zip(alone, candidates, strict=True)])
        # What tells as much as its complement does is the smaller of the two.
        best = int(np.lexsort((-masks.sum(0), alone.round(9), (worth * liked).round(9)))[-1])
        p = (1 + int((all_gains[:, 1:].max(0) >= all_gains[best, 0]).sum())) / (_PERMUTATIONS + 1)
        total = max(by_vectors, sum(one.gain for one in taken) + worth[best])
        if p > _LEVEL or worth[best] < _SMALL * total:
            break
        part = candidates[best]
        rivals = [i for i, other in enumerate(candidates) if other.column == part.column]
        searched = all_gains[best, 0] - all_gains[rivals, 1:].max(0).mean()  # the best of many cuts flatters itself
        whole = part.column in of_column and bool(searched < _ALONE * of_column[part.column])
        divided = bins[part.column] if whole else part.mask.astype(np.int64)
        taken.append(Choice(part, float(worth[best] if whole else alone[best]), p, whole, divided))
        strata = together(strata, divided)
    return taken
