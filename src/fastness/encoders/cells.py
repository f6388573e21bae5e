"""From coded cells to what networks take: scaled numbers, and places in a table of vectors. Tensor operations only."""

from __future__ import annotations

import math

import torch
from torch import nn

from fastness.data.schema import Category, Date, Schema

_CYCLES = {"year": 365.2425, "week": 7.0, "day": 1.0}  # in days


class Cells(nn.Module):
    """Scales numbers and dates, and finds the places of categories' values.

    A number gives its normal score among the training rows', the ends' score beyond them. One that is missing is
    the median, with a further feature that says so if training rows miss some too. A date gives sine and cosine
    of its place in the year and the week as well, and in the day if it has a time.

    Attributes:
        features: how many scaled numbers there are.
        columns: how many columns they stand for.
        owner: int64 ``[features]``, of which of those columns each is.
        categories: how many columns are categories.
        places: how many vectors categories need in all: one for each value, one for values that are not listed,
            one for missing ones.
    """

    owner: torch.Tensor
    knots: torch.Tensor
    rise: torch.Tensor
    width: torch.Tensor
    base: torch.Tensor
    median: torch.Tensor
    measured: torch.Tensor
    missing: torch.Tensor
    cyclic: torch.Tensor
    phase: torch.Tensor
    period: torch.Tensor
    listed: torch.Tensor
    limit: torch.Tensor
    offset: torch.Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        columns = list(schema.used.values())
        measured = [(i, c) for i, c in enumerate(columns) if not isinstance(c, Category)]
        listed = [(i, c) for i, c in enumerate(columns) if isinstance(c, Category)]
        self.columns, self.categories = len(measured), len(listed)
        self._keep("measured", [i for i, _ in measured])
        self._keep("listed", [i for i, _ in listed])
        self._keep("median", [c.median - c.origin for _, c in measured])
        points = max((len(c.points) for _, c in measured), default=2)
        padded = [[*c.points, *[c.points[-1]] * (points - len(c.points))] for _, c in measured]
        values = torch.tensor([[v for v, _ in row] for row in padded], dtype=torch.float64).view(-1, points)
        scores = torch.tensor([[s for _, s in row] for row in padded], dtype=torch.float64).view(-1, points)
        width = values.diff(dim=1)
        self._keep("knots", values[:, :-1].float())
        self._keep("width", torch.where(width > 0, width, 1.0).float())
        self._keep("rise", scores.diff(dim=1).float())
        self._keep("base", scores[:, 0].float())
        gaps = [place for place, (_, c) in enumerate(measured) if c.missing > 0]
        self._keep("missing", gaps)
        dates = [(place, c) for place, (_, c) in enumerate(measured) if isinstance(c, Date)]
        waves = [
            (place, _CYCLES[name], math.fmod(c.origin, _CYCLES[name]))
            for place, c in dates
            for name in _CYCLES
            if name != "day" or c.time
        ]
        self._keep("cyclic", [place for place, _, _ in waves])
        self._keep("period", [period for _, period, _ in waves])
        self._keep("phase", [phase for _, _, phase in waves])
        cyclic = [place for place, _, _ in waves]
        self._keep("owner", [*range(len(measured)), *gaps, *cyclic, *cyclic])
        self.features = len(self.owner)
        sizes = [len(c.values) + 2 for _, c in listed]
        self._keep("limit", [float(size - 2) for size in sizes])
        self._keep("offset", [sum(sizes[:i]) for i in range(len(sizes))])
        self.places = sum(sizes)

    def _keep(self, name: str, values: list[int] | list[float] | torch.Tensor) -> None:
        if not isinstance(values, torch.Tensor):
            whole = name in ("measured", "listed", "missing", "cyclic", "owner", "offset")
            values = torch.tensor(values, dtype=torch.int64 if whole else torch.float32)
        self.register_buffer(name, values, persistent=False)  # the schema has them

    def forward(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scaled numbers, float32 ``[B, features]``, and places, int64 ``[B, categories]``."""
        return self.numbers(cells[:, self.measured].float()), self.vectors(cells[:, self.listed].float())

    def numbers(self, values: torch.Tensor) -> torch.Tensor:
        """Return features of the measured columns' values ``[B, columns]``."""
        gone = values.isnan()
        values = torch.where(gone, self.median, values)
        share = ((values.unsqueeze(2) - self.knots) / self.width).clamp(0, 1)
        scores = self.base + (share * self.rise).sum(2)
        turns = (values[:, self.cyclic] + self.phase) / self.period
        angle = (turns - turns.floor()) * (2 * math.pi)
        there = 1 - gone[:, self.cyclic].float()
        return torch.cat([scores, gone[:, self.missing].float(), angle.sin() * there, angle.cos() * there], 1)

    def vectors(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the place of each category's vector for codes ``[B, categories]``; what is no code is not listed."""
        gone = codes.isnan()
        known = torch.minimum(torch.where(gone, 0.0, codes).clamp_min(0), self.limit)
        return torch.where(gone, self.limit + 1, known).long() + self.offset
