"""What every encoder is, whatever its modality: a backbone and preprocessing, described by values of JSON."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.core.recipe import Recipe
from fastness.core.registry import Registry
from fastness.data import Dataset
from fastness.data.items import Items, Positions, Progress
from fastness.data.show import plural
from fastness.data.sides import side_by_side, sides_of

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Spec(ABC):
    """All that is needed to build an encoder again, weights aside.

    Attributes:
        name: which backbone.
        projection: length of what a linear layer makes of the backbone's vectors; 0: there is no such layer.
    """

    name: str
    projection: int = field(default=0, kw_only=True)
    modality: ClassVar[str]
    weights_file: ClassVar[str] = "weights.safetensors"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        values = {"modality": self.modality, **asdict(self)}
        if not self.projection:
            del values["projection"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], files: Files) -> Self:
        """Read what `to_dict` and `files` gave."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    @property
    def files(self) -> dict[str, bytes]:
        """Further files that the bundle's core holds for this encoder, by name."""
        return {}

    def of_sides(self, names: Iterable[str]) -> dict[str, Spec]:
        """Return the description of what encodes each side of things with several; one may serve all."""
        return dict.fromkeys(names, self)


class Encoder(nn.Module, ABC):
    """A backbone and its preprocessing; behind the backbone a linear layer, where its description says so.

    ``forward`` takes what ``preprocess`` gives and returns features float32 ``[B, dim]``. In eval mode an item's
    features do not depend on what else is in the batch.

    Attributes:
        learns: whether it can be trained further.
    """

    learns: ClassVar[bool] = True

    def __init__(self, backbone: nn.Module, spec: Spec) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        width = int(backbone.dim)  # type: ignore[arg-type]
        self.projection = nn.Linear(width, spec.projection) if spec.projection else None
        self.dim = spec.projection or width
        self._frozen: list[nn.Module] = []

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.parameters(), torch.zeros(0)).device

    def side(self, name: str) -> Encoder:
        """Return what encodes one side of things with several: here the encoder itself."""
        return self

    # --- from items to batches --------------------------------------------------------------------

    @abstractmethod
    def prepare(self, dataset: Dataset, progress: Progress | None = None) -> Items:
        """Return a data set's items made ready for this encoder; damaged ones are in the quarantine."""

    def direct(self, dataset: Dataset, size: int) -> Iterator[tuple[Positions, torch.Tensor]]:
        """Yield every item once as batches, kept nowhere.

        Raises:
            BadInput: an item is damaged; names its position.
        """
        items = self.prepare(dataset)
        if len(items) < len(dataset):
            position = int(np.flatnonzero(~np.isin(dataset.rows, items.dataset.rows))[0])
            name = dataset.whole.names[int(dataset.rows[position])]
            reason = next((q.reason for q in items.dataset.quarantine if q.name == name), "cannot be used")
            raise BadInput(f"item {position}: {reason}; leave it out or mend it")
        yield from items.batches(size)

    def asked(self, query: str) -> Any:
        """Return what a source would read for the item that a query names or is.

        Raises:
            BadInput: it is nothing that this encoder takes.
        """
        raise BadInput(f"--query: {plural(self.spec.modality)} cannot be asked for by a line of text")

    def meant(self, query: str) -> tuple[str | None, Any]:
        """Return the side that understands a query, ``None`` where there is but one, and the item; see `asked`."""
        return None, self.asked(query)

    # --- from batches to features -----------------------------------------------------------------

    def preprocess(self, batch: torch.Tensor) -> torch.Tensor:
        """A batch of items to what ``forward`` takes; tensor operations only."""
        return batch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Preprocessed items to features ``[B, dim]``, never narrower than float32, not L2-normalised."""
        out: torch.Tensor = self.backbone(x)
        if self.projection is not None:
            out = self.projection(out)
        return out.to(torch.promote_types(out.dtype, torch.float32))

    def of_views(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return features ``[B, V, D]``; views of equal size go through the backbone together."""
        features: list[torch.Tensor] = []
        start = 0
        while start < len(views):
            stop = start
            while stop < len(views) and views[stop].shape == views[start].shape:
                stop += 1
            together: torch.Tensor = self(torch.cat(list(views[start:stop])))
            features += together.chunk(stop - start)
            start = stop
        return torch.stack(features, 1)

    def pretext(self, name: str) -> nn.Module:
        """Return the part that a task of prediction adds to this encoder: from preprocessed items to errors ``[B]``.

        Its ``forward`` takes the encoder and a preprocessed batch and returns features ``[B, dim]`` and the error of
        each item, ``[B]``.

        Args:
            name: ``masked``: guess what was hidden; ``denoise``: say the whole item again from its vector alone.

        Raises:
            BadInput: there is no such task for this modality.
        """
        raise BadInput(f"--method {name}: no such task for {plural(self.spec.modality)}; see fastness methods")

    def untrained(self) -> Encoder:
        """Return an encoder of the same kind whose weights are random."""
        module = copy.deepcopy(self.backbone) if self.spec.name == "module" else None
        for part in module.modules() if module else ():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
        return build(self.spec, module)

    @property
    def files(self) -> dict[str, bytes]:
        """What the bundle's core holds beside the weights, by name."""
        return self.spec.files

    # --- weights ----------------------------------------------------------------------------------

    def weights(self) -> dict[str, torch.Tensor]:
        """Return what the bundle keeps, on CPU."""
        return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in self.state_dict().items()}

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take what `weights` gave."""
        self.load_state_dict(dict(weights))

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for what is frozen: its batch statistics are not to drift."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def freeze_all_but(self, last: int) -> None:
        """Let only the last ``last`` blocks of the backbone learn.

        Raises:
            BadInput: the backbone has no list of blocks.
        """
        blocks = getattr(self.backbone, "blocks", None)
        if not isinstance(blocks, nn.Sequential | nn.ModuleList):
            raise BadInput(f"--unfreeze: encoder {self.spec.name} has no list of blocks; train all of it")
        learning = list(blocks)[max(0, len(blocks) - last) :]
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        for block in learning:
            block.requires_grad_(True)
        inner = {module for block in learning for module in block.modules()}
        outer = {module for module in self.modules() if any(part in inner for part in module.modules())}
        self._frozen = [module for module in self.modules() if module not in inner | outer]


class Modality(ABC):
    """One kind of data: how its encoders are chosen, described, fitted and built. One file, one line to register.

    Attributes:
        unit: of the recipe's ``size``.
    """

    unit: ClassVar[str] = ""

    @abstractmethod
    def choose(self, recipe: Recipe, dataset: Dataset, device: torch.device, init: Spec | None) -> dict[str, Any]:
        """Return the recipe's fields that the data decide: encoder, its size and width.

        Args:
            recipe: what was asked; a field that is set there is left alone.
            init: the encoder whose weights are the start; what it says then holds.
        """

    def training(self, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
        """Return how its encoders train best where that differs from the method's defaults.

        ``batch_size``, ``optimizer``, ``weight_decay`` (of AdamW), ``temperature``, ``rates``: the peak learning rate
        by optimiser, and ``options``: those of methods that have them and allow the value.
        """
        return {}

    @abstractmethod
    def fit(self, recipe: Recipe, dataset: Dataset, progress: Progress | None = None) -> Spec:
        """Choose the preprocessing by the training items, and return it with the network's description."""

    @abstractmethod
    def draft(self, recipe: Recipe, dataset: Dataset) -> Spec:
        """Return, at once, the spec of an encoder like the one that `fit` will describe, to try the options on."""

    def refit(self, spec: Any, recipe: Recipe) -> Spec:
        """Return the spec of an encoder that goes on learning, where the recipe asks for changes."""
        kept: Spec = spec
        return kept

    @abstractmethod
    def read(self, values: Mapping[str, Any], files: Files) -> Spec:
        """Return the spec that a bundle holds."""

    @abstractmethod
    def build(self, spec: Any, module: nn.Module | None = None) -> Encoder:
        """Return a freshly initialised encoder."""

    @abstractmethod
    def dataset(self, items: Any) -> Dataset:
        """Return the data set of a list or array of items."""


MODALITIES: Registry[type[Modality]] = Registry(
    "modality", "fastness.encoders", {"image": "image", "text": "text", "table": "table", "sides": "sides"}
)


def modality(name: str) -> Modality:
    """Return the modality called ``name``."""
    return MODALITIES.get(name)()


def ready(encoder: Encoder, dataset: Dataset, progress: Progress | None = None) -> Items:
    """Return a data set's items made ready for an encoder, whether each has one side or several of the same kind."""
    if dataset.sides == 1 or dataset.modality == encoder.spec.modality:
        return encoder.prepare(dataset, progress)
    strange = next((s for s in sides_of(dataset).values() if s.modality != encoder.spec.modality), None)
    if strange is not None:
        raise BadInput(
            f"{dataset.whole.source}: a side holds {plural(strange.modality)}, not {plural(encoder.spec.modality)}"
        )
    return side_by_side(dataset, {name: partial(encoder.prepare, progress=progress) for name in sides_of(dataset)})


def build(spec: Spec, module: nn.Module | None = None) -> Encoder:
    """Return a freshly initialised encoder.

    Args:
        spec: what to build.
        module: the backbone itself, for ``spec.name == "module"``.

    Raises:
        BadInput: an unknown name, or options the backbone does not have.
    """
    return modality(spec.modality).build(spec, module)


def read_spec(values: Mapping[str, Any], files: Files) -> Spec:
    """Return the spec that `Spec.to_dict` and `Spec.files` described."""
    spec: Spec = modality(str(values["modality"])).read(values, files)
    return spec
