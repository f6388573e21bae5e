"""What the views of every modality are: kinds described by values that JSON can hold, and the call that makes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fastness.core.errors import BadInput
from fastness.core.registry import Registry
from fastness.data import Dataset
from fastness.data.items import Items

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def ascending(ends: tuple[float, float]) -> tuple[float, float]:
    """Refuse a range whose ends are the wrong way round."""
    if ends[0] > ends[1]:
        raise ValueError("the smaller number comes first")
    return ends


Area = Annotated[tuple[Share, Share], AfterValidator(ascending)]
Range = Annotated[tuple[Positive, Positive], AfterValidator(ascending)]


class ViewSpec(BaseModel):
    """One kind of view.

    Attributes:
        count: how many views of this kind an item gets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    count: Annotated[int, Field(ge=1, strict=True)] = 2

    def changed(self, changes: dict[str, Any]) -> Self:
        """Return this spec with ``changes``.

        Raises:
            BadInput: an unknown field or a value out of its range.
        """
        try:
            return type(self).model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                known = ", ".join(type(self).model_fields)
                raise BadInput(f"unknown view option '{name}'; known: {known}") from None
            said = str(first["msg"]).removeprefix("Value error, ")
            raise BadInput(f"view option {name} = {changes.get(name)!r}: {said}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return self.model_dump(mode="json")


class Views(ABC):
    """Makes the views of a batch; the same generator state gives the same views.

    Attributes:
        usual: what a method takes that wants two views or more and says nothing else.
        plain: what one takes that is content with one view: the item hardly changed.
        probe: two views of medium strength, for measuring how alike an encoder finds them.
        cautious: changes to ``plain`` that suit items of which nothing is known.
    """

    usual: ClassVar[tuple[ViewSpec, ...]]
    plain: ClassVar[tuple[ViewSpec, ...]]
    probe: ClassVar[tuple[ViewSpec, ...]]
    cautious: ClassVar[dict[str, Any]] = {}

    def __init__(self, specs: Sequence[Any]) -> None:
        self.specs = tuple(specs)

    @classmethod
    @abstractmethod
    def make(cls, specs: Sequence[Any], encoder: Any, items: Items | None) -> Self:
        """Return views of these kinds.

        Args:
            encoder: description of the encoder they are for: its size, normalisation, tokenizer, ….
            items: the training items, from which some views draw; ``None`` only tries the options.
        """

    @classmethod
    def chosen(cls, changes: dict[str, Any], fewest: int, encoder: Any, dataset: Dataset, items: Items | None) -> Views:
        """Return the usual views for a method that takes at least ``fewest``, with a user's changes; see `make`."""
        specs = cls.usual if fewest > 1 else cls.plain
        return cls.make([spec.changed(changes) for spec in specs], encoder, items)

    @property
    def count(self) -> int:
        """Number of views of an item."""
        return sum(spec.count for spec in self.specs)

    @abstractmethod
    def __call__(
        self, batch: torch.Tensor, generator: torch.Generator, first: int = 0, whole: int | None = None
    ) -> list[torch.Tensor]:
        """Return ``count`` views of a batch, preprocessed, on the batch's device, which must be the generator's.

        Args:
            first, whole: the batch is the part from item ``first`` on of a batch of ``whole`` items, and gets the
                views that it would get there.
        """


VIEWS: Registry[type[Views]] = Registry(
    "modality", "fastness.views", {"image": "image", "text": "text", "table": "table", "sides": "sides"}
)
