"""Heads: what names the class of an item and notices strangers, fitted on a bundle's frozen features, kept with it.

``heads/NAME/head.json`` says of which bundle it is, what it was fitted on and how good it is on held-out items;
``head.safetensors`` has its numbers. A head is an attachment: it changes nothing of the bundle's id.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as serialised

from fastness.bundle.bundle import Bundle
from fastness.core.errors import BadInput
from fastness.core.files import replace_folder, write_bytes, write_json
from fastness_runtime import Answers

FORMAT = 1
DESCRIPTION, NUMBERS = "head.json", "head.safetensors"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Numbers:
    """What a head computes with; float32.

    Attributes:
        mean: ``[D]``, taken from features.
        weights, bias: ``[D, C]`` and ``[C]``, by which they become logits, divided by the temperature.
        centre: ``[D]``, taken from embeddings.
        whitening: ``[D, D]``, by which they come to have a covariance of one within classes.
        means: ``[C, D]``, where the classes' means then lie.
    """

    mean: Floats
    weights: Floats
    bias: Floats
    centre: Floats
    whitening: Floats
    means: Floats

    @property
    def usable(self) -> bool:
        """Whether shapes fit each other, and all is finite."""
        if self.weights.ndim != 2:
            return False
        D, C = self.weights.shape
        shapes = ((D,), (D, C), (C,), (D,), (D, D), (C, D))
        every = [getattr(self, f.name) for f in fields(self)]
        fine = all(a.shape == s and a.dtype == np.float32 for a, s in zip(every, shapes, strict=True))
        return fine and all(bool(np.isfinite(a).all()) for a in every)


@dataclass(frozen=True)
class Head:
    """A fitted head.

    Attributes:
        folder: where it lies.
        about: what ``head.json`` says: ``bundle``, ``side``, ``classes``, ``threshold``, ``data``, ``measurements`` …
        numbers: what it computes with.
    """

    folder: Path
    about: dict[str, Any]
    numbers: Numbers

    @property
    def name(self) -> str:
        """What it is called."""
        return self.folder.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names."""
        return tuple(self.about["classes"])

    @property
    def threshold(self) -> float | None:
        """Novelty beyond which it abstains; ``None`` if it never does."""
        return None if self.about["threshold"] is None else float(self.about["threshold"])

    def answer(self, features: Floats) -> Answers:
        """Return what it says of items.

        Args:
            features: float32 ``[N, D]`` as the encoder gives them, not scaled to length 1.
        """
        n, f = self.numbers, features.astype(np.float64)
        logits = (f - n.mean) @ n.weights + n.bias
        likely = np.exp(logits - logits.max(1, keepdims=True))
        unit = f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)
        novelty = distances(n, unit).min(1, initial=np.inf)
        probabilities = (likely / likely.sum(1, keepdims=True)).astype(np.float32)
        return Answers.of(probabilities, novelty.astype(np.float32), self.classes, self.threshold)


def distances(numbers: Numbers, unit: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Return the squared Mahalanobis distance of embeddings ``[N, D]`` to each class's mean, float64 ``[N, C]``."""
    white, means = (unit.astype(np.float64) - numbers.centre) @ numbers.whitening, numbers.means.astype(np.float64)
    squares = np.square(white).sum(1)[:, None] - 2 * white @ means.T + np.square(means).sum(1)
    found: npt.NDArray[np.float64] = np.maximum(squares, 0)
    return found


def folder_of(bundle: Bundle, name: str) -> Path:
    """Return where a head of this name lies.

    Raises:
        BadInput: it is no name for a folder.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(f"head '{name[:80]}': is no name for one; use letters, digits, '-', '_' and '.'")
    return bundle.path / "heads" / name


def write(bundle: Bundle, name: str, numbers: Numbers, about: dict[str, Any]) -> Head:
    """Write a head atomically; one of the same name is replaced.

    Args:
        bundle: on whose features it was fitted.
        name: what it is called.
        numbers: what it computes with.
        about: what else is known of it, as values of JSON; at least those that `Head` asks for.
    """
    folder, content = folder_of(bundle, name), serialised({f.name: getattr(numbers, f.name) for f in fields(numbers)})
    about = {"format": FORMAT, "bundle": bundle.id, **about, "numbers": hashlib.sha256(content).hexdigest()}
    about["id"] = _identity(about)

    def fill(temporary: Path) -> None:
        write_bytes(temporary / NUMBERS, content)
        write_json(temporary / DESCRIPTION, about)

    replace_folder(folder, fill)
    return Head(folder, about, numbers)


def read(bundle: Bundle, name: str | None = None) -> Head:
    """Read a head of a bundle.

    Args:
        bundle: whose it must be.
        name: of the head; may be left out where there is only one.

    Raises:
        BadInput: there is no such head, it is another bundle's, or it was changed after it was written.
    """
    folder = folder_of(bundle, name if name is not None else _only(bundle))
    path = folder / DESCRIPTION
    if not path.is_file():
        there = ", ".join(names(bundle)) or "none"
        raise BadInput(f"{folder}: no head here; there are: {there}; fit one with fastness fit")
    try:
        about = dict(json.loads(path.read_text(encoding="utf-8")))
        if about["format"] != FORMAT:
            raise BadInput(f"{path}: head format {about['format']} is not this version's ({FORMAT}); fit it anew")
        content = (folder / NUMBERS).read_bytes()
        if about["id"] != _identity(about) or about["numbers"] != hashlib.sha256(content).hexdigest():
            raise BadInput(f"{folder}: was changed after it was fitted; fit it anew, or get an intact copy")
        if about["bundle"] != bundle.id:
            raise BadInput(f"{folder}: was fitted on another bundle ({str(about['bundle'])[:12]}); fit it on this one")
        numbers = Numbers(**from_bytes(content))
        if not numbers.usable or numbers.weights.shape[1] != len(about["classes"]):
            raise BadInput(f"{folder}: its numbers do not fit each other; fit it anew")
        return Head(folder, about, numbers)
    except (ValueError, KeyError, TypeError, RecursionError, OSError, SafetensorError) as error:
        raise BadInput(f"{folder}: is no readable head ({type(error).__name__}: {error}); fit it anew") from None


def names(bundle: Bundle) -> list[str]:
    """Return the heads that a bundle has."""
    found = (path.parent.name for path in bundle.path.glob(f"heads/*/{DESCRIPTION}"))
    return sorted(name for name in found if _NAME.fullmatch(name) and not name.startswith("."))


def _only(bundle: Bundle) -> str:
    found = names(bundle)
    if len(found) != 1:
        said = f"has the heads {', '.join(found)}; name one (--head)" if found else "has no head; fit one: fastness fit"
        raise BadInput(f"{bundle.path}: {said}")
    return found[0]


def _identity(about: dict[str, Any]) -> str:
    stated = {key: value for key, value in about.items() if key != "id"}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
