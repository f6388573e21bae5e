"""What is counted, and one line of JSON a request; never what was asked or answered."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Telemetry:
    """Counters for Prometheus, and the log.

    Args:
        stream: where the log goes; ``None``: nowhere.
    """

    def __init__(self, stream: TextIO | None = sys.stderr) -> None:
        self._stream = stream
        r = self._collected = CollectorRegistry()
        self.requests = Counter("fastness_requests", "Requests answered.", ["route", "status"], registry=r)
        self.seconds = Histogram(
            "fastness_request_seconds", "From the first byte to the last.", ["route"], buckets=_SECONDS, registry=r
        )
        self.items = Counter("fastness_items", "Items answered for.", ["route"], registry=r)
        self.refused = Counter("fastness_refused", "Requests refused as there was too much to do.", ["why"], registry=r)
        self.batch_items = Histogram("fastness_batch_items", "Items in a batch.", buckets=_ITEMS, registry=r)
        self.batch_seconds = Histogram("fastness_batch_seconds", "Of a batch.", buckets=_SECONDS, registry=r)
        self.waiting = Gauge("fastness_waiting_seconds", "Until what waits is computed.", registry=r)
        self.serving = Gauge("fastness_serving", "What serves now: 1.", ["version", "index"], registry=r)
        self.behind = Gauge("fastness_behind", "1 while the alias names what does not serve yet.", registry=r)
        self.pairs = Counter(
            "fastness_pairs", "Requests put to production and a candidate.", ["candidate", "answered"], registry=r
        )
        self.switches = Counter("fastness_switches", "Moves of the alias followed.", ["result"], registry=r)
        self.lost = Counter("fastness_log_lost", "Lines that could not be written to the log.", registry=r)

    def beside(self) -> Telemetry:
        """Return one that logs to the same place, and counts for itself: what happens to another alias."""
        beside = Telemetry(self._stream)
        beside.lost = self.lost  # it is the same log
        return beside

    def batch(self, items: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_items.observe(items)
        self.batch_seconds.observe(seconds)

    def exposed(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._collected)

    def log(self, event: str, **known: object) -> None:
        """Write a line; that it cannot be written is counted, and stops nothing."""
        if self._stream is None:
            return
        told = {"time": round(time.time(), 3), "event": event, **known}
        try:
            self._stream.write(orjson.dumps(told, default=str).decode() + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # the disk is full, nobody reads the pipe any more, or the file is closed
            self.lost.inc()
