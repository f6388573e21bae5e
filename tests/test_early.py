"""Early: silent on what is as it was, not on what has changed, and not disturbed by what is no vector of its kind."""

from __future__ import annotations

import numpy as np

from fastness.monitoring.online.early import early
from fastness.monitoring.sketching import of_window
from fastness.monitoring.window import Window


def drawn(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, 8)) + np.eye(8)[0] * shift
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_it_speaks_when_what_comes_has_changed() -> None:
    looking = early(of_window(Window(drawn(600, 0), {}, [str(i) for i in range(600)]), {}))
    assert looking is not None and not looking.look()
    for number in range(20):
        looking.seen(drawn(150, 10 + number))
        looking.seen(np.full((3, 8), np.nan, np.float32))
        looking.seen(np.ones((5, 4), np.float32))
        assert not looking.look()
    looking.seen(drawn(400, 99, shift=1.0))
    assert looking.look()
    assert not looking.look()  # nothing came since


def test_too_small_a_reference_has_none() -> None:
    assert early(of_window(Window(drawn(255, 0), {}, [str(i) for i in range(255)]), {})) is None
