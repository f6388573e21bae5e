"""The scikit-learn face: an estimator that learns an encoder and transforms items into vectors."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

if TYPE_CHECKING:
    from fastness.bundle import Bundle

Floats = npt.NDArray[np.float32]


class ContrastiveEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learns an encoder by contrast, without labels unless the method asks for them.

    ``X`` is an array ``[N, C]`` of numbers or a data frame (NaN and missing values are allowed), a list of texts, or
    pictures uint8 ``[N, H, W]``, ``[N, H, W, 3]`` or ``[N, 3, H, W]``.

    Args:
        method: see ``fastness methods``; ``auto`` is SimCLR.
        encoder, width, batch_size, lr, temperature, views, options, network: see `core.recipe.Recipe`; ``None`` is
            chosen for the data.
        steps, epochs, budget: length of the training, one of them; 300 steps if none is given.
        random_state: seed, generator or ``None``.

    Attributes:
        bundle_: the trained bundle. A pickle of the estimator holds the bundle's files, no code of theirs.
        n_features_in_: number of columns, where ``X`` has columns.
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        encoder: str = "auto",
        width: int | None = None,
        steps: int | None = None,
        epochs: float | None = None,
        budget: str | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        temperature: float | None = None,
        views: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        network: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.encoder = encoder
        self.width = width
        self.steps = steps
        self.epochs = epochs
        self.budget = budget
        self.batch_size = batch_size
        self.lr = lr
        self.temperature = temperature
        self.views = views
        self.options = options
        self.network = network
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from ``X``; ``y`` is used by methods that need labels, and by the others not at all.

        Raises:
            BadInput: ``X`` or a parameter is unusable.
            ValueError: an array is not what scikit-learn accepts.
        """
        from fastness.core.recipe import Recipe
        from fastness.data.sources.arrays import labelled
        from fastness.encoders import modality
        from fastness.methods import METHODS
        from fastness.training.progress import Display
        from fastness.training.run import train

        X = self._checked(X, reset=True)
        asked: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("steps", "epochs", "budget", "width", "batch_size", "lr", "temperature")
            if getattr(self, name) is not None
        }
        if not {"steps", "epochs", "budget"} & asked.keys():
            asked["steps"] = 300
        for name in ("views", "options", "network"):
            asked[name] = dict(getattr(self, name) or {})
        seed = int(check_random_state(self.random_state).randint(1 << 31))
        recipe = Recipe.parse({"method": self.method, "encoder": self.encoder, "seed": seed, **asked}, "parameters")
        dataset = modality(_kind(X)).dataset(X)
        if y is not None and self.method != "auto" and METHODS.get(self.method).needs:
            dataset = labelled(dataset, y, "y")
        with tempfile.TemporaryDirectory() as folder:
            made = train(dataset, recipe, Path(folder) / "run", display=Display(quiet=True))
            self._take(_packed(made.bundle))
        return self

    def transform(self, X: Any) -> Floats:
        """Return embeddings float32 ``[N, dim]``, rows of length 1."""
        check_is_fitted(self, "bundle_")
        vectors: Floats = self.bundle_.embed(self._checked(X, reset=False))
        return vectors

    @property
    def _n_features_out(self) -> int:
        return self.bundle_.dim

    def _checked(self, X: Any, reset: bool) -> Any:
        """Check what has columns as scikit-learn does; data frames keep their types, other items stay as they are."""
        if hasattr(X, "columns"):
            return validate_data(self, X, reset=reset, skip_check_array=True)
        if _kind(X) == "table" and not _of_mappings(X):
            fewest = 2 if reset else 1
            return validate_data(
                self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan", ensure_min_samples=fewest
            )
        return X

    def _take(self, packed: bytes) -> None:
        """Load a packed bundle; its files live as long as the estimator."""
        self._packed = packed
        self._folder = tempfile.TemporaryDirectory(prefix="fastness-")
        self.bundle_ = _unpacked(packed, Path(self._folder.name))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("bundle_", "_folder")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_packed" in state:
            self._take(state["_packed"])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.non_deterministic = self.budget is not None  # a time budget makes as many steps as it can
        return tags


def _kind(X: Any) -> str:
    """Return the modality of what is in hand."""
    if hasattr(X, "columns"):
        return "table"
    first = X[0] if isinstance(X, list | tuple) and len(X) else None
    flat = np.asarray(X) if isinstance(X, np.ndarray) or hasattr(X, "iloc") else np.zeros(0)
    if isinstance(first, str) or (
        flat.ndim == 1 and flat.dtype.kind in "OUT" and all(isinstance(t, str) for t in flat)
    ):
        return "text"
    if _of_mappings(X):
        return "table"
    if isinstance(first, bytes) or hasattr(first, "convert") or (first is not None and np.ndim(first) in (2, 3)):
        return "image"  # a list of pictures, perhaps of different sizes
    return "image" if hasattr(X, "__array__") and np.asarray(X).ndim in (3, 4) else "table"


def _of_mappings(X: Any) -> bool:
    return isinstance(X, list | tuple) and len(X) > 0 and isinstance(X[0], Mapping)


def _packed(folder: Path) -> bytes:
    """Return a bundle's folder as an uncompressed zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder).as_posix())
    return out.getvalue()


def _unpacked(packed: bytes, folder: Path) -> Bundle:
    from fastness.bundle import load

    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(folder)
    return load(folder)
