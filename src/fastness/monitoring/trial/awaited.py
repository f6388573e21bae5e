"""Answers of two versions to items whose class is not known yet, until labels for them come."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastness.monitoring.window import Array

_MOST = 20_000  # items that are waited for; the oldest requests are forgotten first


@dataclass
class _Question:
    """A request that both answered."""

    before: Mapping[str, str | None]
    after: Mapping[str, str | None]
    slices: Mapping[str, Sequence[str]]


@dataclass
class Awaited:
    """What both versions said of items, by the ids that clients sent.

    Args:
        most: items that are waited for.
    """

    most: int = _MOST
    _questions: OrderedDict[int, _Question] = field(default_factory=OrderedDict)
    _number: int = 0
    _items: int = 0

    def put(
        self,
        ids: Sequence[str],
        before: Sequence[str | None],
        after: Sequence[str | None],
        slices: Sequence[Sequence[str]],
    ) -> None:
        """Wait for the labels of a request's items.

        Args:
            ids: of the items.
            before, after: the classes that production and the candidate said, ``None`` where one abstained.
            slices: in which each item is.
        """
        ours, theirs = (dict(zip(ids, values, strict=True)) for values in (before, after))
        question = _Question(ours, theirs, dict(zip(ids, slices, strict=True)))
        self._questions[self._number] = question
        self._number += 1
        self._items += len(question.before)
        while self._items > self.most:
            self._items -= len(self._questions.popitem(last=False)[1].before)

    def came(self, labels: Mapping[str, str]) -> Iterator[tuple[Array, list[Sequence[str]]]]:
        """Yield of each request with items that are labelled what `Trial.judged` takes; they are waited for no more.

        Args:
            labels: what items truly are, by their ids.
        """
        for number, question in [*self._questions.items()]:
            there = [name for name in question.before if name in labels]
            if not there or number not in self._questions:
                continue  # it may have been forgotten while whoever asks took the last ones
            truth = [(name, labels[name]) for name in there]
            wrong = [_wrong(question.after[name], true) - _wrong(question.before[name], true) for name, true in truth]
            yield np.array(wrong, np.float64), [question.slices[name] for name in there]
            left = {name: said for name, said in question.before.items() if name not in labels}
            self._items -= len(there)
            question.before = left
            if not left:
                del self._questions[number]


def _wrong(said: str | None, truth: str) -> int:
    """Whether an answer is wrong; one that was not given is not."""
    return int(said is not None and said != truth)
