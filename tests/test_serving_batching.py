"""Batches: what a request gets does not depend on who else asks, nobody waits for nothing, and the line is a line."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastness.core.errors import BadInput, Failure
from fastness.serving.batching import Batcher, Limits, Overloaded
from fastness.serving.latency import Latency
from fastness_runtime import Unusable
from served import Made, sentences

OUTPUTS = (("embeddings",), ("probabilities", "novelty"), ("novelty", "embeddings"), ("embeddings", "probabilities"))
PATIENT = Limits(rows=64, batch=1e6, wait=1e6)


class Computing:
    """Numbers that items and outputs decide, what was computed together, and a gate before it.

    Items are numbers; those below 0 are refused as the runtime does, and a 0 breaks the computation.
    """

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.open = threading.Event()
        self.open.set()
        self.began = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, items: list[Any], outputs: tuple[str, ...]) -> list[np.ndarray]:
        with self._lock:
            self.batches.append(list(items))
        self.began.release()
        assert self.open.wait(60)
        for position, item in enumerate(items):
            if item < 0:
                raise Unusable(f"item {position}: {item} is below: zero")
            if item == 0:
                raise RuntimeError("a zero")
        return [truth(items, name) for name in outputs]

    @property
    def computed(self) -> list[float]:
        """All items, in the order in which they were computed."""
        return [item for batch in self.batches for item in batch]


def truth(items: Sequence[float], output: str) -> np.ndarray:
    """Return what an output is, each item alone."""
    x = np.asarray(items, np.float32)
    return {
        "embeddings": np.stack([x, x + 1, -x], 1),
        "probabilities": np.stack([x / 2, 1 - x / 2], 1),
        "novelty": x * x,
    }[output]


@contextmanager
def batching(
    compute: Callable[..., Any], limits: Limits = PATIENT, workers: int = 1, work: Callable[[Any], float] | None = None
) -> Iterator[Batcher]:
    """Yield a batcher, and close it."""
    batcher = Batcher(compute, work or (lambda item: 1.0), limits, workers)
    try:
        yield batcher
    finally:
        if isinstance(compute, Computing):
            compute.open.set()
        batcher.close()


async def settled(*requests: Coroutine[Any, Any, Any]) -> list[Any]:
    """Return what each request got, also what it raised."""
    return await asyncio.gather(*requests, return_exceptions=True)


async def held(compute: Computing, batcher: Batcher) -> asyncio.Task[Any]:
    """Return a request of one item whose batch is being computed until the gate is opened."""
    compute.open.clear()
    task = asyncio.create_task(batcher.run([1.0], ("novelty",), 1e6))
    await asyncio.to_thread(compute.began.acquire)
    return task


@given(
    st.lists(st.tuples(st.integers(1, 200), st.sampled_from(OUTPUTS)), min_size=1, max_size=12),
    st.integers(1, 64),
    st.sampled_from([1e-9, 0.004, 1e6]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_every_request_gets_what_it_gets_alone(
    asked: list[tuple[int, tuple[str, ...]]], rows: int, lasting: float, workers: int, loops: int
) -> None:
    compute = Computing()
    starts = np.cumsum([1, *(n for n, _ in asked)])
    requests = [([float(i) for i in range(s, s + n)], names) for s, (n, names) in zip(starts, asked, strict=False)]

    async def ask(some: list[tuple[list[float], tuple[str, ...]]]) -> list[Any]:
        return await asyncio.gather(*(batcher.run(items, names, 1e6) for items, names in some))

    with batching(compute, Limits(rows, lasting, 1e6), workers) as batcher, ThreadPoolExecutor(loops) as pool:
        parts = [requests[i::loops] for i in range(loops)]
        answers = list(pool.map(lambda some: asyncio.run(ask(some)), parts))
    assert batcher.waiting == 0
    for some, found in zip(parts, answers, strict=True):
        for (items, names), arrays in zip(some, found, strict=True):
            assert len(arrays) == len(names)
            for name, array in zip(names, arrays, strict=True):
                assert array.dtype == np.float32 and np.array_equal(array, truth(items, name))
    assert max(map(len, compute.batches)) <= rows
    assert sorted(compute.computed) == sorted(item for items, _ in requests for item in items)


@settings(max_examples=10)
@given(st.data())
def test_a_real_encoder_gives_the_same_in_any_company(words: list[Made], data: st.DataObject) -> None:
    encoder = words[0].encoder
    asked = data.draw(
        st.lists(st.tuples(st.integers(1, 200), st.sampled_from(OUTPUTS), st.integers(0, 99)), min_size=1, max_size=5)
    )
    rows, workers = data.draw(st.integers(1, 64)), data.draw(st.integers(1, 2))
    requests = [(sentences(n, seed), names) for n, names, seed in asked]

    async def ask() -> list[Any]:
        return await asyncio.gather(*(batcher.run(items, names, 1e6) for items, names in requests))

    def compute(items: list[Any], outputs: tuple[str, ...]) -> Sequence[np.ndarray]:
        return encoder.compute(items, *outputs, batch_size=len(items))

    with batching(compute, Limits(rows, 1e6, 1e6), workers, lambda text: len(text) / 4) as batcher:
        answers = asyncio.run(ask())
    for (items, names), arrays in zip(requests, answers, strict=True):
        alone = encoder.compute(items, *names, batch_size=1)
        for name, array, expected in zip(names, arrays, alone, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_large_request_holds_up_no_small_one() -> None:
    compute, ended = Computing(), []

    async def ask(name: str, items: list[float]) -> None:
        await batcher.run(items, ("novelty",), 1e6)
        ended.append(name)

    async def main() -> None:
        first = await held(compute, batcher)
        large = asyncio.create_task(ask("large", [float(i) for i in range(1000, 1200)]))
        await asyncio.sleep(0)
        small = [asyncio.create_task(ask(f"small {i}", [float(i)])) for i in range(2, 7)]
        await asyncio.sleep(0)
        compute.open.set()
        await asyncio.gather(first, large, *small)

    with batching(compute, Limits(16, 1e6, 1e6)) as batcher:
        asyncio.run(main())
    assert {2.0, 3.0, 4.0, 5.0, 6.0} < set(compute.batches[1]) and len(compute.batches[1]) == 16
    assert ended[-1] == "large" and len(compute.batches) == 1 + -(-205 // 16)
    assert [x for x in compute.computed if x >= 1000] == [float(i) for i in range(1000, 1200)]  # in order


@pytest.mark.parametrize("work", [4.0, 30.0])
def test_a_large_request_gives_way_where_a_batch_holds_few_items(work: float) -> None:
    compute = Computing()

    async def main() -> None:
        batcher._latency.observe = lambda work, seconds: None  # 2 ms a unit: so of 20 ms two items, or not even one
        first = await held(compute, batcher)
        asked = [asyncio.create_task(batcher.run([float(1000 + i) for i in range(100)], ("novelty",), 1e6))]
        await asyncio.sleep(0)
        asked += [asyncio.create_task(batcher.run([float(i)], ("novelty",), 1e6)) for i in range(2, 6)]
        await asyncio.sleep(0)
        compute.open.set()
        await asyncio.gather(first, *asked)

    with batching(compute, Limits(64, 0.02, 1e6), work=lambda item: work) as batcher:
        asyncio.run(main())
    assert max(map(len, compute.batches[:5])) <= 2
    assert compute.computed[1:6] == [1000.0, 2.0, 3.0, 4.0, 5.0]


def test_what_a_large_request_leaves_for_later_is_not_before_a_small_one() -> None:
    compute = Computing()

    async def main() -> list[Any]:
        first = await held(compute, batcher)
        asked = [[1000.0] * 100, *([float(i)] for i in range(2, 14)), [2000.0] * 9]
        tasks = [asyncio.create_task(batcher.run(items, ("novelty",), 1e6)) for items in asked]
        await asyncio.sleep(0)
        assert batcher.refusal() is not None
        compute.open.set()
        return await settled(first, *tasks)

    # Of 2 ms each: half a one that is computed, one of the large request, and those that came before: ten at most.
    with batching(compute, Limits(64, 1e6, 0.0201)) as batcher:
        _, large, *small, second = asyncio.run(main())
    assert large[0].tolist() == [1e6] * 100
    assert [isinstance(answer, Overloaded) for answer in small] == [False] * 9 + [True] * 3
    assert isinstance(second, Overloaded) and second.reason == "queue"


def test_requests_take_turns_the_oldest_first() -> None:
    compute = Computing()

    async def main() -> None:
        first = await held(compute, batcher)
        asked = [
            asyncio.create_task(batcher.run([float(10 * i), float(10 * i + 1)], ("novelty",), 1e6)) for i in range(2, 8)
        ]
        await asyncio.sleep(0)
        compute.open.set()
        await asyncio.gather(first, *asked)

    with batching(compute, Limits(4, 1e6, 1e6)) as batcher:
        asyncio.run(main())
    assert [set(batch) for batch in compute.batches[1:]] == [{20, 30, 40, 50}, {60, 70, 21, 31}, {41, 51, 61, 71}]


def test_idle_workers_share_a_large_request() -> None:
    together = threading.Barrier(3)

    def compute(items: list[Any], outputs: tuple[str, ...]) -> list[np.ndarray]:
        together.wait(60)  # broken, and so an error, unless three batches are computed at once
        return [truth(items, name) for name in outputs]

    with batching(compute, Limits(2, 1e6, 1e6), workers=3) as batcher:
        (found,) = asyncio.run(batcher.run([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], ("novelty",), 1e6))
    assert found.tolist() == [1, 4, 9, 16, 25, 36]


def test_a_batch_lasts_no_longer_than_it_may_by_what_is_known() -> None:
    compute = Computing()

    async def main() -> None:
        first = await held(compute, batcher)
        asked = [asyncio.create_task(batcher.run([work], ("novelty",), 1e6)) for work in (1.0, 5.0, 3.0, 30.0, 1.0)]
        await asyncio.sleep(0)
        compute.open.set()
        await asyncio.gather(first, *asked)

    # Two milliseconds a unit are assumed before anything is known.
    with batching(compute, Limits(64, 0.02, 1e6), work=float) as batcher:
        asyncio.run(main())
    assert compute.batches[0] == [1.0]
    assert compute.computed == [1.0, 1.0, 5.0, 3.0, 30.0, 1.0]  # none is passed over for being large


def sizes_of_batches(observed: list[tuple[float, float]], items: int) -> list[int]:
    """Return how many of so many items are taken at a time, of which batches have lasted so long."""
    compute = Computing()

    async def main() -> None:
        first = await held(compute, batcher)
        asked = [asyncio.create_task(batcher.run([2.0], ("novelty",), 1e6)) for _ in range(items)]
        await asyncio.sleep(0)
        with batcher._change:
            for work, seconds in observed * 100:
                batcher._latency.observe(work, seconds)
            batcher._latency.observe = lambda work, seconds: None  # what they last here is of no interest
        compute.open.set()
        await asyncio.gather(first, *asked)

    with batching(compute, Limits(64, 0.02, 1e6)) as batcher:
        asyncio.run(main())
    return [len(batch) for batch in compute.batches[1:]]


def test_batches_are_worth_what_any_batch_costs() -> None:
    # Of 30 ms that any batch costs and 1 ms an item: it is made as large as costs 30 ms more, though it may last 20.
    assert sizes_of_batches([(1.0, 0.031), (40.0, 0.070)], 90)[0] in (29, 30)
    # Of 5 ms and 1 ms: what fits into 20.
    assert sizes_of_batches([(1.0, 0.006), (10.0, 0.015)], 90)[0] in (14, 15)


def test_where_not_two_items_fit_several_are_tried_now_and_then() -> None:
    sizes = sizes_of_batches([(1.0, 0.03)], 40)  # nobody knows yet what two would take
    assert set(sizes) == {1, 4} and sizes.count(4) == sum(sizes) // 11


@given(st.lists(st.lists(st.integers(-1, 30), min_size=1, max_size=40), min_size=1, max_size=6), st.integers(1, 20))
def test_what_is_refused_fails_its_own_request_alone(asked: list[list[int]], rows: int) -> None:
    compute = Computing()

    async def main() -> list[Any]:
        first = await held(compute, batcher)
        tasks = [asyncio.create_task(batcher.run([float(i) for i in items], ("novelty",), 1e6)) for items in asked]
        await asyncio.sleep(0)
        compute.open.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    with batching(compute, Limits(rows, 1e6, 1e6)) as batcher:
        answers = asyncio.run(main())
    assert batcher.waiting == 0
    for items, answer in zip(asked, answers, strict=True):
        if min(items) > 0:
            assert answer[0].tolist() == [i * i for i in items]
        elif isinstance(answer, BadInput):
            position = items.index(-1)
            assert str(answer) == f"item {position}: -1.0 is below: zero"
        else:
            assert 0 in items and isinstance(answer, RuntimeError) and str(answer.__cause__) == "a zero"


def test_what_nobody_waits_for_any_more_is_not_computed() -> None:
    compute = Computing()

    async def main() -> list[Any]:
        first = await held(compute, batcher)
        late = asyncio.create_task(batcher.run([7.0, 8.0], ("novelty",), 0.05))
        gone = asyncio.create_task(batcher.run([9.0], ("novelty",), 1e6))
        kept = asyncio.create_task(batcher.run([3.0], ("novelty",), 1e6))
        await asyncio.sleep(0)
        gone.cancel()
        ended = time.monotonic() + 0.1
        while time.monotonic() < ended:
            await asyncio.sleep(0.01)
        compute.open.set()
        return await settled(first, late, gone, kept)

    with batching(compute) as batcher:
        _, late, gone, kept = asyncio.run(main())
    assert batcher.waiting == 0
    assert isinstance(late, Overloaded) and late.reason == "deadline" and late.after >= 0
    assert isinstance(gone, asyncio.CancelledError) and kept[0].tolist() == [9]
    assert compute.computed == [1, 3]


def test_what_could_not_be_done_in_time_is_refused_at_once() -> None:
    compute = Computing()

    async def main() -> None:
        first = await held(compute, batcher)
        with pytest.raises(Overloaded) as refused:  # by the 2 ms that are assumed of each, and half of what is computed
            await batcher.run([1.0] * 100, ("novelty",), 0.1)
        assert refused.value.reason == "deadline" and refused.value.after == pytest.approx(0.201)
        compute.open.set()
        await first

    with batching(compute) as batcher:
        asyncio.run(main())


def test_where_nothing_is_before_it_nothing_is_refused_whatever_is_thought_of_it() -> None:
    with batching(Computing(), Limits(wait=0.01), work=lambda item: 64.0) as batcher:
        for seconds in (None, 1e9):  # what is assumed, which is 40 s; and after a batch that took very long
            if seconds is not None:
                batcher.learn([1.0], seconds)
            assert batcher.refusal() is None
            (found,) = asyncio.run(batcher.run([3.0] * 300, ("novelty",), 30))
            assert found.tolist() == [9.0] * 300


@given(st.integers(1, 40), st.integers(1, 5))
def test_more_than_may_wait_is_refused_and_all_else_is_answered(number: int, each: int) -> None:
    compute = Computing()

    async def main() -> list[Any]:
        first = await held(compute, batcher)
        tasks = [asyncio.create_task(batcher.run([2.0] * each, ("novelty",), 1e6)) for _ in range(number)]
        await asyncio.sleep(0)
        compute.open.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    with batching(compute, Limits(64, 1e6, 0.0201)) as batcher:  # ten items of 2 ms, of which half a one is under way
        answers = asyncio.run(main())
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    admitted = min(number, 9 // each + 1)  # each request comes in as long as 9.5 items are not exceeded
    assert len(answers) - len(refused) == admitted and all(r.reason == "queue" and r.after > 0 for r in refused)
    assert [a[0].tolist() for a in answers if not isinstance(a, Overloaded)] == [[4.0] * each] * admitted
    assert len(compute.computed) == 1 + admitted * each


def test_closing_answers_what_waits_and_takes_no_more() -> None:
    compute = Computing()

    async def main() -> list[Any]:
        first = await held(compute, batcher)
        waiting = [asyncio.create_task(batcher.run([float(i)] * 3, ("novelty",), 1e6)) for i in range(1, 50)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        with pytest.raises(Failure, match="serves no more"):
            await batcher.run([1.0], ("novelty",), 1e6)
        compute.open.set()
        found = await asyncio.gather(first, *waiting)
        await closing
        return found

    before = threading.active_count()
    with batching(compute, Limits(8, 1e6, 1e6), workers=2) as batcher:
        found = asyncio.run(main())
    assert [rows[0].tolist() for rows in found[1:]] == [[i * i] * 3 for i in range(1, 50)]
    assert threading.active_count() <= before + 1  # of this file's own pools there may be one


def test_a_loop_that_has_ended_stops_nothing() -> None:
    compute = Computing()

    async def abandon() -> None:
        await held(compute, batcher)

    with batching(compute) as batcher:
        asyncio.run(abandon())  # cancels the request and closes the loop while it is computed
        compute.open.set()
        assert asyncio.run(batcher.run([3.0], ("novelty",), 1e6))[0].tolist() == [9]


MOMENTS = st.tuples(st.floats(0.1, 500), st.floats(1e-4, 10))


def lasting(line: Latency, work: float) -> float:
    """Return how long a batch of so much work takes by a line."""
    return line.base + line.each * work


@given(st.lists(MOMENTS, min_size=1, max_size=80))
def test_the_line_is_least_squares_with_weights(observed: list[tuple[float, float]]) -> None:
    line = Latency()
    for work, seconds in observed:
        line.observe(work, seconds)
    work, seconds = (np.array(column) for column in zip(*observed, strict=True))
    weight = 0.98 ** np.arange(len(work))[::-1]
    # An observation more, of no work and no time, of little of the weight of all: it alone pulls on the base.
    design = np.r_[np.c_[np.ones_like(work), work] * np.sqrt(weight)[:, None], [[np.sqrt(0.0005 * weight.sum()), 0.0]]]
    base, each = np.linalg.lstsq(design, np.r_[seconds * np.sqrt(weight), 0.0], rcond=None)[0]
    if base <= 0:
        base, each = 0.0, (weight * work * seconds).sum() / (weight * work**2).sum()
    assert line.base >= 0 and line.each > 0
    assert line.base == pytest.approx(base, rel=1e-4, abs=1e-6)
    assert line.each == pytest.approx(max(each, 1e-9), rel=1e-4, abs=1e-7)
    assert line.work_within(lasting(line, 3.0)) == pytest.approx(3.0, rel=1e-3) or line.each < 1e-6


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=60), st.floats(0.5, 300))
def test_batches_of_one_size_say_what_a_unit_costs(seconds: list[float], work: float) -> None:
    line = Latency()
    for took in seconds:
        line.observe(work, took)
    weight = 0.98 ** np.arange(len(seconds))[::-1]
    assert lasting(line, work) == pytest.approx(np.average(seconds, weights=weight), rel=1e-6)
    assert lasting(line, 2 * work) == pytest.approx(2 * lasting(line, work), rel=1e-4)  # through nothing: none is known


def test_a_line_is_found_and_followed_when_it_moves() -> None:
    line, lots = Latency(), np.random.default_rng(0)
    for base, each in ((0.004, 0.001), (0.02, 0.0002)):
        for work in lots.uniform(1, 64, 400):
            line.observe(work, base + each * work)
        assert lasting(line, 30) == pytest.approx(base + each * 30, rel=0.02)
        assert line.work_within(0.05) == pytest.approx((0.05 - base) / each, rel=0.1)
