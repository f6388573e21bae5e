"""Any model's predictions or embeddings, measured as a bundle is: read from a file that names the same items."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastness.bundle import Bundle
from fastness.core.errors import BadInput
from fastness.core.files import sha256_file
from fastness.core.recipe import Recipe
from fastness.data import Dataset
from fastness.data.items import Items
from fastness.encoders import build, modality

Floats = npt.NDArray[np.float32]
_SURE = 30.0  # logit of an answer that came without a probability
_TINY = 1e-12
_KINDS = ("embeddings", "probabilities", "logits", "predicted")


@dataclass(frozen=True)
class Answers:
    """What a model said of items, in the place of a probe on embeddings.

    Attributes:
        values: logits float64 ``[N, classes]``.
        protocol: where they come from.
        temperature: 1; they are taken as they are.
    """

    values: npt.NDArray[np.float64]
    protocol: str
    temperature: float = 1.0

    def logits(self, vectors: Floats) -> npt.NDArray[np.float64]:
        """Return the logits; there is nothing to be worked out."""
        return self.values


class Elsewhere(Bundle):
    """A model that is not ours: its embeddings of one data set's items, or nothing but answers.

    Its encoder is an untrained one of the same modality, by which items are made ready so that their traits are known.
    """

    def __init__(self, path: Path, dataset: Dataset, vectors: Floats | None) -> None:
        kind = modality(dataset.modality)
        recipe = Recipe().model_copy(update=kind.choose(Recipe(), dataset, torch.device("cpu"), None))
        super().__init__(path, sha256_file(path), build(kind.fit(recipe, dataset)), {"method": "another tool"}, {})
        self._rows, self._vectors = dataset.rows, vectors

    @property
    def dim(self) -> int:
        """Length of an embedding; 0 if there are only answers."""
        return 0 if self._vectors is None else self._vectors.shape[1]

    @property
    def item_hashes(self) -> frozenset[str]:
        """What it was trained on is not known."""
        return frozenset()

    def embed_items(
        self, items: Items, *, normalize: bool = True, batch_size: int = 256, precision: str = "float32"
    ) -> Floats:
        """Return the embeddings that the file holds of these items."""
        assert self._vectors is not None
        found = self._vectors[places(self._rows, items.dataset.rows)]
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), _TINY) if normalize else found


def places(rows: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where each of the wanted rows stands among ``rows``, which are all different and in any order."""
    order = np.argsort(rows)
    found: npt.NDArray[np.int64] = order[np.searchsorted(rows, wanted, sorter=order)]
    return found


@dataclass(frozen=True)
class Predictions:
    """What a file holds of the items of a data set, in their order.

    Attributes:
        kind: ``embeddings``, ``probabilities``, ``logits``, ``predicted`` or ``counts`` (of people's votes).
        values: float ``[N, D]`` or ``[N, classes]``; of ``predicted`` class numbers int64 ``[N]``.
    """

    kind: str
    values: npt.NDArray[Any]

    def answers(self, classes: int, path: Path) -> Answers:
        """Return logits, whatever the file holds."""
        how = f"{self.kind} from {path.name}"
        if self.kind == "predicted":
            return Answers(_SURE * (self.values[:, None] == np.arange(classes)).astype(np.float64), how)
        values = self.values.astype(np.float64)
        return Answers(np.log(np.maximum(values, _TINY)) if self.kind == "probabilities" else values, how)


def read(path: Path, dataset: Dataset, wanted: Sequence[str] = _KINDS) -> Predictions:
    """Read a file of predictions.

    Args:
        path: ``.npy`` (embeddings), ``.npz`` with one of ``embeddings``, ``probabilities``, ``logits``, ``predicted``
            (and ``classes``, names of the columns), or a table (``.csv``, ``.parquet`` …) with a column ``predicted``
            or one column a class with its probability (``cat`` or ``p_cat``); ``id`` may name the items, in any order.
        dataset: the items.
        wanted: of what kinds the file may be.

    Raises:
        BadInput: the file is none of these, or does not fit the items; names the row.
    """
    if path.suffix in (".npy", ".npz"):
        found = _arrays(path)
        order = _order(found.get("id"), dataset, path)
        classes = found.get("classes")
    else:
        found, order, classes = _table(path, dataset)
    kinds = [kind for kind in wanted if kind in found]
    if len(kinds) != 1:
        raise BadInput(f"{path}: holds {', '.join(found) or 'nothing'}; give just one of {', '.join(wanted)}")
    values = np.asarray(found[kinds[0]])
    if order is None and len(values) != len(dataset):
        raise BadInput(f"{path}: {len(values)} rows for {len(dataset)} items; give one row an item, or a column id")
    values = _checked(kinds[0], values, classes, dataset, path)
    return Predictions(kinds[0], values if order is None else values[order])


def read_votes(path: Path, dataset: Dataset) -> npt.NDArray[np.float64]:
    """Return how many people said each class of each item, float64 ``[N, classes]``; see `read`.

    Raises:
        BadInput: the file does not hold such numbers, an item has no vote, or the votes agree with the labels no better
            than in any other order, so that they belong to other items.
    """
    found = read(path, dataset, ("counts", "probabilities"))
    votes = found.values.astype(np.float64)
    bad = np.flatnonzero((votes < 0).any(1) | (votes.sum(1) <= 0))
    if len(bad):
        raise BadInput(f"{path}: row {bad[0]} has no vote, or less than none ({len(bad)} such rows)")
    if dataset.labels is not None and not _follow(votes.argmax(1), dataset.labels):
        raise BadInput(f"{path}: the votes agree with the labels no more than by chance; put them in the items' order")
    return votes


def _follow(said: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> bool:
    """Return whether two columns agree more often, by 3 deviations, than they would in a random order."""
    said, labels, n = said[labels >= 0], labels[labels >= 0], int((labels >= 0).sum())
    if n == 0:
        return True
    shares = [np.bincount(column, minlength=int(max(said.max(), labels.max())) + 1) / n for column in (said, labels)]
    chance = float((shares[0] * shares[1]).sum())
    surely = chance == 1 or (said == labels).mean() > chance + 3 * (chance * (1 - chance) / n) ** 0.5
    return bool(surely)


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        loaded = np.load(path, allow_pickle=False)
        return {"embeddings": loaded} if path.suffix == ".npy" else dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path}: not readable as an array ({' '.join(str(error).split())[:200]})") from None


def _table(path: Path, dataset: Dataset) -> tuple[dict[str, Any], npt.NDArray[np.int64] | None, Any]:
    """Return the contents of a table, where each item stands in it, and the classes its columns are named after."""
    from fastness.data.frame import read_frame

    frame = read_frame(path)
    order = _order(frame.texts("id") if "id" in frame.columns else None, dataset, path)
    if "predicted" in frame.columns:
        return {"predicted": frame.texts("predicted")}, order, None
    named = [name for name in frame.columns if name.removeprefix("p_") in dataset.class_names]
    if not named:
        columns = ", ".join(frame.columns)[:300]
        raise BadInput(f"{path}: no column 'predicted' and none named after a class; columns: {columns}")
    try:
        values = [[float(cell) for cell in map(_number, frame.texts(name))] for name in named]
    except ValueError as error:
        raise BadInput(f"{path}: {error}; give probabilities") from None
    return {"probabilities": np.array(values).T}, order, [name.removeprefix("p_") for name in named]


def _number(cell: str | None) -> str:
    return "nan" if cell is None else cell


def _order(ids: Any, dataset: Dataset, path: Path) -> npt.NDArray[np.int64] | None:
    """Return for each item its row in the file; ``None`` if the file names no items."""
    if ids is None:
        return None
    rows = {str(name): row for row, name in enumerate(ids)}
    if len(rows) < len(ids):
        twice = next(name for name, count in Counter(map(str, ids)).items() if count > 1)
        raise BadInput(f"{path}: id '{twice}' stands there twice; keep one row an item")
    missing = [name for name in dataset.manifest.names if name not in rows]
    if missing:
        raise BadInput(f"{path}: no row for {len(missing)} of {len(dataset)} items, e.g. id '{missing[0]}'")
    return np.array([rows[name] for name in dataset.manifest.names], np.int64)


def _checked(kind: str, values: Any, classes: Any, dataset: Dataset, path: Path) -> npt.NDArray[Any]:
    """Return numbers in the order of the data set's classes."""
    if kind == "predicted":
        number = {name: i for i, name in enumerate(dataset.class_names)}
        named = ["" if value is None else str(value).strip() for value in values]
        strange = next((row for row, name in enumerate(named) if name not in number), None)
        if strange is not None:
            raise BadInput(f"{path}: row {strange}: '{named[strange][:40]}' is no class of {dataset.whole.source}")
        return np.array([number[name] for name in named], np.int64)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise BadInput(f"{path}: {kind} of shape {values.shape} and type {values.dtype}; give numbers [N, D]")
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise BadInput(f"{path}: row {bad[0]} of {kind} has a value that is no number ({len(bad)} such rows)")
    if kind == "embeddings":
        return np.asarray(values, np.float32)
    names = list(dataset.class_names) if classes is None else [str(name) for name in classes]
    if len(names) != values.shape[1] or set(names) != set(dataset.class_names):
        raise BadInput(
            f"{path}: {values.shape[1]} columns of {kind} for classes {', '.join(dataset.class_names)[:200]}; "
            "give one a class, in this order or with 'classes'"
        )
    if kind == "probabilities" and ((values < 0).any() or (np.abs(values.sum(1) - 1) > 0.01).any()):
        raise BadInput(f"{path}: probabilities lie between 0 and 1 and add up to 1; are these logits?")
    return np.asarray(values[:, [names.index(name) for name in dataset.class_names]])
