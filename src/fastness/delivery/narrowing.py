"""Narrower vectors: a linear layer behind the encoder, by principal components or by cutting."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fastness import bundle as bundles
from fastness.bundle.exported import Exported
from fastness.core.errors import BadInput
from fastness.core.seeds import numpy_generator
from fastness.encoders import Encoder, build
from fastness.metrics.knn import knn_predict

Floats = npt.NDArray[np.float64]
WHITENINGS = (0.0, 0.25, 0.5, 0.75, 1.0)
_FITTED, _HELD_OUT, _NEAREST = 20_000, 1000, 10
Layer = tuple[Floats, Floats]  # weight [D, width] and bias [D]
_TINY = 1e-6  # of the largest variance: directions with less are noise, and are not stretched further


@dataclass(frozen=True)
class Tried:
    """One way to narrow, and what it keeps on the held-out items.

    Attributes:
        whiten: exponent w: each component is divided by its standard deviation to the power of w.
        centred: whether the mean is taken off.
        agreement: share of the 10 nearest items that are those of the full vectors.
        accuracy: of a vote of 20 neighbours; ``None`` without labels.
    """

    whiten: float
    centred: bool
    agreement: float
    accuracy: float | None


@dataclass(frozen=True)
class Narrowed:
    """What narrowing gave: the new bundle, its length, the way that was chosen, and all that were tried.

    ``full``: kNN accuracy of the full vectors on the same items; ``None`` without labels.
    """

    folder: Path
    id: str
    dim: int
    chosen: Tried
    tried: tuple[Tried, ...]
    full: float | None


@dataclass(frozen=True)
class _Parts:
    """Features of the items to fit by and of those held out, float64, and their labels, if all have one."""

    fitted: Floats
    held_out: Floats
    labels: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None


def narrow(
    bundle: bundles.Bundle | str | Path,
    data: Any,
    dim: int,
    *,
    whiten: float | None = None,
    centre: bool | None = None,
    cut: bool = False,
    out: str | Path,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Narrowed:
    """Write a bundle whose vectors have ``dim`` numbers: a linear layer behind the network makes them of the long ones.

    The layer gives the first principal components of the features as the network gives them, each divided by its
    standard deviation to the power ``whiten``: 0 leaves all cosines as near as can be, 1 makes all components equally
    strong, noise too. What is not said is measured, on items that the components were not fitted on: the way whose
    kNN accuracy is best is taken, without labels the one whose nearest items are most often those of the full vectors.

    Args:
        bundle: a bundle or its path.
        data: real items, of which up to 21,000 are looked at; of a set with splits those of ``train``.
        dim: length of the new vectors.
        whiten: in [0, 1]; default: measured.
        centre: take the mean off; default: measured.
        cut: take the first ``dim`` numbers instead, of an encoder that was trained with ``--option nested``.
        out: folder of the new bundle.
        seed: by which items are taken and held out.
        say: called with a line of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: ``dim`` or ``whiten`` is out of range, there are too few items, or the bundle has several sides.
    """
    if not isinstance(bundle, bundles.Bundle):
        bundle = bundles.load(bundle)
    _refuse(bundle, dim, whiten, centre, cut)
    say = say or (lambda line: None)
    say("vectors …")
    parts = _parts(bundle, data, seed, columns)
    if not cut and len(parts.fitted) < dim:
        raise BadInput(f"--dim {dim}: {len(parts.fitted)} items are too few to find so many components; give more")
    say("what each way keeps …")
    ways = _ways(parts.fitted, dim, whiten, centre, cut)
    judge = _judge(parts)
    tried = [Tried(*way, *judge(*layer)) for way, layer in ways.items()]
    best = max(range(len(tried)), key=lambda i: (tried[i].accuracy or 0.0, tried[i].agreement, -i))
    encoder = _with_layer(bundle.encoder, *list(ways.values())[best])
    how = {"method": "cut" if cut else "narrowed", "encoder": encoder.spec.name, "dim": dim, "seed": seed}
    recipe = how | {"chosen": asdict(tried[best]), "parents": {"narrowed": bundle.id}}
    identity = bundles.write(Path(out), encoder, recipe, bundle)
    _, full = judge(np.eye(bundle.dim), np.zeros(bundle.dim))
    return Narrowed(Path(out), identity, dim, tried[best], tuple(tried), full)


def _refuse(bundle: bundles.Bundle, dim: int, whiten: float | None, centre: bool | None, cut: bool) -> None:
    if bundle.modality == "sides":
        raise BadInput(f"{bundle.path}: its sides end in a common space of their own; train it with a smaller --width")
    if isinstance(bundle, Exported):
        raise BadInput(f"{bundle.path}: is an export; narrow the bundle that it was made of")
    if not 1 <= dim <= bundle.dim:
        raise BadInput(f"--dim {dim}: the vectors have {bundle.dim} numbers; give 1 to {bundle.dim}")
    if whiten is not None and not 0 <= whiten <= 1:
        raise BadInput(f"--whiten {whiten}: give 0 to 1")
    if cut and (whiten is not None or centre is not None):
        raise BadInput("--cut takes the numbers as they are; drop --whiten and --centre")


def _parts(bundle: bundles.Bundle, data: Any, seed: int, columns: dict[str, str | None]) -> _Parts:
    """Embed the items to fit by and those held out: of few a fifth."""
    dataset = bundle.open(data, **columns).training_part()
    order = numpy_generator(seed, "narrow").permutation(len(dataset))[: _FITTED + _HELD_OUT]
    found = bundle.embed_dataset(dataset.select(np.sort(order)), normalize=False)
    n = len(found.vectors)
    held = numpy_generator(seed, "held out").permutation(n)[: min(_HELD_OUT, n // 5)]
    fitted = np.setdiff1d(np.arange(n), held)
    if not len(held):
        raise BadInput(f"{dataset.whole.source}: {n} usable items; narrowing needs at least 5")
    vectors, labels = found.vectors.astype(np.float64), found.dataset.manifest.labels
    if labels is None or (labels < 0).any():
        return _Parts(vectors[fitted], vectors[held], None)
    return _Parts(vectors[fitted], vectors[held], (labels[fitted], labels[held]))


def _ways(
    features: Floats, dim: int, whiten: float | None, centre: bool | None, cut: bool
) -> dict[tuple[float, bool], Layer]:
    """Return the layers to try, by whitening and whether the mean is taken off."""
    width = features.shape[1]
    if cut:
        return {(0.0, False): (np.eye(width)[:dim], np.zeros(dim))}
    whitenings = WHITENINGS if whiten is None else (whiten,)
    centrings = (False, True) if centre is None else (centre,)
    return {
        (w, c): layer
        for c in centrings
        for w, layer in zip(whitenings, _principal(features, dim, whitenings, c), strict=True)
    }


def _principal(features: Floats, dim: int, whitenings: Sequence[float], centred: bool) -> list[Layer]:
    """Return a layer for each whitening: ``x -> S^-w V (x - mean)``, the mean 0 where it is not taken off."""
    mean = features.mean(0) if centred else np.zeros(features.shape[1])
    variances, directions = np.linalg.eigh((features - mean).T @ (features - mean) / len(features))
    order = np.argsort(-variances)[:dim]
    spread = np.sqrt(np.maximum(variances[order], _TINY * variances.max()))
    found = []
    for exponent in whitenings:
        weight = directions[:, order].T / spread[:, None] ** exponent
        found.append((weight, -weight @ mean))
    return found


def _judge(parts: _Parts) -> Callable[[Floats, Floats], tuple[float, float | None]]:
    """Return what says of a layer how many nearest items stay, and the kNN accuracy of what it gives."""
    wanted = nearest(parts.fitted, parts.held_out)

    def judged(weight: Floats, bias: Floats) -> tuple[float, float | None]:
        there, asked = (_unit(x @ weight.T + bias) for x in (parts.fitted, parts.held_out))
        agreement = float(shared(wanted, nearest(there, asked)).mean())
        if parts.labels is None:
            return agreement, None
        known, right = parts.labels
        return agreement, float((knn_predict(there, known, asked) == right).mean())

    return judged


def nearest(bank: npt.NDArray[np.floating], queries: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return the positions of the nearest items of each query by the cosine, ``[Q, 10]``, in no order."""
    k = min(_NEAREST, len(bank))
    return np.argpartition(-(_unit(queries) @ _unit(bank).T), k - 1, axis=1)[:, :k]


def shared(these: npt.NDArray[np.int64], those: npt.NDArray[np.int64]) -> Floats:
    """Return which share of each query's nearest items two encoders have in common, ``[Q]``."""
    same = [len(np.intersect1d(a, b)) for a, b in zip(these, those, strict=True)]
    return np.asarray(np.array(same) / these.shape[1], np.float64)


def _unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def _with_layer(encoder: Encoder, weight: Floats, bias: Floats) -> Encoder:
    """Return a copy of an encoder with a linear layer behind it, made one with a layer that is there."""
    state = {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
    if encoder.projection is not None:
        before = encoder.projection
        bias = weight @ before.bias.detach().double().numpy() + bias
        weight = weight @ before.weight.detach().double().numpy()
    made = build(replace(encoder.spec, projection=len(weight)), _module(encoder))
    state |= {"projection.weight": torch.from_numpy(weight).float(), "projection.bias": torch.from_numpy(bias).float()}
    made.load_state_dict(state)
    return made.eval()


def _module(encoder: Encoder) -> nn.Module | None:
    """Return the backbone where it is the user's own, which no description builds."""
    return copy.deepcopy(encoder.backbone) if encoder.spec.name == "module" else None
