"""The part that SimCLR, SupCon, Siamese and triplet training share: encoder, head, and any loss on pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn

from fastness.core import distributed
from fastness.core.errors import BadInput
from fastness.core.options import Option
from fastness.encoders import Encoder
from fastness.encoders.heads import mlp
from fastness.losses import LOSSES
from fastness.losses.pairs import NOBODY, Neighbours, Pairs, SameSecond, Similar, among
from fastness.losses.precision import normalised
from fastness.losses.stream import Rule
from fastness.methods.base import Found, Known, Method, Outcome, on_views, outcome
from fastness.methods.momentum import Memory

_OWN = 1 << 40  # above all labels: keys of items that have only themselves
MASKS = ("none", "label", "group", "similar", "neighbours")


class Contrastive(Method):
    """Vectors of one key should be near, all others far.

    A subclass says what the key of an item is: itself, or its label or group. The options of the chosen loss are
    options of the method too.
    """

    options: ClassVar[Mapping[str, Option]] = {
        "projection": Option(
            128, 0, help="length of the vectors that the loss sees; 0: the features themselves, as for texts"
        ),
        "hidden": Option(512, 1, help="width of the projection head"),
        "loss": Option("nt-xent", help="see fastness methods"),
        "mask": Option("none", choices=MASKS, help="negatives to leave out as probably false"),
        "threshold": Option(0.85, -1, 1, help="cosine of projections above which mask=similar leaves out"),
        "neighbours": Option(1, 1, help="how many nearest items mask=neighbours looks at"),
        "memory": Option(0, 0, help="vectors of earlier batches that are further candidates"),
        "temperature_end": Option(0.0, 0, help="fall or rise to this temperature on a cosine; 0: keep it"),
        "learned_temperature": Option(False, help="let the optimiser change the temperature"),
    }
    learning = "z"
    scale: torch.Tensor
    log_scale: nn.Parameter
    by_key: ClassVar[bool] = False  # labels or groups are keys

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        usual = self.options["loss"]
        kind = LOSSES.get(str(usual.checked("loss", options.get("loss", usual.default))))
        own = {name: options.pop(name) for name in list(options) if name in kind.options}
        super().__init__(encoder, temperature, classes, **options)
        self.loss = kind(**own)
        seen = self.settings["projection"] or encoder.dim
        self.head = mlp(encoder.dim, self.settings["hidden"], seen) if self.settings["projection"] else nn.Identity()
        if self.settings["memory"] and self.settings["mask"] != "none":
            raise BadInput("options mask and memory: a mask knows nothing of the items in memory; give one of them")
        self.memory = Memory(self.settings["memory"], seen) if self.settings["memory"] else None
        self._check_temperature()
        self.register_buffer("scale", torch.tensor(1 / temperature))
        if self.settings["learned_temperature"]:
            del self.scale
            self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @classmethod
    def has_temperature(cls, options: Mapping[str, Any]) -> bool:
        """See `Method.has_temperature`; the loss decides."""
        name = str(options.get("loss", cls.options["loss"].default))
        return name not in LOSSES or LOSSES.get(name).uses_scale

    def _check_temperature(self) -> None:
        moving = [name for name in ("learned_temperature", "temperature_end") if self.settings[name]]
        if len(moving) > 1:
            raise BadInput(f"options {' and '.join(moving)} contradict each other; give one")
        if moving and not self.loss.uses_scale:
            raise BadInput(f"option {moving[0]}: loss {self.settings['loss']} has no temperature; drop the option")

    def represent(self, views: Sequence[torch.Tensor]) -> Found:
        """See `Method.represent`."""
        features = self.encode(views)
        return {"z": on_views(self.head, features), "features": features.detach()}

    def compare(self, found: Found, known: Known) -> Outcome:
        """See `Method.compare`."""
        keys = self.keys(len(found["z"]), known, found["z"].device)
        pairs = self.pairs(found, keys, known)
        scale = self.current_scale()
        loss = self.loss(pairs, scale)
        if self.memory is not None and self.training:
            # What is an item's own key here may be another item's in the next batch.
            remembered = distributed.gathered(keys.where(keys < _OWN, NOBODY)) if self.by_key else None
            self.memory.push(distributed.gathered(pairs.anchors.detach()), remembered, found["z"].shape[1])
        return outcome(loss, found, **self._watched(scale))

    def keys(self, items: int, known: Known, device: torch.device) -> torch.Tensor:
        """Return the key of each item, int64 ``[items]``: itself, unless its label or group is known and wanted."""
        own = distributed.rank() * items + torch.arange(items, device=device)
        given = (
            known.groups if known.groups is not None else known.labels
        )  # groups are there only if they were asked for
        if not self.by_key or given is None:
            return own
        return torch.where(given >= 0, given, _OWN + own)

    def pairs(self, found: Found, keys: torch.Tensor, known: Known) -> Pairs:
        """Return what is compared with what, less negatives that are probably false."""
        views = found["z"].shape[1]
        memory = None if self.memory is None else self.memory.held()
        pairs = among(found["z"].flatten(0, 1), keys.repeat_interleave(views), memory)
        return replace(pairs, ignored=self._mask(pairs, found, known))

    @torch.no_grad()
    def _mask(self, pairs: Pairs, found: Found, known: Known) -> tuple[Rule, ...]:
        mask = self.settings["mask"]
        views = found["z"].shape[1]
        if mask == "none":
            return ()
        if mask in ("label", "group"):
            given = known.labels if mask == "label" else known.groups
            assert given is not None  # refused before the run
            mine = given.repeat_interleave(views)
            return (SameSecond(pairs, mine, distributed.gathered(mine)),)
        evidence = normalised(normalised(found["z"]).mean(1))  # one vector an item: that of one view is noisier
        if mask == "similar":
            of_views = evidence.repeat_interleave(views, 0)
            return (Similar(pairs, of_views, distributed.gathered(of_views), self.settings["threshold"]),)
        items = torch.arange(len(pairs.candidates), device=evidence.device) // views
        mine = items[distributed.rank() * len(pairs.anchors) :][: len(pairs.anchors)]
        return (Neighbours(pairs, distributed.gathered(evidence), mine, items, self.settings["neighbours"]),)

    def current_scale(self) -> torch.Tensor:
        """Return one over the temperature, a scalar."""
        return self.log_scale.exp() if self.settings["learned_temperature"] else self.scale

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the temperature along its cosine; a learned one stays above 0.005."""
        if self.settings["learned_temperature"]:
            self.log_scale.clamp_(max=math.log(200))
        end = self.settings["temperature_end"]
        if end:
            share = (1 - math.cos(math.pi * progress)) / 2
            self.scale.fill_(1 / (self.temperature + (end - self.temperature) * share))

    def _watched(self, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        moves = self.settings["learned_temperature"] or self.settings["temperature_end"]
        return {"temperature": 1 / scale.detach()} if moves else {}
