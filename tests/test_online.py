"""The online detector: alarms as seldom as asked without drift, soon with it, and goes on bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastness.core.errors import BadInput
from fastness.monitoring.online import run_length
from fastness.monitoring.online.online import Online

D = 6


def items(n: int, seed: int, mean: float = 0.0, width: float = 1.0) -> np.ndarray:
    """Draw items, float32 ``[n, D]``."""
    return (np.random.default_rng(seed).normal(size=(n, D)) * width + mean).astype(np.float32)


@pytest.fixture(scope="module")
def detector() -> bytes:
    """The state of a detector that has seen nothing yet."""
    return Online(items(400, 0), 200, batch=4, seed=1).state()


def delay(state: bytes, stream: np.ndarray, quiet: int) -> int:
    """Return after how many batches of a stream it alarms, when it ran for some without drift and without alarm."""
    found = Online.resume(state)
    seed = 10
    while found.update(items(4 * quiet, seed)):
        seed += 1
    for number, batch in enumerate(stream.reshape(-1, 4, D), 1):
        if found.update(batch):
            return number
    return 1_000_000


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 3), st.integers(1, 4))
def test_squares_are_the_plain_sums(seed: int, steps: int, runs: int, batch: int) -> None:
    """Of every window that is full, of every part, put off by what different items lie too near; NaN of the others."""
    rng = np.random.default_rng(seed)
    means, closer = (rng.normal(size=size).astype(np.float32) for size in ((runs, steps, 5), (runs, 5)))
    parts, windows = (slice(0, 2), slice(2, 5)), [1, 3, 8]
    found = run_length.squares(means, parts, windows, closer, batch).reshape(2, 3, runs, steps)
    for p, part in enumerate(parts):
        for w, window in enumerate(windows):
            for t in range(steps):
                if t + 1 < window:
                    assert np.isnan(found[p, w, :, t]).all()
                    continue
                put_off = np.sqrt(1 - 1 / (window * batch)) * closer
                naive = (means[:, t + 1 - window : t + 1] - put_off[:, None])[..., part].sum(1)
                assert np.allclose(found[p, w, :, t], np.square(naive).sum(1) / window, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 4])
def test_windows_of_simulated_streams_spread_as_those_of_new_items(batch: int) -> None:
    """On the average over references, of every length; also where many items are equally far off."""
    windows, parts, runs, steps = [1, 2, 5, 13], (slice(0, 6),), 300, 60
    simulated, new = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        rows, stream = (rng.normal(size=(n, 6)).astype(np.float32) for n in (120, runs * steps * batch))
        found = run_length._simulated(rows, parts, windows, (runs, steps, batch), seed)
        simulated.append(np.nanmean(found, (1, 2)))
        means = stream.reshape(runs, steps, batch, 6).mean(2) - rows.mean(0)
        none = np.zeros((runs, 6), np.float32)
        new.append(np.nanmean(run_length.squares(means, parts, windows, none, batch), (1, 2)))
    error = np.hypot(*(np.std(x, 0) / np.sqrt(30) for x in (simulated, new)))
    assert (np.abs(np.mean(simulated, 0) - np.mean(new, 0)) < 4 * error).all()


def test_surprise_is_how_rare_values_are() -> None:
    """Of an exponential and of a heavy tail; it never falls as values rise; equal values are no fault."""
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.exponential(size=200_000), rng.pareto(4, size=200_000)])
    tails = run_length.Tails.of(drawn)
    for chance in (1e-2, 1e-3, 1e-4):
        rare = np.array([-math.log(chance), chance**-0.25 - 1])
        assert np.allclose(tails.surprise(rare), -math.log(chance), rtol=0.08)
    grid = np.linspace(0, 50, 2001)
    assert (np.diff(tails.surprise(np.stack([grid, grid]))) >= 0).all()
    alike = run_length.Tails.of(np.zeros((1, 100)))
    assert alike.surprise(np.array([1.0]))[0] > 1000


@pytest.mark.parametrize("run_time", [20.0, 300.0, 20_000.0])
def test_threshold_makes_the_run_length(run_time: float) -> None:
    """Where the chance to exceed x is exp(-x) at each step it is the logarithm, counted or continued."""
    found = [
        math.exp(run_length.threshold(np.random.default_rng(s).exponential(size=(600, 400)), run_time, 10))
        for s in range(6)
    ]
    assert abs(np.mean(found) / run_time - 1) < 0.1


def test_without_drift_it_runs_as_long_as_asked() -> None:
    """In the mean over references; the last run of each, which was cut, counts as one that goes on."""
    ran = alarms = 0
    for seed in range(6):
        found = Online(items(300, seed), 25, batch=2, seed=seed)
        stream = items(2 * 1_000, 100 + seed).reshape(-1, 2, D)
        ran += len(stream)
        alarms += sum(found.update(batch) for batch in stream)
    assert 0.75 < ran / alarms / 25 < 1.3


def test_drift_is_seen_whatever_it_is(detector: bytes) -> None:
    """A jump at once, a change that leaves the mean soon, and one that creeps before it is as large as the jump."""
    jump = delay(detector, items(4 * 100, 20, mean=1.5), 40)
    wider = delay(detector, items(4 * 100, 21, width=2.0), 40)
    ramp = np.linspace(0, 1.5, 4 * 150)[:, None].astype(np.float32)
    creeping = delay(detector, items(4 * 150, 22) + ramp, 40)
    assert jump <= 4
    assert wider <= 10
    assert creeping <= 80


@settings(max_examples=10)
@given(st.lists(st.integers(0, 13), min_size=1, max_size=12), st.integers(0, 11))
def test_it_goes_on_bit_for_bit(detector: bytes, sizes: list[int], cut: int) -> None:
    """However items come, and wherever it is stopped and goes on from its state."""
    stream = items(sum(sizes) + 1, 3, mean=0.2)
    whole, parts = Online.resume(detector), Online.resume(detector)
    whole.update(stream[: sum(sizes)])
    start = 0
    for number, size in enumerate(sizes):
        if number == cut:
            parts = Online.resume(parts.state())
        parts.update(stream[start : start + size])
        start += size
    assert parts.state() == whole.state()
    assert parts.statistic == whole.statistic


def test_the_seed_decides(detector: bytes) -> None:
    """The same one makes the same detector; another one another, with much the same threshold."""
    assert Online(items(400, 0), 200, batch=4, seed=1).state() == detector
    other = Online(items(400, 0), 200, batch=4, seed=2)
    assert other.state() != detector
    assert abs(other.threshold - Online.resume(detector).threshold) < 1


def test_what_is_no_input_is_refused(detector: bytes) -> None:
    """In a line that names what is wrong."""
    with pytest.raises(BadInput, match="39 items for batches of 1; give at least 40"):
        Online(items(39, 0), 50)
    with pytest.raises(BadInput, match="400 items for batches of 64; give at least 512"):
        Online(items(400, 0), 50, batch=64)
    with pytest.raises(BadInput, match="run time: 3 batches"):
        Online(items(400, 0), 3)
    with pytest.raises(BadInput, match="vectors, row 2"):
        Online(np.where(np.arange(400)[:, None] == 2, np.nan, items(400, 0)), 50)
    found = Online.resume(detector)
    with pytest.raises(BadInput, match="have 5 numbers each, the reference 6"):
        found.update(items(4, 0)[:, :5])
    with pytest.raises(BadInput, match="shape"):
        found.update(items(4, 0)[0])
    for damaged in (b"", b"no zip", detector[:200], detector[:-50]):
        with pytest.raises(BadInput, match="state of a detector: is not readable"):
            Online.resume(damaged)
