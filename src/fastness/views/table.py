"""Views of tables' rows: some cells are replaced by those of other rows.

SCARF: Bahri et al. 2021, arXiv 2106.15147.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field

from fastness.data.items import Items
from fastness.views.views import VIEWS, Probability, Views, ViewSpec


class TableView(ViewSpec):
    """One kind of view: in each row, so many columns drawn at random get the cell of a random training row each.

    Attributes:
        count: how many views of this kind an item gets.
        corrupt: share of the columns; their number is rounded down.
        untouched: so many of the views, the first ones, are the row as it is.
    """

    corrupt: Probability = 0.6
    untouched: Annotated[int, Field(ge=0)] = 1


@VIEWS.register("table")
class TableViews(Views):
    """Makes the views of a batch of coded rows.

    Args:
        specs: the kinds of views.
        known: coded training rows float32 ``[N, C]``, from which each column's cells are drawn.
    """

    usual = (TableView(),)
    plain = (TableView(count=1, corrupt=0.0),)
    probe = (TableView(corrupt=0.3, untouched=0),)

    def __init__(self, specs: Sequence[TableView], known: torch.Tensor) -> None:
        super().__init__(specs)
        self.known = known

    @classmethod
    def make(cls, specs: Sequence[TableView], encoder: Any, items: Items | None) -> TableViews:
        """See `Views.make`."""
        known = torch.zeros(1, len(encoder.schema.used)) if items is None else next(items.batches(len(items)))[1]
        return cls(specs, known)

    def __call__(
        self, batch: torch.Tensor, generator: torch.Generator, first: int = 0, whole: int | None = None
    ) -> list[torch.Tensor]:
        """Return views of float32 ``[B, C]``, each float32 ``[B, C]``; see `Views.__call__`."""
        whole = len(batch) if whole is None else whole
        if self.known.device != batch.device:
            self.known = self.known.to(batch.device)
        mine = slice(first, first + len(batch))
        views = []
        for spec in self.specs:
            for number in range(spec.count):
                changed = 0 if number < spec.untouched else int(spec.corrupt * batch.shape[1] + 1e-9)
                views.append(self._corrupted(batch, changed, mine, whole, generator) if changed else batch)
        return views

    def _corrupted(
        self, batch: torch.Tensor, changed: int, mine: slice, whole: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Replace ``changed`` cells of each row; draws for all ``whole`` rows, so that a part gets its own."""
        shape, device = (whole, batch.shape[1]), batch.device
        rank = torch.rand(shape, generator=generator, device=device).argsort(1).argsort(1)[mine]
        source = torch.randint(len(self.known), shape, generator=generator, device=device)[mine]
        return torch.where(rank < changed, self.known.gather(0, source), batch)
