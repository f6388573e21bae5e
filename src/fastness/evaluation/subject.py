"""What is measured: a bundle on a data set, its embeddings computed once for all checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastness.bundle import Bundle
from fastness.core.conditions import Columns
from fastness.core.errors import BadInput
from fastness.corruptions import Scene
from fastness.data import Dataset
from fastness.data.items import Items
from fastness.data.sides import SideItems, sides_of
from fastness.encoders import ready
from fastness.evaluation import predictions
from fastness.evaluation.predictions import Answers
from fastness.evaluation.probe import Probe
from fastness.evaluation.slices import known_of

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Subject:
    """A bundle, the items on which heads are fitted, and the held-out items on which they are measured.

    Of things with several sides these are the items of the first side.

    Attributes:
        how: how the two parts came about, for the protocol.
        seed: of every random choice in the checks.
        sides: by name the bundle and the items of each side, for checks that fit nothing: the held-out items if the
            data have splits, else all.
        held_out: the things of ``test``, with all their sides.
        unfitted: the things of ``sides``.
        outside: items of other data sets, out of distribution, by the set's name.
        shifted: items of the same classes from elsewhere, by the set's name.
        votes: how many people said each class of each held-out item, float64 ``[M, classes]``.
        domain: column that names the domain of each item.
        slices: columns and expressions that were asked for as slices; ``None`` for the usual ones.
        sensitive: columns whose values are groups that should be served alike.
        examples: whether words of the items may stand in the evidence.
        answers: what another model said of the held-out items; there is no probe then, and no embedding.
        has: what there is for checks: the ``encoder``, ``embeddings``, ``probabilities`` of the classes.
    """

    bundle: Bundle
    fit: Items
    test: Items
    how: str
    seed: int
    sides: dict[str, tuple[Bundle, Items]]
    held_out: Dataset
    unfitted: Dataset
    outside: Mapping[str, Items] = field(default_factory=dict)
    shifted: Mapping[str, Items] = field(default_factory=dict)
    votes: npt.NDArray[np.float64] | None = None
    domain: str | None = None
    slices: tuple[str, ...] | None = None
    sensitive: tuple[str, ...] = ()
    examples: bool = True
    answers: Answers | None = None
    has: frozenset[str] = frozenset({"encoder", "embeddings", "probabilities"})

    @classmethod
    def of(cls, bundle: Bundle, dataset: Dataset, seed: int) -> Subject:
        """Divide a data set: by its own splits if it has them, else a seeded quarter is held out."""
        items = ready(bundle.encoder, dataset)
        names = items.dataset.split_names
        held = next((name for name in ("test", "validation") if name in names), None)
        if "train" in names and held:
            splits = np.asarray(items.dataset.manifest.splits)
            fit, test, how = items.select(splits == "train"), items.select(splits == held), f"its own train and {held}"
            unfitted = test
        else:
            shown = next(iter(sides_of(items.dataset).values()))  # heads are fitted to what it shows
            _, cut = items.dataset.divide(0.25, seed, shown.manifest.hashes)
            chosen = np.isin(items.dataset.rows, cut.rows)
            fit, test, how = items.select(~chosen), items.select(chosen), "a random quarter held out"
            unfitted = items
        if not (isinstance(fit, SideItems) and isinstance(test, SideItems) and isinstance(unfitted, SideItems)):
            sides = {bundle.modality: (bundle, unfitted)}
            return cls(bundle, fit, test, how, seed, sides, test.dataset, unfitted.dataset)
        sides = {name: (bundle.of_side(name), side) for name, side in unfitted.sides.items()}
        first = next(iter(sides))
        return cls(
            sides[first][0], fit.sides[first], test.sides[first], how, seed, sides, test.dataset, unfitted.dataset
        )

    @classmethod
    def elsewhere(cls, path: Path, dataset: Dataset, seed: int) -> Subject:
        """Return what another model's file of predictions or embeddings says of a data set; see `predictions.read`."""
        if dataset.sides > 1:
            raise BadInput(f"{dataset.whole.source}: predictions are of items with one side; name the column of one")
        found = predictions.read(path, dataset)
        vectors = found.values if found.kind == "embeddings" else None
        subject = cls.of(predictions.Elsewhere(path, dataset, vectors), dataset, seed)
        if vectors is not None:
            return replace(subject, has=frozenset({"embeddings", "probabilities"}))
        # Nothing is fitted, so that without splits all items are held out.
        items = subject.sides[subject.bundle.modality][1]
        answers = found.answers(len(dataset.class_names), path)
        mine = replace(answers, values=answers.values[predictions.places(dataset.rows, items.dataset.rows)])
        graded = frozenset({"probabilities"} if found.kind != "predicted" else ())
        how = "all items" if subject.how.startswith("a random") else subject.how
        none = items.select(np.arange(0))
        return replace(subject, fit=none, test=items, held_out=items.dataset, how=how, answers=mine, has=graded)

    def scene(self, items: Items) -> Scene:
        """Return a scene in which something may happen to some of the items."""
        return Scene(items, self.fit, self.bundle.encoder.prepare, self.bundle.encoder.device)

    def with_sets(self, outside: Mapping[str, Dataset], shifted: Mapping[str, Dataset]) -> Subject:
        """Return the same subject with further data sets; of one with splits the held-out part is used."""
        return replace(self, outside=self._made_ready(outside), shifted=self._made_ready(shifted))

    def _made_ready(self, sets: Mapping[str, Dataset]) -> dict[str, Items]:
        found = {}
        for name, dataset in sets.items():
            held = next((split for split in ("test", "validation") if split in dataset.split_names), None)
            found[name] = ready(self.bundle.encoder, dataset.split(held) if held else dataset)
        return found

    def side_vectors(self, name: str) -> Floats:
        """Embeddings of one side, float32 ``[M, D]``, length 1."""
        bundle, items = self.sides[name]
        return bundle.embed_items(items)

    @cached_property
    def fit_vectors(self) -> Floats:
        """Features of the fitting items, float32 ``[N, D]``, as the encoder gives them."""
        return self.bundle.embed_items(self.fit, normalize=False)

    @cached_property
    def test_vectors(self) -> Floats:
        """Features of the held-out items, float32 ``[M, D]``."""
        return self.bundle.embed_items(self.test, normalize=False)

    @cached_property
    def known(self) -> Columns:
        """What is known of the things of ``unfitted``, by column."""
        sides = {name: items for name, (_, items) in self.sides.items()}
        return known_of(
            self.unfitted, SideItems(self.unfitted, sides) if len(sides) > 1 else next(iter(sides.values()))
        )

    @property
    def held_out_known(self) -> Columns:
        """What is known of the held-out things, by column."""
        held = np.isin(self.unfitted.rows, self.held_out.rows)
        return {name: values[held] for name, values in self.known.items()}

    @property
    def fit_known(self) -> Columns:
        """What is known of the fitting items without a look at them: label and facts."""
        return known_of(self.fit.dataset)

    @cached_property
    def probe(self) -> Probe | Answers:
        """A linear probe on the fitting items' features, or the answers that another model gave."""
        if self.answers is not None:
            return self.answers
        return Probe.fitted(self.fit_vectors, self.fit_labels, self.classes, self.seed)

    @cached_property
    def test_logits(self) -> npt.NDArray[np.float64]:
        """What the probe says of the held-out items, ``[M, classes]``."""
        return self.probe.logits(self.test_vectors) if self.answers is None else self.answers.values

    @cached_property
    def has_labels(self) -> bool:
        """Whether every item that is used has a label, of two classes at least, also those that fit a probe."""
        parts = [self.test.dataset] if self.answers is not None else [self.fit.dataset, self.test.dataset]
        if self.classes < 2 or not all(_all_labelled(part) for part in parts):
            return False
        return self.answers is not None or len(np.unique(self.fit_labels)) > 1

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.fit.dataset.class_names)

    @property
    def fit_labels(self) -> Ints:
        """Class of each fitting item."""
        return self.fit.dataset.required_labels("this check")

    @property
    def test_labels(self) -> Ints:
        """Class of each held-out item."""
        return self.test.dataset.required_labels("this check")

    @property
    def data(self) -> str:
        """Fingerprint of the held-out items."""
        return self.held_out.fingerprint


def _all_labelled(part: Dataset) -> bool:
    return part.labels is not None and len(part) > 0 and bool((part.labels >= 0).all())
