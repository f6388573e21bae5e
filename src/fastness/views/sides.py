"""Views of things with several sides: one of each side, hardly changed, since the sides are already different."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from fastness.core.errors import BadInput
from fastness.data import Dataset
from fastness.data.sides import sides_of
from fastness.views.views import VIEWS, Views, ViewSpec


@VIEWS.register("sides")
class SideViews(Views):
    """Makes a view of each side.

    Args:
        sides: what makes the view of each side, in their order.
    """

    usual = plain = probe = (ViewSpec(count=1),)
    cautious: ClassVar[dict[str, Any]] = {}

    def __init__(self, sides: list[Views]) -> None:
        super().__init__([spec for side in sides for spec in side.specs])
        self.sides = sides

    @classmethod
    def make(cls, specs: Any, encoder: Any, items: Any) -> SideViews:
        """Return the plain view of every side."""
        return cls.chosen({}, 2, encoder, items.dataset, items)

    @classmethod
    def chosen(cls, changes: dict[str, Any], fewest: int, encoder: Any, dataset: Dataset, items: Any) -> SideViews:
        """Return a view of every side; a change is made wherever it means something, ``SIDE.option`` in one side."""
        unheard = set(changes)
        made = []
        for name, spec in encoder.of_sides(sides_of(dataset)).items():
            kind = VIEWS.get(spec.modality)
            known = type(kind.plain[0]).model_fields
            mine = {}
            for key, value in changes.items():
                side, _, option = key.rpartition(".")
                if side in ("", name) and option in known:
                    mine[option] = value
                    unheard.discard(key)
            made.append(
                kind.make([s.changed({**mine, "count": 1}) for s in kind.plain], spec, items and items.sides[name])
            )
        if unheard:
            raise BadInput(f"unknown view option '{sorted(unheard)[0]}'; write SIDE.OPTION=VALUE for one side alone")
        return cls(made)

    def __call__(
        self, batch: Any, generator: torch.Generator, first: int = 0, whole: int | None = None
    ) -> list[torch.Tensor]:
        """Return a view of each side of a tuple of batches, one a side."""
        views = []
        for side, part in zip(self.sides, batch, strict=True):
            views += side(part, generator, first, whole)
        return views
