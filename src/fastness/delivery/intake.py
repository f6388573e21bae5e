"""What the graph of each modality takes: items as people have them, as one tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from fastness.bundle import Bundle
from fastness.core.registry import Registry
from fastness.data import Dataset
from fastness.data.schema import Category
from fastness.data.table import TableItems
from fastness.data.text import texts_of
from fastness.data.values import MISSING
from fastness.delivery.mappings import as_mappings
from fastness.encoders import Encoder
from fastness_runtime.decode import decode

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Intake:
    """What a graph takes.

    Attributes:
        name: of its input.
        example: a batch of two, by which the network is followed.
        any_size: dimensions beside the first, by place, that may have any size, and what they are called.
        before: puts in front of the graph what a trace of the network cannot express.
        files: what the runtime needs beside the graph, by name.
        about: what it needs to know, as values of JSON.
    """

    name: str
    example: torch.Tensor
    any_size: Mapping[int, str] = field(default_factory=dict)
    before: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """Real items as the runtime takes them, and what the encoder gives for each, float32 ``[N, dim]``."""

    items: Any
    features: Floats

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def vectors(self) -> Floats:
        """The encoder's embeddings, float32 ``[N, dim]``, length 1."""
        found: Floats = self.features / np.maximum(np.linalg.norm(self.features, axis=1, keepdims=True), 1e-12)
        return found

    def select(self, rows: Sequence[int]) -> Sample:
        """Return the items at these positions."""
        chosen = self.items[rows] if isinstance(self.items, np.ndarray) else [self.items[row] for row in rows]
        return Sample(chosen, self.features[rows])


@dataclass(frozen=True)
class Kind:
    """How one modality is delivered.

    Attributes:
        intake: what the graph of an encoder takes.
        sample: real items and the encoder's own features of them; damaged items are left out.
    """

    intake: Callable[[Any], Intake]
    sample: Callable[[Bundle, Dataset], Sample]


KINDS: Registry[Kind] = Registry(
    "deliverable modality", "fastness.delivery", dict.fromkeys(("image", "text", "table"), "intake")
)
"""By modality. Adding one is two functions and a line here."""


def _pictures(encoder: Any) -> Intake:
    """Pixels uint8 ``[B, 3, H, W]`` of any size: the largest centred square is resized within the graph."""
    from fastness.delivery.square import squares_first

    size = encoder.spec.size
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    return Intake("pixels", example, before=lambda graph: squares_first(graph, size), about={"size": size})


def _some_pictures(bundle: Bundle, dataset: Dataset) -> Sample:
    items = bundle.encoder.prepare(dataset)
    return Sample(_Pictures(items.dataset), bundle.embed_items(items, normalize=False))


class _Pictures(Sequence[Any]):
    """Pictures as the runtime takes them, each read when it is asked for: a thousand photographs fill a memory."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, place: Any) -> Any:
        payload = self._dataset.payloads.read(int(self._dataset.rows[place]))
        return payload if isinstance(payload, bytes) else decode(payload)


def _texts(encoder: Any) -> Intake:
    """Tokens int32 ``[B, L]``, -1 behind the end; the tokenizer beside the graph cuts as the encoder does."""
    tokenizer = encoder.tokenizer.to_str().encode()
    example = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, -1, -1]], dtype=torch.int32)
    return Intake("tokens", example, {1: "length"}, files={"tokenizer.json": tokenizer})


def _some_texts(bundle: Bundle, dataset: Dataset) -> Sample:
    texts = texts_of(bundle.encoder.prepare(dataset).dataset)
    return Sample(texts, bundle.embed(texts, normalize=False))


def _rows(encoder: Any) -> Intake:
    """Cells float32 ``[B, C]``, coded by the schema, NaN where missing."""
    columns = [
        {"name": name, "kind": column.kind}
        | ({"values": list(column.values)} if isinstance(column, Category) else {"origin": column.origin})
        for name, column in encoder.spec.schema.used.items()
    ]
    return Intake("cells", torch.zeros(2, len(columns)), about={"columns": columns, "missing": sorted(MISSING)})


def _some_rows(bundle: Bundle, dataset: Dataset) -> Sample:
    items = bundle.encoder.prepare(dataset)
    assert isinstance(items, TableItems)
    return Sample(as_mappings(items), bundle.embed_items(items, normalize=False))


KINDS.register("image")(Kind(_pictures, _some_pictures))
KINDS.register("text")(Kind(_texts, _some_texts))
KINDS.register("table")(Kind(_rows, _some_rows))


def intake_of(encoder: Encoder) -> Intake:
    """Return what the graph of an encoder takes."""
    return KINDS.get(encoder.spec.modality).intake(getattr(encoder, "inner", encoder))
