"""Drift: are these items still like those of the reference? One file a test, one line here to register it.

All tests look at the same permutations of which item is in which window, so that the whole family of them has the asked
chance of a false alarm, whatever the vectors are like and however many columns there are; see `judge.drifted`.
"""

from __future__ import annotations

from fastness.monitoring.drift.judge import drifted
from fastness.monitoring.drift.pooled import DRIFT, Member, Pooled, Test
from fastness.monitoring.drift.verdict import EMBEDDINGS, Finding, Verdict

__all__ = ["DRIFT", "EMBEDDINGS", "Finding", "Member", "Pooled", "Test", "Verdict", "drifted"]
