"""What is measured: a bundle on a data set, its embeddings computed once for all checks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fastness.bundle import Bundle
from fastness.data import Dataset
from fastness.data.cache import DecodedImages, decoded

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Subject:
    """A bundle, the items on which heads are fitted, and the held-out items on which they are measured.

    Attributes:
        how: how the two parts came about, for the protocol.
        seed: of every random choice in the checks.
    """

    bundle: Bundle
    fit: DecodedImages
    test: DecodedImages
    how: str
    seed: int

    @classmethod
    def of(cls, bundle: Bundle, dataset: Dataset, seed: int) -> Subject:
        """Divide a data set: by its own splits if it has them, else a seeded quarter is held out."""
        images = decoded(dataset, bundle.size)
        names = images.dataset.split_names
        held = next((name for name in ("test", "validation") if name in names), None)
        if "train" in names and held:
            splits = np.asarray(images.dataset.manifest.splits)
            return cls(
                bundle,
                images.select(splits == "train"),
                images.select(splits == held),
                f"its own train and {held}",
                seed,
            )
        rows = np.arange(len(images))
        _, cut = images.dataset.divide(0.25, seed)
        chosen = np.isin(images.dataset.rows, cut.rows)
        return cls(bundle, images.select(rows[~chosen]), images.select(rows[chosen]), "a random quarter held out", seed)

    @cached_property
    def fit_vectors(self) -> Floats:
        """Features of the fitting items, float32 ``[N, D]``, as the encoder gives them."""
        return self.bundle.embed_images(self.fit, normalize=False)

    @cached_property
    def test_vectors(self) -> Floats:
        """Features of the held-out items, float32 ``[M, D]``."""
        return self.bundle.embed_images(self.test, normalize=False)

    @cached_property
    def has_labels(self) -> bool:
        """Whether every item of both parts has a label and there are two classes."""
        both = (self.fit.dataset.labels, self.test.dataset.labels)
        return all(y is not None and len(y) > 0 and bool((y >= 0).all()) for y in both) and self.classes > 1

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
        return self.test.dataset.fingerprint
