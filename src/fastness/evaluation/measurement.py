"""One number with all that is needed to trust it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

WHOLE = "all"
"""The slice that is all items."""


@dataclass(frozen=True)
class Measurement:
    """A measured value.

    Attributes:
        name: dotted, from the check to the detail: ``few_label.5.encoder.accuracy``.
        value: the estimate.
        low, high: its interval.
        level: coverage of the interval, e.g. 0.95.
        over: what would be drawn anew: ``items``, ``queries``, ``draws`` or ``seeds``.
        n: how many of those.
        unit: ``share``, ``nats``, ``dimensions`` …
        protocol: how it was measured, in one sentence that allows to do it again.
        data: fingerprint of the items it was measured on.
        slice: which part of them; `WHOLE` for all.
        seed: of the random choices in the measurement.
        chance: how likely it were by chance to be so much worse than the rest, corrected for the number of such
            figures; ``None`` where that was not asked.
        better: ``higher``, ``lower``, or ``neither`` of a number that only describes.
    """

    name: str
    value: float
    low: float
    high: float
    over: str
    n: int
    unit: str
    protocol: str
    data: str
    level: float = 0.95
    slice: str = WHOLE
    seed: int = 0
    better: str = "higher"
    chance: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; an unbounded end is null."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Measurement:
        """Read what `to_dict` wrote."""
        missing = {"value": math.nan, "low": -math.inf, "high": math.inf}
        fields: dict[str, Any] = {k: missing.get(k) if v is None else v for k, v in values.items()}
        return cls(**fields)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
