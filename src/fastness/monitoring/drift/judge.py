"""The judge: all tests under the same permutations, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fastness.core.errors import BadInput
from fastness.evaluation.slices import asked
from fastness.monitoring.drift.family import adjusted, fused, normal_scores, permuted
from fastness.monitoring.drift.pooled import DRIFT, SHARES, Floats, Member, Numbers, Pooled
from fastness.monitoring.drift.verdict import Finding, Verdict
from fastness.monitoring.explain.parts import as_known, pooled
from fastness.monitoring.window import Window

LEAST = 10  # items of a window
LOWEST = 1e-4  # level
_RESOLUTION = 20  # permutations that may be as extreme as what is found at the level


def drifted(
    reference: Window,
    window: Window,
    *,
    level: float = 0.01,
    tests: Sequence[str] | None = None,
    slices: Sequence[str] = (),
    seed: int = 0,
    floors: Mapping[str, float] | None = None,
) -> Verdict:
    """Return whether a window's items are still like those of a reference.

    All that is compared (embeddings, each column that both have, each slice) is one family: the chance that anything
    alarms although items of both come from the same source is ``level`` or less, at any size. Half of the level is the
    embeddings', a quarter that of columns, a quarter that of slices; what is not there leaves its part to the others.

    An alarm needs an effect as well, since among very many items anything is significant. An effect is what is measured
    less what permutations give, so it is nothing on average if nothing has changed. The floors are as low as what can
    be shown with some thousand items: with fewer they withhold next to nothing.

    Args:
        level: in [0.0001, 0.5]: permutations are 20 to the level.
        tests: names of `DRIFT`; default: all usual ones.
        slices: conditions (``vendor == 'x'``), or columns, of which each value is a slice.
        floors: by test the smallest effect that counts, in its unit.

    Raises:
        BadInput: too few items, other vectors than the reference's, nothing to compare, or an unknown name.
    """
    if not LOWEST <= level <= 0.5:
        raise BadInput(f"level {level:g}: must be {LOWEST:g} at least, and at most 0.5")
    compared = _pooled(reference, window, slices, seed)
    found = _members(compared, tests)
    wanted = dict(floors or {})
    for name in wanted:
        DRIFT.get(name)
    permutations = math.ceil(_RESOLUTION / level) - 1
    scores, effects = _judged(compared, [member for _, member in found], permutations)
    p = adjusted(scores, _weights([member for _, member in found]))
    findings = [
        _finding(name, member, float(q), effect, wanted.get(name, DRIFT.get(name).floor), level)
        for (name, member), q, effect in zip(found, p, effects, strict=True)
    ]
    findings.sort(key=lambda finding: finding.p)
    return Verdict(findings, level, compared.n, compared.m, permutations, seed)


def _pooled(reference: Window, window: Window, slices: Sequence[str], seed: int) -> Pooled:
    for name, items in (("reference", reference), ("window", window)):
        if len(items) < LEAST:
            raise BadInput(f"{name}: {len(items)} items say too little; give {LEAST} or more")
    dims = reference.vectors.shape[1], window.vectors.shape[1]
    if dims[0] != dims[1]:
        raise BadInput(f"window: vectors of {dims[1]} numbers, the reference has {dims[0]}; embed both with one model")
    vectors: Floats = np.concatenate([reference.vectors, window.vectors]).astype(np.float32)
    vectors -= vectors.mean(0, dtype=np.float64).astype(np.float32)
    columns = as_known(pooled(reference, window))
    return Pooled(vectors, columns, asked(slices, columns), len(reference), len(window), seed)


def _members(compared: Pooled, tests: Sequence[str] | None) -> list[tuple[str, Member]]:
    """Return what is compared, each with its test's name."""
    names = [name for name in DRIFT if DRIFT.get(name).usual] if tests is None else list(dict.fromkeys(tests))
    found = [(name, member) for name in names for member in DRIFT.get(name)().members(compared)]
    if not found:
        raise BadInput(f"tests {', '.join(names) or '(none)'}: there is nothing that they compare; name others")
    return found


def _judged(compared: Pooled, members: Sequence[Member], permutations: int) -> tuple[Numbers, list[float]]:
    """Return each member's normal scores ``[K, P + 1]``, and its effect."""
    parts: list[list[Numbers]] = [[] for _ in members]
    for labels in permuted(compared.n, compared.m, permutations, compared.seed):
        for part, member in zip(parts, members, strict=True):
            part.append(member.statistics(labels))
    scores, effects = [], []
    for part, member in zip(parts, members, strict=True):
        statistics = np.concatenate(part, 1)
        by_setting = normal_scores(statistics)
        excess = statistics - statistics[:, 1:].mean(1, keepdims=True)
        strongest = np.take_along_axis(excess, by_setting.argmax(0)[None], 0)[0]
        scores.append(fused(by_setting, member.weights))
        effects.append(member.effect(float(strongest[0] - strongest[1:].mean())))
    return np.stack(scores), effects


def _weights(members: Sequence[Member]) -> Numbers:
    """Return each member's part of the level."""
    kinds = [member.kind for member in members]
    found = np.array([SHARES[kind] / kinds.count(kind) for kind in kinds])
    return np.asarray(found / found.sum())


def _finding(name: str, member: Member, p: float, effect: float, floor: float, level: float) -> Finding:
    return Finding(name, member.what, p, effect, member.unit, floor, p <= level and effect >= floor)
