"""Signals: what of a window can be wrong; a function each, which says whether it is and by which figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fastness.core.errors import BadInput
from fastness.core.registry import Registry as Names
from fastness.monitoring.policy import Policy
from fastness.monitoring.sketch import Sketch
from fastness.monitoring.traffic import Traffic

_FINDINGS = 8  # of a verdict that are written down, whether they alarm or not


@dataclass(frozen=True)
class Asked:
    """What a signal is asked about.

    Attributes:
        traffic: windows that are judged together.
        sketch: gives the version's reference, ``None`` if it has none.
        settings: of the policy.
        least: items, or requests, without which nothing is said.
        seed: of what is drawn at random.
    """

    traffic: Traffic
    sketch: Callable[[], Sketch | None]
    settings: Any
    least: int
    seed: int


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
        return found if self.detail is None else {**found, "detail": self.detail}


Says = Callable[[Asked], Reading | None]
"""Judges; ``None`` if there is too little to say anything."""

SIGNALS: Names[Says] = Names("signal", __name__, {})


def judged_by(
    policy: Policy,
    traffic: Traffic,
    sketch: Callable[[], Sketch | None],
    seed: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return what each signal of a policy says, those that say nothing left out, as JSON values.

    Args:
        policy: what is watched.
        traffic, sketch, seed: see `Asked`.
        say: is told of signals that cannot be judged, since a file is damaged, say; the others are.
    """
    found = {}
    for name, settings in policy.signals.named().items():
        try:
            said = SIGNALS.get(name)(Asked(traffic, sketch, settings, policy.least, seed))
        except BadInput as error:
            say(f"{name}: cannot be judged: {error}")
            continue
        if said is not None:
            found[name] = said.to_dict()
    return found


@SIGNALS.register("drift")
def drift(asked: Asked) -> Reading | None:
    """Whether embeddings and columns are those of the reference."""
    from fastness.monitoring.drift import drifted

    reference, window, settings = asked.sketch(), asked.traffic.window, asked.settings
    if reference is None or len(window) < asked.least:
        return None
    verdict = drifted(
        reference.window,
        window,
        level=settings.level,
        tests=settings.tests,
        slices=settings.slices,
        seed=asked.seed,
        floors=settings.floors,
    )
    found = [finding for finding in verdict.findings if finding.alarm]
    detail = {**verdict.to_dict(), "findings": [asdict(f) for f in verdict.findings[: max(_FINDINGS, len(found))]]}
    return Reading(verdict.alarm, verdict.said, verdict.findings[0].p, detail)


@SIGNALS.register("errors")
def errors(asked: Asked) -> Reading | None:
    """Whether too many requests end in an error of the service."""
    counts = asked.traffic.counts
    return _rate(asked, "requests ended in an error", counts.get("errors", 0), counts.get("requests", 0), 0.01)


@SIGNALS.register("refused")
def refused(asked: Asked) -> Reading | None:
    """Whether too many requests are refused for want of room or time."""
    counts = asked.traffic.counts
    return _rate(asked, "requests were refused", counts.get("refused", 0), counts.get("requests", 0), 0.05)


@SIGNALS.register("latency")
def latency(asked: Asked) -> Reading | None:
    """Whether too many requests are slow."""
    settings = asked.settings
    slow, requests = asked.traffic.slower(settings.seconds), asked.traffic.latency.sum()
    return _rate(asked, f"requests took more than {settings.seconds:g} s", slow, requests, settings.share)


def _rate(asked: Asked, what: str, hits: float, n: float, allowed: float) -> Reading | None:
    """Say whether a share is above what is allowed, by the exact binomial test."""
    from scipy.special import bdtrc

    hits, n = int(hits), int(n)
    if n < asked.least:
        return None
    ceiling = getattr(asked.settings, "ceiling", None)
    ceiling = allowed if ceiling is None else ceiling
    p = float(bdtrc(hits - 1, n, ceiling)) if hits else 1.0
    said = f"{hits:,} of {n:,} {what} ({hits / n:.1%}; allowed {ceiling:.1%})"
    return Reading(hits / n > ceiling and p < asked.settings.level, said, p)
