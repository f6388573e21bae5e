"""A row of a bench: one form with so many threads and items at once, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fastness.delivery.bench.profiles import figure, shown_bytes


@dataclass(frozen=True)
class Row:
    """What was measured; ``None`` where it was not, or where the calls were too few to say.

    Attributes:
        profile: ``edge`` or ``cloud``.
        form: the export's folder in ``exports``, or ``torch`` for the encoder itself.
        threads: on as many cores.
        batch: items at once.
        calls: that were timed.
        p50, p95, p99: of the latencies of calls, seconds.
        throughput: items a second, one call after the other.
        memory: most bytes resident until the end of these calls; smaller batches came before.
        startup: median seconds from the start of a process to its first answer.
        energy: joules for 1,000 items.
        power: how the energy is known: ``RAPL`` or ``estimate``.
        size: bytes of the files that are delivered.
        accuracy: see `quality.Quality`.
        robustness: see `quality.Quality`.
        trouble: why there are no figures.
        seconds: latency of each call.
        cores: that the process was bound to, as it saw them itself.
        parts: median seconds of each part of a start: ``python``, ``imports``, ``load``, ``first_answer``.
    """

    profile: str
    form: str
    threads: int
    batch: int
    size: int
    calls: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    throughput: float | None = None
    memory: int | None = None
    startup: float | None = None
    energy: float | None = None
    power: str | None = None
    accuracy: float | None = None
    robustness: float | None = None
    trouble: str | None = None
    seconds: tuple[float, ...] = ()
    cores: tuple[int, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def how(self) -> str:
        """Its batch and threads in words."""
        return f"batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return asdict(self)


def shown(name: str, value: float | None) -> str:
    """Return one of a row's figures as people read it."""
    if value is None:
        return "–"
    if name in ("size", "memory"):
        return shown_bytes(value)
    if name in ("accuracy", "robustness"):
        return f"{value:.3f}"
    if name == "throughput":
        return f"{figure(value)}/s"
    if name == "energy":
        return f"{figure(value)} J"
    unit, size = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e-3)) if value >= s), ("us", 1e-6))
    return f"{figure(value / size)} {unit}"
