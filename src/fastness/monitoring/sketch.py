"""The reference sketch: how a version's items looked when it was made, small enough to go wherever it goes.

``sketch/`` is an attachment of a bundle. ``reference.json`` says of which bundle it is and what it was made of,
``reference.npz`` holds up to 2,000 items: their embeddings (float16), what is known of each, and the clusters that they
fall into. What production sees is compared with it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.core.files import replace_folder, write_bytes, write_json
from fastness.monitoring.window import Array, Floats, Window

FORMAT = 1
FOLDER, DESCRIPTION, NUMBERS = "sketch", "reference.json", "reference.npz"
_COLUMN = "column."


@dataclass(frozen=True)
class Sketch:
    """A reference.

    Attributes:
        about: what ``reference.json`` says: ``bundle``, ``form`` of the vectors (``float32`` or an export's), ``side``,
            ``head``, ``source``, ``fingerprint``, ``items`` (how many), ``trained`` (share of them that the encoder was
            trained on), ``typical`` (of each cluster the ids of its most typical items), ``seed``.
        window: the kept items.
        centroids: float32 ``[K, D]``.
        names: of each cluster, ``K`` different ones.
        shares: float64 ``[K]``, of the kept items; their sum is 1.
    """

    about: dict[str, Any]
    window: Window
    centroids: Floats
    names: tuple[str, ...]
    shares: npt.NDArray[np.float64]

    @classmethod
    def load(cls, folder: str | Path) -> Sketch:
        """Load a sketch.

        Args:
            folder: its own, or that of the bundle which it lies beside.

        Raises:
            BadInput: there is none, or it was changed after it was made.
        """
        folder = Path(folder)
        if (folder / FOLDER / DESCRIPTION).is_file():
            folder = folder / FOLDER
        path = folder / DESCRIPTION
        if not path.is_file():
            raise BadInput(f"{folder}: no sketch here; make one: fastness sketch BUNDLE DATA")
        try:
            about = dict(json.loads(path.read_text(encoding="utf-8")))
            if about["format"] != FORMAT:
                raise BadInput(
                    f"{path}: sketch format {about['format']} is not this version's ({FORMAT}); make it anew"
                )
            content = (folder / NUMBERS).read_bytes()
            if about["id"] != _identity(about) or about["numbers"] != hashlib.sha256(content).hexdigest():
                raise BadInput(f"{folder}: was changed after it was made; make it anew, or get an intact copy")
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                arrays = {name: kept[name] for name in kept.files}
            columns = {n.removeprefix(_COLUMN): _as_read(v) for n, v in arrays.items() if n.startswith(_COLUMN)}
            window = Window(_single(arrays["vectors"]), columns, [str(name) for name in arrays["ids"]], arrays["at"])
            return cls(about, window, arrays["centroids"], tuple(map(str, about["names"])), arrays["shares"])
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BadInput(f"{folder}: is no readable sketch ({type(error).__name__}: {error}); make it anew") from None

    def write(self, folder: Path) -> None:
        """Write it to a folder of its own, whole or not at all; what was there is replaced."""
        arrays = {
            "vectors": self.window.vectors.astype(np.float16),
            "ids": np.array(self.window.ids, np.str_),
            "at": self.window.at,
            "centroids": self.centroids,
            "shares": self.shares,
            **{_COLUMN + name: _as_written(values) for name, values in self.window.columns.items()},
        }
        handle = io.BytesIO()
        np.savez_compressed(handle, allow_pickle=False, **arrays)
        content = handle.getvalue()
        about = {**self.about, "format": FORMAT, "names": list(self.names)}
        about["numbers"] = hashlib.sha256(content).hexdigest()
        about["id"] = _identity(about)

        def fill(temporary: Path) -> None:
            write_bytes(temporary / NUMBERS, content)
            write_json(temporary / DESCRIPTION, about)

        replace_folder(folder, fill)


def _identity(about: Mapping[str, Any]) -> str:
    stated = {key: value for key, value in about.items() if key != "id"}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _as_written(values: Array) -> Array:
    return values.astype(np.str_) if values.dtype.kind == "O" else values


def _as_read(values: Array) -> Array:
    return values.astype(object) if values.dtype.kind == "U" else values.astype(np.float64)


def _single(halves: Array) -> Floats:
    return halves.astype(np.float32)
