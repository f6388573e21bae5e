"""What every method is: a module from views to a loss and embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.encoders import Encoder
from fastness.views.image import ViewSpec


@dataclass
class Outcome:
    """What one step gives.

    Attributes:
        loss: a scalar with a gradient.
        embeddings: one detached ``[B, D]`` of encoder features for each view that went through the encoder.
        watch: further scalars worth logging.
    """

    loss: torch.Tensor
    embeddings: list[torch.Tensor]
    watch: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Defaults:
    """How a method trains best when nothing else is asked.

    Attributes:
        scarce: what holds instead on a CPU, where every second counts: ``batch_size``, ``lr`` and changes to
            ``views``. Chosen by `benchmarks/short_schedule.py`; views change only for images of 32 px or more.
    """

    views: tuple[ViewSpec, ...]
    batch_size: int = 256
    optimizer: str = "sgd"
    lr: float = 0.06
    weight_decay: float = 5e-4
    temperature: float = 0.2
    epochs: float = 100
    scarce: dict[str, Any] = field(default_factory=dict)


class Method(nn.Module):
    """Encoder, heads and loss, and whatever teacher or queue belongs to them.

    A subclass has ``defaults``, ``options`` (its own options and their default values), ``__init__``, and
    ``forward(views, labels) -> Outcome``. It knows nothing of optimisers, devices, precision or logging.

    Args:
        encoder: the student.
        temperature: of the loss, where it has one.
        classes: number of classes, 0 without labels.
        options: changes to ``options``; unknown names are refused.
    """

    defaults: ClassVar[Defaults]
    options: ClassVar[dict[str, Any]] = {}
    needs_labels: ClassVar[bool] = False
    views_taken: ClassVar[tuple[int, int]] = (2, 1 << 30)  # fewest, most

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__()
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise BadInput(f"{type(self).__name__} has no option '{name}'; it has: {known}")
            whole = isinstance(self.options[name], int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise BadInput(f"option {name} = {value!r} should be a {'whole ' if whole else ''}number")
            if not (value >= 1 if whole else 0 <= value < 1):
                raise BadInput(
                    f"option {name} = {value} is out of range; give {'1 or more' if whole else '0 to below 1'}"
                )
        self.encoder = encoder
        self.temperature = temperature
        self.classes = classes
        self.settings: dict[str, Any] = {**self.options, **options}

    def forward(self, views: Sequence[torch.Tensor], labels: torch.Tensor | None = None) -> Outcome:
        """Return the loss of a batch.

        Args:
            views: for each view float ``[B, 3, S, S]``, normalised.
            labels: int64 ``[B]``, -1 where unknown; only methods that need labels look at them.
        """
        raise NotImplementedError("abstract: a method defines forward")

    @classmethod
    def check_views(cls, count: int) -> None:
        """Refuse a number of views that this method does not take.

        Raises:
            BadInput: says how many it takes.
        """
        fewest, most = cls.views_taken
        if not fewest <= count <= most:
            wanted = f"{fewest}" if fewest == most else f"at least {fewest}"
            raise BadInput(f"{cls.__name__} takes {wanted} views, not {count}; say --view count={fewest}")

    def after_step(self, progress: float) -> None:
        """Do what follows an optimiser step (a momentum update); ``progress`` is in [0, 1]."""

    def encode(self, views: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return features ``[B, D]`` of each view; views of equal size go through the encoder together.

        Raises:
            BadInput: there are fewer or more views than this method takes.
        """
        self.check_views(len(views))
        features: list[torch.Tensor] = []
        start = 0
        while start < len(views):
            stop = start
            while stop < len(views) and views[stop].shape == views[start].shape:
                stop += 1
            features += self.encoder(torch.cat(list(views[start:stop]))).chunk(stop - start)
            start = stop
        return features


def detached(features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the features without their graph, for those who watch."""
    return [f.detach() for f in features]
