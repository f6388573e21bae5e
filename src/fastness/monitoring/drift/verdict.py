"""What the tests found: one finding for each thing that was compared, and the verdict over all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

EMBEDDINGS = "embeddings"
_NAMED = 3  # findings that a sentence names


@dataclass(frozen=True)
class Finding:
    """What one test says of one thing.

    Attributes:
        test: a registered name.
        what: ``embeddings``, a column, or a slice's expression.
        p: the chance that any test of the whole verdict looks like this or worse if nothing has changed, in (0, 1].
        effect: how much it differs, in ``unit``; as much above as below `nothing` where nothing has changed.
        unit: ``AUROC``, ``KS distance``, ``Cohen's w``, ``share``.
        floor: the smallest effect that counts.
        alarm: ``p`` not above the level, and the effect not below its floor.
    """

    test: str
    what: str
    p: float
    effect: float
    unit: str
    floor: float
    alarm: bool

    @property
    def said(self) -> str:
        """The finding in a few words."""
        return f"{self.what} ({self.test}: {self.unit} {self.effect:.3g}, p = {self.p:.3g})"


@dataclass(frozen=True)
class Verdict:
    """What all tests say of a window.

    Attributes:
        findings: the smallest p first.
        level: the chance of an alarm if nothing has changed, over all findings together.
        n, m: items of the reference, and of the window.
        permutations: of which item is in which, under which the same was computed.
        seed: of all that is drawn.
    """

    findings: list[Finding]
    level: float
    n: int
    m: int
    permutations: int
    seed: int

    @property
    def alarm(self) -> bool:
        """Whether any finding is one."""
        return any(finding.alarm for finding in self.findings)

    @property
    def said(self) -> str:
        """The verdict in a sentence."""
        alarms = [finding for finding in self.findings if finding.alarm]
        sizes = f"{self.m:,} items against {self.n:,}"
        if alarms:
            named = ", ".join(finding.said for finding in alarms[:_NAMED])
            more = f" and {len(alarms) - _NAMED} more" if len(alarms) > _NAMED else ""
            return f"drift at level {self.level:g} ({sizes}): {named}{more}"
        small = [finding for finding in self.findings if finding.p <= self.level]
        if small:
            return f"no drift that counts at level {self.level:g} ({sizes}): {small[0].said} is below its floor"
        return f"no drift at level {self.level:g} ({sizes}); the smallest p is {self.findings[0].p:.3g}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "alarm": self.alarm, "said": self.said}
