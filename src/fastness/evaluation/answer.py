"""The first screen: what speaks for a bundle and what against it, in plain words, from evidence alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastness.evaluation.evidence import Evidence
from fastness.evaluation.measurement import WHOLE, Measurement

_BASELINES = {"raw": "the raw items", "untrained": "the untrained network", "from_scratch": "training from scratch"}
_HONEST = 0.05  # expected calibration error that a person would not notice
_NOTICES = 0.9  # AUROC
_KEEPS = 0.8  # share of the clean accuracy
_SURE = 0.05  # corrected chance below which a finding is stated
_ALIKE = 1.25  # times the smallest error: the four-fifths rule turned to errors


@dataclass(frozen=True)
class Statement:
    """One sentence.

    Attributes:
        good: whether it speaks for the bundle, against it (``False``), or neither (``None``).
        text: the sentence.
    """

    good: bool | None
    text: str


def statements(evidence: Evidence) -> list[Statement]:
    """Return what is to be said, what speaks against the bundle first."""
    said: list[Callable[[Evidence], Iterator[Statement]]] = [
        _seen, _helps, _weakest, _corrupted, _honest, _notices, _groups
    ]  # fmt: skip
    found = [statement for say in said for statement in say(evidence)]
    return sorted(found, key=lambda s: {False: 0, True: 1, None: 2}[s.good])


def _seen(evidence: Evidence) -> Iterator[Statement]:
    seen = evidence.about["trained_on"]["held_out_items_seen_in_training"]
    if seen:
        yield Statement(
            False,
            f"{seen:,} of the held-out items were, byte for byte, among the items it learnt from; figures on them "
            "flatter it.",
        )


def _helps(evidence: Evidence) -> Iterator[Statement]:
    """Compare with the best baseline at the fewest labels that tell something."""
    for each in (5, 1, 10, 50):
        ours = evidence.get(f"few_label.{each}.encoder.accuracy")
        rivals = [evidence.get(f"few_label.{each}.{name}.accuracy") for name in _BASELINES]
        if ours is None or None in rivals:
            continue
        best = max((m for m in rivals if m is not None), key=lambda m: m.value)
        labels = f"{each} label{'s' if each > 1 else ''} a class"
        start = f"With {labels} a simple classifier on it is right {ours.value:.0%} of the time"
        rival = f"{_BASELINES[best.name.split('.')[2]]} {best.value:.0%}"
        if ours.low > best.high:
            yield Statement(True, f"It helps. {start}; the best without it, {rival}.")
        elif ours.high < best.low:
            yield Statement(False, f"It does not help. {start}; {rival}. Train longer or on more data.")
        else:
            yield Statement(None, f"Whether it helps is not clear. {start}; {rival}, and the intervals overlap.")
        return


def _weakest(evidence: Evidence) -> Iterator[Statement]:
    whole, worst = evidence.get("slices.accuracy"), weakest(evidence, 1)
    slices = [m for m in evidence.measurements if m.name == "slices.accuracy" and m.slice != WHOLE]
    if whole is None or not slices:
        return
    if not worst:
        yield Statement(
            True, f"On none of {len(slices)} slices is it worse than elsewhere by more than chance explains."
        )
        return
    m = worst[0]
    yield Statement(
        False,
        f"It is weakest on {m.slice}: right {m.value:.0%} of the time on {m.n:,} items, {whole.value:.0%} on all.",
    )


def weakest(evidence: Evidence, most: int) -> list[Measurement]:
    """Return the slices that are worse than the others by more than chance explains, the worst first."""
    slices = [m for m in evidence.measurements if m.name == "slices.accuracy"]
    return [m for m in slices if m.chance is not None and m.chance < _SURE][:most]


def _corrupted(evidence: Evidence) -> Iterator[Statement]:
    clean, mean = evidence.get("corruption.clean.accuracy"), evidence.get("corruption.mean.accuracy")
    worst = evidence.get("corruption.worst.accuracy")
    if clean is None or mean is None or not clean.value:
        return
    text = f"Under the common corruptions it is right {mean.value:.0%} of the time, {clean.value:.0%} on clean items"
    if worst:
        text += f"; worst is {worst.protocol.partition(';')[0].replace('_', ' ')}, {worst.value:.0%}"
    yield Statement(mean.value >= _KEEPS * clean.value, f"{text}.")


def _honest(evidence: Evidence) -> Iterator[Statement]:
    m = evidence.get("calibration.scaled.ece")
    if m is not None:
        good = m.value <= _HONEST
        is_so = "agrees with" if good else "does not agree with"
        yield Statement(good, f"How sure it says it is {is_so} how often it is right: {m.value:.1%} apart on average.")


def _notices(evidence: Evidence) -> Iterator[Statement]:
    """Of every set from outside, the score that tells best."""
    best: dict[str, Measurement] = {}
    for m in evidence.find("ood."):
        name = m.name.split(".")[1]
        if m.name.endswith(".auroc") and (name not in best or m.value > best[name].value):
            best[name] = m
    for name, m in best.items():
        good = m.value >= _NOTICES
        text = f"It {'notices' if good else 'does not reliably notice'} that {name} is none of its kinds"
        yield Statement(good, f"{text}: AUROC {m.value:.2f} by {m.name.split('.')[2]}.")


def _groups(evidence: Evidence) -> Iterator[Statement]:
    for apart in evidence.find("groups."):
        if not apart.name.endswith(".error.difference"):
            continue
        column = apart.name.removeprefix("groups.").removesuffix(".error.difference")
        ratio = evidence.get(f"groups.{column}.error.ratio")  # none where a group is never wrong
        large = "groups of at least 50 items"
        if apart.chance is not None and apart.chance < _SURE:
            text = f"It never errs in one group of {column} and on {apart.value:.0%} of another, beyond chance."
            if ratio is not None:
                text = (
                    f"It errs {ratio.value:.1f} times as often in one group of {column} as in another, beyond chance."
                )
            yield Statement(False if ratio is None or ratio.value > _ALIKE else None, text)
        elif ratio is not None and ratio.high <= _ALIKE:
            yield Statement(True, f"It errs about as often in all {large} of {column}.")
        else:
            yield Statement(None, f"Whether it errs more often in some group of {column} these items do not tell.")
