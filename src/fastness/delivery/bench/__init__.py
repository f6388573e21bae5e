"""Bench: what every form of an encoder costs on this machine, and how good it is.

`Candidate`s are the encoder itself and its exports. Each is measured by `worker` in processes of its own, within the
limits of a `Profile` that are enforced; what they say becomes `Row`s. The checks of an evaluation say how good each
is, through the runtime that it is delivered for. A target picks among the rows.
"""

from fastness.delivery.bench.bench import Bench, bench
from fastness.delivery.bench.money import Prices

__all__ = ["Bench", "Prices", "bench"]
