"""Named random streams: stable for ever, independent, in range."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastness.core.seeds import derive, numpy_generator, torch_generator


@pytest.mark.parametrize(
    ("path", "value"),
    [((0, "views", 0), 7833348614080372424), ((1234, "order", 7), 3895421449406168273)],
)
def test_derived_seeds_never_change(path: tuple[int, str, int], value: int) -> None:
    """A change would make every old recipe give other weights."""
    assert derive(*path) == value


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**64), st.lists(st.text("aé/0-", max_size=8) | st.integers(-9, 9), max_size=4))
def test_seeds_are_repeatable_and_in_range(seed: int, path: list[str | int]) -> None:
    assert 0 <= derive(seed, *path) < 2**63
    assert derive(seed, *path) == derive(seed, *path)


def test_streams_are_distinct() -> None:
    names = list(itertools.product(range(20), ("views", "order", "init"), range(100)))
    assert len({derive(*name) for name in names}) == len(names)


@pytest.mark.parametrize("other", [(1, "views", 3), (0, "order", 3), (0, "views", 4), (0, "views")])
def test_streams_are_uncorrelated(other: tuple[int, ...]) -> None:
    n = 20_000
    a, b = numpy_generator(0, "views", 3).normal(size=n), numpy_generator(*other).normal(size=n)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(n)
    assert not torch.equal(
        torch.rand(8, generator=torch_generator(0, "views", 3)), torch.rand(8, generator=torch_generator(*other))
    )


def test_seed_bits_are_uniform() -> None:
    """Each of the 63 bits is set in half of the seeds, within 5 standard errors."""
    seeds = np.array([derive(0, "views", step) for step in range(4000)], dtype=np.uint64)
    bits = (seeds[:, None] >> np.arange(63, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * 0.5 / np.sqrt(4000)


def test_a_stream_does_not_touch_the_global_generators() -> None:
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.rand(4, generator=torch_generator(0, "a"))
    numpy_generator(0, "a").random(4)
    assert torch.equal(before, torch.get_rng_state())
    assert (before_numpy == np.random.get_state()[1]).all()
