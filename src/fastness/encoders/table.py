"""Tables: rows of numbers, dates and categories, coded by a schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.core.options import Option, settle
from fastness.core.recipe import Recipe
from fastness.core.registry import Registry
from fastness.core.seeds import numpy_generator
from fastness.data import Dataset
from fastness.data.items import Progress
from fastness.data.learn import learn
from fastness.data.schema import Schema
from fastness.data.table import TableItems, coded, frame_of_rows
from fastness.encoders.encoder import MODALITIES, Encoder, Files, Modality, Spec

_SCHEMA = "schema.json"
_DRAFT_ROWS = 2000

NETWORK: Mapping[str, Option] = {
    "layers": Option(3, 1, 48, help="residual blocks of the MLP, or layers of the transformer"),
}
"""What ``--network`` may change of a table encoder, beside ``schema``: what columns are, by name."""

# name -> module. Each module registers a function from a spec to a backbone that has ``dim``.
NETS: Registry[Callable[[TableSpec], nn.Module]] = Registry(
    "encoder", "fastness.encoders", {"mlp": "table_nets", "ft-transformer": "table_nets"}
)


@dataclass(frozen=True)
class TableSpec(Spec):
    """An encoder of tables' rows.

    Attributes:
        name: a registered backbone.
        schema: what each column is; in the bundle it is the file ``schema.json``.
        options: ``width``, and what `NETWORK` says.
    """

    schema: Schema
    options: dict[str, Any] = field(default_factory=dict)
    modality: ClassVar[str] = "table"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {name: value for name, value in super().to_dict().items() if name != "schema"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], files: Files) -> TableSpec:
        """Read what `to_dict` and `files` gave."""
        return super().from_dict({**values, "schema": Schema.from_bytes(files[_SCHEMA])}, files)

    @property
    def files(self) -> dict[str, bytes]:
        """The schema."""
        return {_SCHEMA: self.schema.to_bytes()}


class TableEncoder(Encoder):
    """``forward`` takes coded cells, float32 ``[B, C]`` with NaN where missing; scaling is its first layer."""

    spec: TableSpec

    def prepare(self, dataset: Dataset, progress: Progress | None = None) -> TableItems:
        """Code the rows by the schema."""
        return coded(dataset, self.spec.schema)

    def asked(self, query: str) -> dict[str, Any]:
        """The query is a row as a JSON object; columns that it leaves out are missing."""
        try:
            row = json.loads(query)
        except ValueError as error:
            raise BadInput(f"--query: is no JSON ({error}); give a row as {{'column': value}}") from None
        if not isinstance(row, dict):
            raise BadInput("--query: give a row as a JSON object {column: value}")
        unknown = [name for name in row if name not in self.spec.schema.columns]
        if unknown:
            raise BadInput(f"--query: no column '{unknown[0]}'; columns: {', '.join(self.spec.schema.used)[:500]}")
        return {name: row.get(name, "") for name in self.spec.schema.used}


@MODALITIES.register("table")
class Tables(Modality):
    """Rows of tables."""

    def choose(self, recipe: Recipe, dataset: Dataset, device: torch.device, init: Spec | None) -> dict[str, Any]:
        """Take the MLP, at the width that suits the backbone."""
        for name in ("size", "stem"):
            if getattr(recipe, name) is not None:
                raise BadInput(f"--{name} means nothing for tables; drop it")
        chosen: dict[str, Any] = {}
        encoder = recipe.encoder
        if encoder == "auto":
            chosen["encoder"] = encoder = init.name if init else "mlp"
        if recipe.width is None and init is None:
            chosen["width"] = 64 if encoder == "ft-transformer" else 256
        return chosen

    def training(self, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
        """AdamW; a lower rate for the transformer."""
        rate = 3e-4 if recipe.encoder == "ft-transformer" else 1e-3
        return {"optimizer": "adamw", "rates": {"adamw": rate}, "batch_size": 256, "temperature": 0.5}

    def fit(self, recipe: Recipe, dataset: Dataset, progress: Progress | None = None) -> TableSpec:
        """Learn the schema from the training rows."""
        return self._spec(recipe, learn(frame_of_rows(dataset), _corrected(recipe)))

    def draft(self, recipe: Recipe, dataset: Dataset) -> TableSpec:
        """Learn the schema from some of the rows."""
        rows = np.sort(numpy_generator(0, "draft").permutation(len(dataset))[:_DRAFT_ROWS])
        try:
            return self._spec(recipe, learn(frame_of_rows(dataset.select(rows)), _corrected(recipe)))
        except BadInput:  # what makes a column of use may be in the other rows
            return self.fit(recipe, dataset)

    def _spec(self, recipe: Recipe, schema: Schema) -> TableSpec:
        NETS.get(recipe.encoder)  # says what is wrong with the name
        assert recipe.width is not None
        given = {name: value for name, value in recipe.network.items() if name != "schema"}
        network = settle(f"encoder {recipe.encoder}", NETWORK, given)
        return TableSpec(recipe.encoder, schema, {"width": recipe.width, **network})

    def read(self, values: Mapping[str, Any], files: Files) -> TableSpec:
        """See `Modality.read`."""
        return TableSpec.from_dict(values, files)

    def build(self, spec: TableSpec, module: nn.Module | None = None) -> TableEncoder:
        """Build a backbone by name."""
        if spec.name == "module":
            raise BadInput(f"tables have no encoder of your own yet; take one of {', '.join(NETS)}")
        return TableEncoder(NETS.get(spec.name)(spec), spec)

    def dataset(self, items: Any) -> Dataset:
        """Open data frames, dicts of columns, lists of dicts and arrays ``[N, C]``."""
        from fastness.data.sources import Columns
        from fastness.data.sources.frames import FrameSource

        return FrameSource().open(items, Columns(label="none", modality="table"))


def _corrected(recipe: Recipe) -> Schema | None:
    """Return what the recipe says of columns."""
    columns = recipe.network.get("schema")
    return None if columns is None else Schema.from_dict({"columns": columns})
