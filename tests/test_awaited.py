"""Labels that come late: each request's are taken once, as a naive join has them, and what is too old is forgotten."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastness.monitoring.trial.awaited import Awaited

CLASSES = ("red", "sea")
said = st.sampled_from([*CLASSES, None])
requests = st.lists(
    st.lists(st.tuples(st.integers(0, 30), said, said), min_size=1, max_size=4, unique_by=lambda item: item[0]),
    max_size=8,
)


@given(requests, st.lists(st.dictionaries(st.integers(0, 30), st.sampled_from(CLASSES)), max_size=4))
def test_labels_are_joined_once_whenever_they_come(
    asked: list[list[tuple[int, str | None, str | None]]], batches: list[dict[int, str]]
) -> None:
    awaited, found = Awaited(), []
    for rows in asked:
        ids, before, after = ([row[part] for row in rows] for part in range(3))
        awaited.put([f"i{i}" for i in ids], before, after, [[f"i={i}"] for i in ids])
    for labels in batches:
        for wrong, slices in awaited.came({f"i{i}": label for i, label in labels.items()}):
            assert len(wrong) == len(slices)
            found += [(names[0], value) for names, value in zip(slices, wrong.tolist(), strict=True)]
    wanted = []
    for rows in asked:
        for i, before, after in rows:
            truth = next((labels[i] for labels in batches if i in labels), None)
            if truth is not None:
                wanted.append((f"i={i}", float(after not in (None, truth)) - float(before not in (None, truth))))
    assert sorted(found) == sorted(wanted)


def test_the_oldest_are_forgotten_first() -> None:
    awaited = Awaited(most=3)
    for number in range(5):
        awaited.put([f"i{number}"], ["red"], ["sea"], [[]])
    assert [wrong.tolist() for wrong, _ in awaited.came({f"i{n}": "red" for n in range(5)})] == [[1.0]] * 3
    assert not [*awaited.came({"i4": "red"})]
    awaited.put(["a", "b"], ["red", None], [None, "sea"], [["x"], ["y"]])
    ((wrong, slices),) = awaited.came({"a": "sea", "b": "red"})
    assert np.array_equal(wrong, [-1.0, 1.0]) and slices == [["x"], ["y"]]
