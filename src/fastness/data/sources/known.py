"""Sets known by name: scikit-learn's digits, and larger ones from the places where they usually lie."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastness.core.errors import BadInput
from fastness.core.files import cache_root
from fastness.data.dataset import Dataset
from fastness.data.sources import SOURCES, Columns
from fastness.data.sources.arrays import from_pixels

_FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@SOURCES.register("known")
class KnownSource:
    """Opens ``digits``, ``fashion-mnist`` and ``cifar10``."""

    def accepts(self, data: Any, columns: Columns) -> bool:
        """One of the names, unless a file of that name exists here."""
        return isinstance(data, Path) and str(data) in _OPENERS and not data.exists()

    def open(self, data: Any, columns: Columns) -> Dataset:
        """Open the set."""
        opened = _OPENERS[str(data)]()
        whole = opened.whole
        if columns.label == "none":
            whole = replace(whole, labels=None, class_names=())
        if columns.split == "none":
            whole = replace(whole, splits=None)
        return Dataset.of(whole, opened.payloads)


def _digits() -> Dataset:
    """Scikit-learn's 1,797 scanned digits, 8 × 8, every fourth one of each class held out as test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    rank = np.array([np.sum(bunch.target[:i] == digit) for i, digit in enumerate(bunch.target)])
    splits = np.where(rank % 4 == 3, "test", "train").astype(np.str_)
    return from_pixels(
        pixels, bunch.target, "digits", splits, licence="CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)"
    )


def _fashion_mnist() -> Dataset:
    for folder in (*_given("fashion-mnist", "fashion_mnist"), Path("/usr/share/datasets/fashion-mnist")):
        if folder.is_dir():
            from fastness.data.sources.idx import IdxSource

            opened = IdxSource().open(folder, Columns())
            manifest = opened.whole
            return from_pixels(
                opened.payloads.pixels,  # type: ignore[attr-defined]
                manifest.labels,
                str(folder),
                manifest.splits,
                _FASHION,
                licence="MIT",
            )
    return _torchvision("FashionMNIST", "fashion-mnist", "apt-get install dataset-fashion-mnist")


def _cifar10() -> Dataset:
    for folder in _given("cifar10_jpeg", "cifar10"):
        if folder.is_dir() and list(folder.glob("*.parquet")):
            from fastness.data.sources.parquet import ParquetSource

            return ParquetSource().open(folder, Columns())
    return _torchvision("CIFAR10", "cifar10", "set FASTNESS_DATA to the folder that holds cifar10/")


def _given(*names: str) -> list[Path]:
    root = os.environ.get("FASTNESS_DATA")
    return [Path(root) / name for name in names] if root else []


def _torchvision(name: str, source: str, remedy: str) -> Dataset:
    """Download through torchvision, as the user asked by naming the set."""
    from torchvision import datasets

    pixels, labels, splits = [], [], []
    for train in (True, False):
        try:
            part = getattr(datasets, name)(cache_root() / "downloads", train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise BadInput(f"{source}: cannot be downloaded ({str(error).splitlines()[0]}); or {remedy}") from None
        pixels.append(np.asarray(part.data))
        labels.append(np.asarray(part.targets))
        splits += ["train" if train else "test"] * len(pixels[-1])
    return from_pixels(np.concatenate(pixels), np.concatenate(labels), source, np.array(splits, np.str_), part.classes)


_OPENERS = {"digits": _digits, "fashion-mnist": _fashion_mnist, "cifar10": _cifar10}
