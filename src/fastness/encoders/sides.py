"""Things with several sides: an encoder and a linear layer a side, into one space.

Sides of the same modality share one encoder, which is then an ordinary encoder of that modality.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.core.recipe import Recipe
from fastness.data import Dataset
from fastness.data.items import Items, Progress
from fastness.data.show import plural
from fastness.data.sides import SideItems, side_by_side, sides_of, stacked
from fastness.encoders.encoder import MODALITIES, Encoder, Files, Modality, Spec, build, modality, read_spec


@dataclass(frozen=True)
class SidesSpec(Spec):
    """Encoders of several sides.

    Attributes:
        sides: the encoder of each side, by its column's name.
        width: length of the common vectors.
    """

    width: int
    sides: dict[str, Spec] = field(default_factory=dict)
    modality: ClassVar[str] = "sides"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; the sides as a list, for their order counts."""
        sides = [{"side": name, "encoder": spec.to_dict()} for name, spec in self.sides.items()]
        return {"modality": self.modality, "name": self.name, "width": self.width, "sides": sides}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], files: Files) -> SidesSpec:
        """Read what `to_dict` and `files` gave."""
        sides = {}
        for name, inner in ((side["side"], side["encoder"]) for side in values["sides"]):
            start = _folder(name) + "/"
            own = {path.removeprefix(start): content for path, content in files.items() if path.startswith(start)}
            sides[name] = read_spec(inner, own)
        return cls(values["name"], int(values["width"]), sides)

    @property
    def files(self) -> dict[str, bytes]:
        """The files of each side, in a folder of their own."""
        return {f"{_folder(name)}/{p}": c for name, spec in self.sides.items() for p, c in spec.files.items()}

    def of_sides(self, names: Iterable[str]) -> dict[str, Spec]:
        """Every side has its own."""
        return self.sides


def _folder(name: str) -> str:
    """Return a folder's name for a side, whatever signs its column's name has."""
    if name.isidentifier() and name.isascii():
        return f"side-{name}"
    return f"side-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


class SideEncoder(Encoder):
    """One side of the common space: an encoder of its modality and a linear layer."""

    projection: nn.Linear

    def __init__(self, inner: Encoder, width: int) -> None:
        nn.Module.__init__(self)
        self.inner = inner
        self.spec = inner.spec
        self.projection = nn.Linear(inner.dim, width, bias=False)
        self.dim = width
        self._frozen = []

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return self.projection.weight.device

    def untrained(self) -> Encoder:
        """Return one side like it whose weights are random, its linear layer's too."""
        return SideEncoder(self.inner.untrained(), self.dim)

    def prepare(self, dataset: Dataset, progress: Progress | None = None) -> Items:
        """As the encoder of its modality does."""
        return self.inner.prepare(dataset, progress)

    def direct(self, dataset: Dataset, size: int) -> Any:
        """As the encoder of its modality does."""
        return self.inner.direct(dataset, size)

    def asked(self, query: str) -> Any:
        """As the encoder of its modality does."""
        return self.inner.asked(query)

    def preprocess(self, batch: torch.Tensor) -> torch.Tensor:
        """As the encoder of its modality does."""
        return self.inner.preprocess(batch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return vectors of the common space, ``[B, dim]``."""
        out: torch.Tensor = self.projection(self.inner(x))
        return out.to(torch.promote_types(out.dtype, torch.float32))


class SidesEncoder(Encoder):
    """Encoders of all sides; a batch is a tuple, one a side."""

    spec: SidesSpec

    def __init__(self, sides: Mapping[str, Encoder], spec: SidesSpec) -> None:
        nn.Module.__init__(self)
        self.spec = spec
        self.sides = nn.ModuleList([SideEncoder(encoder, spec.width) for encoder in sides.values()])
        self.dim = spec.width
        self._frozen = []

    def side(self, name: str) -> Encoder:
        """Return the encoder of one side.

        Raises:
            BadInput: there is no such side; lists those there are.
        """
        names = list(self.spec.sides)
        matching = [n for n in names if n == name] or [n for n in names if self.spec.sides[n].modality == name]
        if len(matching) != 1:
            wrong = "several sides are" if matching else "no side is"
            raise BadInput(f"{wrong} called '{name}'; choose one of: {', '.join(names)}")
        found = self.sides[names.index(matching[0])]
        assert isinstance(found, Encoder)
        return found

    def prepare(self, dataset: Dataset, progress: Progress | None = None) -> SideItems:
        """Make every side ready."""
        if set(sides_of(dataset)) != set(self.spec.sides):
            raise BadInput(f"{dataset.whole.source}: needs the sides {', '.join(self.spec.sides)}; name their columns")
        return side_by_side(dataset, {name: self.side(name).prepare for name in self.spec.sides})

    def meant(self, query: str) -> tuple[str | None, Any]:
        """The first side that understands the query: a file is a picture before it is words."""
        for name in self.spec.sides:
            try:
                return name, self.side(name).asked(query)
            except BadInput as error:
                reason = error
        raise reason

    def freeze_all_but(self, last: int) -> None:
        """Not with an encoder a side."""
        raise BadInput("--unfreeze: encoders with a side each are trained whole; drop it")

    def forward(self, x: Any) -> torch.Tensor:
        """A thing has no single vector.

        Raises:
            BadInput: always; says to choose a side.
        """
        raise BadInput(f"this encoder has several sides; choose one: {', '.join(self.spec.sides)}")

    def of_views(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return features ``[B, V, D]``: view i belongs to side i."""
        if len(views) != len(self.sides):
            raise BadInput("encoders with a side each learn by --method pairs alone")
        return torch.stack([side(view) for side, view in zip(self.sides, views, strict=True)], 1)


@MODALITIES.register("sides")
class Sides(Modality):
    """Columns that describe the same thing."""

    def choose(self, recipe: Recipe, dataset: Dataset, device: torch.device, init: Spec | None) -> dict[str, Any]:
        """Sides of one modality are chosen as that modality's; else every side for itself, and a common width."""
        sides = sides_of(dataset)
        first = next(iter(sides.values()))
        if _alike(dataset):
            return modality(first.modality).choose(recipe, stacked(dataset), device, init)
        if init is not None and not isinstance(init, SidesSpec):
            raise BadInput(
                f"--init: an encoder of {plural(init.modality)} has one side; these things have {len(sides)}"
            )
        for name in ("size", "stem", "network", "compile"):
            if getattr(recipe, name):
                raise BadInput(f"--{name} means nothing for encoders with a side each; drop it")
        if recipe.encoder not in ("auto", "sides"):
            raise BadInput(f"--encoder {recipe.encoder}: sides of different kinds choose theirs themselves; drop it")
        return {"encoder": "sides", **({"width": recipe.width or 128} if init is None else {})}

    def training(self, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
        """As its modality does where all sides share an encoder; else AdamW."""
        if _alike(dataset):
            every = stacked(dataset)
            return modality(every.modality).training(recipe, every)
        return {"optimizer": "adamw", "rates": {"adamw": 1e-3}, "batch_size": 128, "temperature": 0.07}

    def fit(self, recipe: Recipe, dataset: Dataset, progress: Progress | None = None) -> Spec:
        """Fit every side's preprocessing; a shared one on the items of all sides."""
        if not _alike(dataset):
            return self._spec(recipe, dataset, lambda own, asked, side: own.fit(asked, side, progress))
        every = stacked(dataset)
        return modality(every.modality).fit(recipe, every, progress)

    def draft(self, recipe: Recipe, dataset: Dataset) -> Spec:
        """See `Modality.draft`."""
        if _alike(dataset):
            first = next(iter(sides_of(dataset).values()))
            return modality(first.modality).draft(recipe, first)
        return self._spec(recipe, dataset, lambda own, asked, side: own.draft(asked, side))

    def _spec(self, recipe: Recipe, dataset: Dataset, describe: Any) -> SidesSpec:
        assert recipe.width is not None
        sides = {}
        for name, side in sides_of(dataset).items():
            own = modality(side.modality)
            alone = recipe.model_copy(update={"encoder": "auto", "width": None, "size": None, "stem": None})
            asked = alone.model_copy(update=own.choose(alone, side, torch.device("cpu"), None))
            sides[name] = describe(own, asked, side)
        return SidesSpec("sides", recipe.width, sides)

    def read(self, values: Mapping[str, Any], files: Files) -> SidesSpec:
        """See `Modality.read`."""
        return SidesSpec.from_dict(values, files)

    def build(self, spec: SidesSpec, module: nn.Module | None = None) -> SidesEncoder:
        """Build every side's encoder."""
        return SidesEncoder({name: build(inner) for name, inner in spec.sides.items()}, spec)

    def dataset(self, items: Any) -> Dataset:
        """A list may hold items of one side only.

        Raises:
            BadInput: always; says to choose a side.
        """
        raise BadInput("this encoder has several sides; say which: bundle.embed(items, side=NAME)")


def _alike(dataset: Dataset) -> bool:
    return len({side.modality for side in sides_of(dataset).values()}) == 1
