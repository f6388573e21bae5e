"""How long a batch takes: a line through what batches took, which forgets."""

from __future__ import annotations

_FORGET = 0.98  # what an observation weighs after the next one: about the last fifty count
_STRAIGHT = 0.0005  # pull of the line through nothing, of the weight of all: decides where all batches are alike


class Latency:
    """Seconds of a batch as ``a + b * work``: least squares over past batches, of which older ones weigh less.

    A batch costs something whatever is in it, so that neither a time an item nor one a batch would do. Neither part is
    ever negative. May be asked and told from several threads; the caller locks.

    Args:
        each: seconds for a unit of work that are assumed before anything is known.
    """

    def __init__(self, each: float = 0.002) -> None:
        self._n = self._w = self._ww = self._s = self._ws = 0.0
        self.base, self.each = 0.0, each

    def observe(self, work: float, seconds: float) -> None:
        """Learn that a batch of so much work (above 0) took so many seconds."""
        new = (1.0, work, work * work, seconds, work * seconds)
        old = (self._n, self._w, self._ww, self._s, self._ws)
        self._n, self._w, self._ww, self._s, self._ws = (_FORGET * o + n for o, n in zip(old, new, strict=True))
        weight = self._n * (1 + _STRAIGHT)
        over = weight * self._ww - self._w**2
        self.base = max(0.0, (self._s * self._ww - self._w * self._ws) / over)
        slope = (weight * self._ws - self._w * self._s) / over
        self.each = max(1e-9, slope if self.base else self._ws / self._ww)

    @property
    def pace(self) -> float:
        """Seconds for each unit of work in batches as they have been, with what these cost by themselves."""
        return self._s / self._w if self._w else self.each

    def work_within(self, seconds: float) -> float:
        """Return how much work is likely to fit into so many seconds; may be negative."""
        return (seconds - self.base) / self.each
