"""What every method is: a module from views to a loss and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.core.options import Option, settle
from fastness.encoders import Encoder

Found = dict[str, torch.Tensor]
"""What a method computes of some items, each alone: tensors whose first dimension is the item."""


@dataclass  # not frozen: Fabric, on the way into a method, fills a copy with the tensors as it wants them
class Known:
    """What is known of the items of a batch beside themselves.

    Attributes:
        labels, groups: int64 ``[B]``, -1 where unknown.
        scores: float32 ``[B]``, how alike the sides of each item are; NaN where unknown.
    """

    labels: torch.Tensor | None = None
    groups: torch.Tensor | None = None
    scores: torch.Tensor | None = None

    @classmethod
    def of_parts(cls, parts: Sequence[Known]) -> Known:
        """Join what is known of the parts of a batch."""

        def joined(name: str) -> torch.Tensor | None:
            there = [v for v in (getattr(part, name) for part in parts) if v is not None]
            return torch.cat(there) if there else None

        return cls(joined("labels"), joined("groups"), joined("scores"))


NOTHING = Known()


@dataclass
class Outcome:
    """What one step gives.

    Attributes:
        loss: a scalar with a gradient; over several processes the mean of theirs is the loss.
        embeddings: one detached ``[B, D]`` of encoder features for each view that went through the encoder.
        watch: further scalars worth logging.
    """

    loss: torch.Tensor
    embeddings: list[torch.Tensor]
    watch: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What ``fastness methods`` says: what it does, where it comes from, what a step costs, when to take it."""

    line: str
    paper: str
    cost: str
    when: str


@dataclass(frozen=True)
class Defaults:
    """How a method trains best when nothing else is asked.

    Attributes:
        temperature: of the loss; ``None`` where it has none.
        scarce: what holds instead on a CPU, where every second counts, by modality: fields of the recipe, and
            changes to ``views``. For images chosen by `benchmarks/short_schedule.py`.
        together: how many items of one class or group lie side by side in a batch; 1 for no such order.
    """

    batch_size: int = 256
    optimizer: str = "sgd"
    lr: float = 0.06
    weight_decay: float = 5e-4
    temperature: float | None = 0.2
    epochs: float = 100
    together: int = 1
    scarce: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def scarce(**further: Any) -> dict[str, Mapping[str, Any]]:
    """Return `Defaults.scarce` of a method that compares views of pictures: small views, so that there are more steps.

    Args:
        further: fields that are the method's own; ``count`` is that of the views (2).
    """
    views = {"count": further.pop("count", 2), "size": 0.5}
    return {"image": {"batch_size": 64, "lr": 0.06, "weight_decay": 4e-3, "views": views, **further}}


class Method(nn.Module):
    """Encoder, heads and loss, and whatever teacher or queue belongs to them.

    A subclass has ``about``, ``defaults``, ``options``, ``__init__``, and its two halves: ``represent`` computes
    what each item's views give, ``compare`` makes a loss of it. Only the second sees items together, which is what
    lets a batch be larger than memory. A method knows nothing of optimisers, devices, precision or logging.

    Args:
        encoder: the student.
        temperature: of the loss, where it has one.
        classes: number of classes, 0 without labels.
        options: changes to ``options``; unknown names are refused.
    """

    about: ClassVar[About]
    defaults: ClassVar[Defaults]
    options: ClassVar[Mapping[str, Option]] = {}
    needs: ClassVar[tuple[str, ...]] = ()  # of "labels", "groups", "scores" one, whichever there is
    sides: ClassVar[int] = 1  # fewest columns that an item has; 2 for methods that learn from pairs
    learning: ClassVar[str] = ""  # what of `represent`'s result a gradient flows through
    views_taken: ClassVar[tuple[int, int]] = (2, 1 << 30)  # fewest, most

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__()
        self.settings = settle(type(self).__name__, self.options, options)
        self.encoder = encoder
        self.temperature = temperature
        self.classes = classes

    def forward(
        self,
        views: Sequence[torch.Tensor],
        known: Known = NOTHING,
    ) -> Outcome:
        """Return the loss of a batch.

        Args:
            views: each a preprocessed batch of the same items, as the encoder takes it.
            known: what else is known of the items.
        """
        found = self.represent(views)
        with torch.autocast(views[0].device.type, enabled=False):
            return self.compare(found, known)

    def represent(self, views: Sequence[torch.Tensor]) -> Found:
        """Return what the loss needs of each item, and ``features``, float ``[B, V, D]``, detached."""
        raise NotImplementedError("abstract: a method defines represent")

    def compare(self, found: Found, known: Known) -> Outcome:
        """Return the loss of what `represent` found; called outside autocast."""
        raise NotImplementedError("abstract: a method defines compare")

    @classmethod
    def has_temperature(cls, options: Mapping[str, Any]) -> bool:
        """Return whether a temperature means anything with these options, which need not be valid."""
        return cls.defaults.temperature is not None

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

    def parents(self) -> dict[str, str]:
        """Return the ids of the bundles it learns from beside the data, by what they are to it."""
        return {}

    def encode(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return features ``[B, V, D]``.

        Raises:
            BadInput: there are fewer or more views than this method takes.
        """
        self.check_views(len(views))
        return self.encoder.of_views(views)


def on_views(module: Callable[[torch.Tensor], torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
    """Return what a module (or function of rows) makes for ``[B, V, D]``, all at once, as ``[B, V, E]``."""
    out: torch.Tensor = module(vectors.flatten(0, 1))
    return out.view(*vectors.shape[:2], -1)


def outcome(loss: torch.Tensor, found: Found, **watch: torch.Tensor) -> Outcome:
    """Return the outcome of what was found."""
    return Outcome(loss, list(found["features"].unbind(1)), watch)
