"""Signals: what of a window can be wrong; a function each, which says whether it is and by which figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastness.core.errors import BadInput, Failure
from fastness.core.registry import Registry as Names
from fastness.evaluation.slices import asked as named
from fastness.evaluation.slices import where
from fastness.monitoring.explain.parts import as_known, pooled
from fastness.monitoring.kept.traffic import Traffic
from fastness.monitoring.policy import Policy
from fastness.monitoring.sketch import Sketch
from fastness.monitoring.window import Array, Window

if TYPE_CHECKING:
    from fastness.monitoring.drift import Verdict
    from fastness.monitoring.explain.explanation import Past
    from fastness.monitoring.quality import Rate

_REQUESTS = 20  # fewer say too little of a share, however many items they hold
_DAY = 86_400_000_000  # microseconds
_LEAST = 10  # items that are explained, before and after
_FINDINGS = 8  # of a verdict that are written down, whether they alarm or not


@dataclass(frozen=True)
class Asked:
    """What a signal is asked about.

    Attributes:
        traffic: windows that are judged together.
        watch, name, alias: where what is kept of it lies.
        labelled: files of labels that were there when the version's answers were last held against them; ``None``
            leaves that to a window of later.
        sketch: gives the version's reference, ``None`` if it has none.
        settings: of the policy.
        least: items, or requests, without which nothing is said.
        seed: of what is drawn at random.
        past: gives the changes that were seen before.
    """

    traffic: Traffic
    watch: Path
    name: str
    alias: str
    labelled: int | None
    sketch: Callable[[], Sketch | None]
    settings: Any
    least: int
    seed: int
    past: Callable[[], Sequence[Past]] = tuple


@dataclass(frozen=True)
class Reading:
    """What a signal says.

    Attributes:
        alarm: whether it is wrong.
        said: in words, with numbers.
        p: chance of as much if all were right; ``None`` where an interval tells.
        detail: more, as JSON values.
    """

    alarm: bool
    said: str
    p: float | None = None
    detail: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        found: dict[str, Any] = {"alarm": self.alarm, "said": self.said, "p": self.p}
        return dict(_told(found if self.detail is None else {**found, "detail": self.detail}))


def _told(value: Any) -> Any:
    """Return JSON values without NUL, which clients may send in ids and names, and PostgreSQL keeps in no text."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_told(key): _told(inner) for key, inner in value.items()}
    return [_told(inner) for inner in value] if isinstance(value, list | tuple) else value


Says = Callable[[Asked], Reading | None]
"""Judges; ``None`` if there is too little to say anything."""

SIGNALS: Names[Says] = Names("signal", __name__, {})


def judged_by(policy: Policy, asked: Asked, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what each signal of a policy says, those that say nothing left out, as JSON values.

    Args:
        policy: what is watched.
        asked: about what; the settings are put in.
        say: is told of signals that cannot be judged, since a file is damaged, say; the others are.
    """
    found = {}
    for name, settings in policy.signals.named().items():
        try:
            said = SIGNALS.get(name)(replace(asked, settings=settings))
        except BadInput as error:
            say(f"{name}: cannot be judged: {error}")
            continue
        except Failure:
            raise  # a disk that may come back: the window is judged later
        except Exception as error:  # noqa: BLE001 - one signal that stumbles is not to blind all the others
            say(f"{name}: cannot be judged: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        if said is not None:
            found[name] = said.to_dict()
    return found


@SIGNALS.register("drift")
def drift(asked: Asked) -> Reading | None:
    """Whether embeddings and columns are those of the reference; if not, why."""
    from fastness.monitoring.drift import drifted
    from fastness.monitoring.explain.explain import explain

    reference, window, settings = asked.sketch(), asked.traffic.window, asked.settings
    if reference is None or len(window) < asked.least:
        return None
    slices, without = _there(settings.slices, reference.window, window)
    verdict = drifted(
        reference.window,
        window,
        level=settings.level,
        tests=settings.tests,
        slices=slices,
        seed=asked.seed,
        floors=settings.floors,
    )
    found = [finding for finding in verdict.findings if finding.alarm]
    told = sorted(verdict.findings, key=lambda finding: not finding.alarm)[: max(_FINDINGS, len(found))]
    detail = {**verdict.to_dict(), "findings": [asdict(finding) for finding in told]}
    said = verdict.said
    if verdict.alarm:
        explained = explain(*_concerned(verdict, reference, window), verdict, asked.past(), seed=asked.seed)
        said, detail["explanation"] = f"{said}; {explained.said}", explained.to_dict()
    if without:
        said, detail["not judged"] = f"{said}; not judged: {', '.join(without)}", without
    return Reading(verdict.alarm, said, verdict.findings[0].p, detail)


def _there(slices: Sequence[str], reference: Window, window: Window) -> tuple[list[str], dict[str, str]]:
    """Return the slices that can be judged, and why the others cannot: clients may stop to say what they said."""
    known, found, without = as_known(pooled(reference, window)), [], {}
    for name in slices:
        try:
            named([name], known)
            found.append(name)
        except BadInput as error:
            without[name] = str(error)
    return found, without


def _concerned(verdict: Verdict, reference: Sketch, window: Window) -> tuple[Sketch, Window]:
    """Return the items that are to be explained: if all that alarms lies within slices, those of these slices.

    How large a part of all the slices are is another question, which nobody asked: it would hide what changed in them.
    """
    found = [finding for finding in verdict.findings if finding.alarm]
    if any(finding.test != "within" for finding in found):
        return reference, window
    known, n = as_known(pooled(reference.window, window)), len(reference.window)
    inside = np.any([where(finding.what, known).mask for finding in found], axis=0)
    if min(inside[:n].sum(), inside[n:].sum()) < _LEAST:
        return reference, window
    return replace(reference, window=reference.window.select(inside[:n])), window.select(inside[n:])


# -- requests ----------------------------------------------------------------------------------------------------------


@SIGNALS.register("errors")
def errors(asked: Asked) -> Reading | None:
    """Whether too many requests end in an error of the service."""
    return _requests(asked, "requests that ended in an error", asked.traffic.counts.get("errors", 0))


@SIGNALS.register("refused")
def refused(asked: Asked) -> Reading | None:
    """Whether too many requests are refused for want of room or time."""
    return _requests(asked, "refused requests", asked.traffic.counts.get("refused", 0))


@SIGNALS.register("undecodable")
def undecodable(asked: Asked) -> Reading | None:
    """Whether too many requests hold something that cannot be read."""
    return _requests(asked, "requests with an item that cannot be read", asked.traffic.counts.get("undecodable", 0))


@SIGNALS.register("latency")
def latency(asked: Asked) -> Reading | None:
    """Whether too many requests are slow."""
    seconds = asked.settings.seconds
    return _requests(asked, f"requests that took more than {seconds:g} s", asked.traffic.slower(seconds))


def _requests(asked: Asked, what: str, hits: float) -> Reading | None:
    """Say whether a share of requests is above its ceiling, by the exact binomial test."""
    from fastness.monitoring.quality import against_share

    n, settings = int(asked.traffic.counts.get("requests", 0)), asked.settings
    if n < min(asked.least, _REQUESTS):
        return None
    rate = against_share(what, int(hits), n, settings.ceiling)
    said = f"{what}: {rate.hits:,} of {n:,} ({rate.share:.1%}; allowed {settings.ceiling:.1%})"
    return Reading(rate.share > settings.ceiling and rate.p < settings.level, said, rate.p)


# -- items -------------------------------------------------------------------------------------------------------------


@SIGNALS.register("outliers")
def outliers(asked: Asked) -> Reading | None:
    """Whether more items are like nothing that was known."""
    from fastness.monitoring import quality

    reference = asked.sketch()
    novelty = None if reference is None else reference.window.columns.get(quality.NOVELTY)
    if reference is None or novelty is None or not np.isfinite(novelty).any():
        return None
    threshold = float(np.nanquantile(novelty, asked.settings.beyond))
    return _usual(asked, [quality.outliers(reference.window, asked.traffic.window, threshold)])


@SIGNALS.register("abstained")
def abstained(asked: Asked) -> Reading | None:
    """Whether the head gives no answer more often."""
    from fastness.monitoring import quality

    reference = asked.sketch()
    return None if reference is None else _usual(asked, [quality.abstained(reference.window, asked.traffic.window)])


@SIGNALS.register("missing")
def missing(asked: Asked) -> Reading | None:
    """Whether more is missing of what is known of items."""
    from fastness.monitoring import quality

    reference = asked.sketch()
    if reference is None:
        return None
    return _usual(asked, quality.missing(reference.window, asked.traffic.window, columns=asked.settings.columns))


def _usual(asked: Asked, rates: Sequence[Rate | None]) -> Reading | None:
    """Say whether a share of items, of several the least likely, is higher than usual."""
    known = [rate for rate in rates if rate is not None and rate.n >= asked.least]
    if not known:
        return None
    settings = asked.settings
    wrong = [rate for rate in known if rate.p < settings.level and rate.share - rate.usual > settings.more]
    first = (wrong or known)[0]
    return Reading(bool(wrong), first.said, first.p)


@SIGNALS.register("collapse")
def collapse(asked: Asked) -> Reading | None:
    """Whether embeddings no longer tell items apart."""
    from fastness.monitoring.quality import spread

    reference, window = asked.sketch(), asked.traffic.window
    found = (
        None if reference is None or len(window) < asked.least else spread(reference.window, window, seed=asked.seed)
    )
    return None if found is None else Reading(found.left < asked.settings.rank, found.said)


# -- answers -----------------------------------------------------------------------------------------------------------


@SIGNALS.register("estimate")
def estimate(asked: Asked) -> Reading | None:
    """Whether answers are probably wrong too often, by how sure they are."""
    from fastness.monitoring.estimate import estimated

    reference, window, settings = asked.sketch(), asked.traffic.window, asked.settings
    if reference is None or len(window) < asked.least:
        return None
    found = estimated(reference.window, window, level=settings.level, seed=asked.seed)
    if found is None:
        return None
    fell = settings.drop is not None and found.drop_low > settings.drop
    return Reading(fell or (settings.floor is not None and found.high < settings.floor), found.said)


@SIGNALS.register("labels")
def labels(asked: Asked) -> Reading | None:
    """Whether answers were wrong too often, by labels, if new ones have come since they were last asked."""
    from fastness.monitoring.kept.labels import files, joined
    from fastness.monitoring.quality import answered

    settings, reference, end = asked.settings, asked.sketch(), asked.traffic.end
    came = len(files(asked.watch, asked.name, asked.alias))  # none is ever changed
    if asked.labelled is None or came == asked.labelled:
        return None
    since = max(0, end - int(settings.days * _DAY))
    found = joined(asked.watch, asked.name, asked.alias, since, damaged=lambda error: None)  # the monitor has said it
    own = np.array([version == asked.traffic.version for version in found.versions], bool) & ~found.abstained
    said = answered(
        found.predicted[own],
        found.confidence[own],
        found.truth[own],
        right=None if reference is None else _right(reference.window),
        level=settings.level,
        seed=asked.seed,
    )
    if said is None or said.n < asked.least:
        return None
    fell = settings.drop is not None and said.drop_low is not None and said.drop_low > settings.drop
    alarm = fell or (settings.floor is not None and said.high < settings.floor)
    return Reading(alarm, said.said, said.p, {"files": came})


def _right(reference: Window) -> Array | None:
    """Return whether answers to items of the reference were right; where none was given nobody asks."""
    right, abstained = (reference.columns.get(name) for name in ("right", "abstained"))
    return right if right is None or abstained is None else np.where(abstained == 1, np.nan, right)
