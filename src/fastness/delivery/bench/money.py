"""What a million items cost: bytes over the wire, machine hours and energy, for prices that the user gives."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from fastness.core.errors import BadInput

WATTS = 5.0
"""Of a busy core, where the processor does not say itself: an assumption. Servers' processors are specified at 4 to 7
(AMD EPYC 7763: 280 W for 64 cores; Intel Xeon Platinum 8380: 270 W for 40)."""

_MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """In any one currency; ``None`` where no price was given.

    Attributes:
        hour: of the cloud's machine, which is taken to be as this one.
        gb: of a gigabyte (10^9 bytes) over the wire.
        kwh: of the energy at the edge.
    """

    hour: float | None = None
    gb: float | None = None
    kwh: float | None = None

    def __post_init__(self) -> None:
        for name, price in asdict(self).items():
            if price is not None and not (math.isfinite(price) and price >= 0):
                raise BadInput(f"--price-{name} {price}: a price is 0 or more")


@dataclass(frozen=True)
class Wire:
    """Bytes of an item over the wire, on average.

    Attributes:
        raw: the item itself, as it is sent to be embedded elsewhere.
        float32: its embedding.
        int8: its embedding with a byte a number and one float32 for the scale.
    """

    raw: float
    float32: int
    int8: int

    @classmethod
    def of(cls, raw: float, dim: int) -> Wire:
        """Return what items of so many bytes and embeddings of so many numbers take."""
        return cls(raw, 4 * dim, dim + 4)


def in_the_cloud(prices: Prices, wire: Wire, throughput: float | None) -> float | None:
    """Return what a million items cost that are sent to a machine and embedded there.

    Args:
        throughput: items a second of the whole machine; ``None`` where it was not measured.

    Returns:
        the parts that have a price; ``None`` if none has, or the machine's speed is wanted and not known.
    """
    if (prices.hour is None and prices.gb is None) or (prices.hour is not None and not throughput):
        return None
    hours = _MILLION / throughput / 3600 if throughput else 0.0
    return hours * (prices.hour or 0.0) + _MILLION * wire.raw / 1e9 * (prices.gb or 0.0)


def at_the_edge(prices: Prices, wire: Wire, energy: float | None) -> float | None:
    """Return what a million items cost that are embedded where they are, and whose embeddings (float32) are sent.

    Args:
        energy: joules for 1,000 items; ``None`` where it was not measured.

    Returns:
        the parts that have a price; ``None`` if none has, or the energy is wanted and not known.
    """
    if (prices.kwh is None and prices.gb is None) or (prices.kwh is not None and energy is None):
        return None
    used = (energy or 0.0) * 1000 / 3.6e6  # kWh for a million items
    return used * (prices.kwh or 0.0) + _MILLION * wire.float32 / 1e9 * (prices.gb or 0.0)
