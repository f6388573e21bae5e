"""What every loss on pairs is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from fastness.core.options import Option, settle
from fastness.losses.pairs import Pairs


class Loss(nn.Module):
    """Scores vectors by which of them are near.

    A subclass has a docstring (its first line is what ``fastness methods`` prints), ``options``, and ``forward``.

    Attributes:
        options: its own options.
        uses_scale: whether a temperature means anything to it.
    """

    options: ClassVar[Mapping[str, Option]] = {}
    uses_scale: ClassVar[bool] = True

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.settings = settle(f"loss {type(self).__name__}", self.options, options)

    def forward(self, pairs: Pairs, scale: torch.Tensor | float) -> torch.Tensor:
        """Return the mean over the anchors that have a positive, and a negative where one is needed; or over pairs.

        Args:
            pairs: what is compared; float32 or float64, outside autocast.
            scale: one over the temperature.

        Returns:
            a scalar; over several processes the mean of theirs is the loss.
        """
        raise NotImplementedError("abstract: a loss defines forward")
