"""An export as a bundle: whatever measures a bundle measures, through the runtime, what it became."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastness.bundle.bundle import Bundle, load
from fastness.bundle.whole import verified
from fastness.core.errors import BadInput
from fastness.data import Dataset
from fastness.data.items import Items, Positions, Progress
from fastness.encoders import Encoder
from fastness.encoders.image import ImageEncoder
from fastness.encoders.text import TextEncoder
from fastness_runtime import Encoder as Export
from fastness_runtime import Unusable, signature
from fastness_runtime import load as load_export
from fastness_runtime.sessions import OUTPUTS, Session


class _Computed(Encoder):
    """Prepares items as the encoder does, and lets an export's graph do the rest; knows no gradients."""

    learns = False

    def __init__(self, inner: Encoder, session: Session, dim: int) -> None:
        nn.Module.__init__(self)
        self.inner, self.spec, self.dim = inner, inner.spec, dim
        self._frozen, self._session = [], session

    def prepare(self, dataset: Dataset, progress: Progress | None = None) -> Items:
        """As the encoder does."""
        return self.inner.prepare(dataset, progress)

    def direct(self, dataset: Dataset, size: int) -> Iterator[tuple[Positions, torch.Tensor]]:
        """As the encoder does."""
        return self.inner.direct(dataset, size)

    def asked(self, query: str) -> Any:
        """As the encoder does."""
        return self.inner.asked(query)

    def untrained(self) -> Encoder:
        """As the encoder does."""
        return self.inner.untrained()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the graph says of items as they are, or of views of them, ``[B, dim]``."""
        if isinstance(self.inner, ImageEncoder) and x.is_floating_point():  # a view; graphs take pictures as they are
            x = self.inner.pixels(x).mul(255).round().clamp(0, 255).to(torch.uint8)
        return torch.from_numpy(self._session.run(np.ascontiguousarray(x.numpy()), OUTPUTS[1])[0])


class Exported(Bundle):
    """A loaded export, with everything that measures need to know of the bundle that it was made of."""

    def __init__(self, whole: Bundle, encoder: Encoder, export: Export) -> None:
        super().__init__(export.folder, export.id, encoder, {**whole.recipe, "form": export.about["form"]}, whole.data)
        self._whole = whole

    @cached_property
    def item_hashes(self) -> frozenset[str]:
        """SHA-256 (hex) of every item that its bundle was trained on."""
        return self._whole.item_hashes


def load_exported(folder: Path, key: signature.Keys = None) -> Exported:
    """Load an export that lies in its bundle's folder.

    Raises:
        BadInput: it is damaged, or its bundle is elsewhere.
        GateRefused: a key is given, and no signature of it covers just what is there.
    """
    if trusted := signature.trusted(key):
        verified(folder, trusted)
    try:
        export = load_export(folder, key=())
    except Unusable as error:
        raise BadInput(str(error)) from None
    home = folder.resolve().parent.parent
    if not (home / "bundle.json").exists():
        raise BadInput(f"{folder}: lies apart from its bundle; only fastness_runtime loads it here")
    whole = load(home, key=key)
    if whole.id != export.about["bundle"]:
        raise BadInput(f"{folder}: was made of another bundle than the one it lies in; export anew")
    side = export.about["side"]
    encoder = whole.encoder if side is None else whole.encoder.side(side)
    if isinstance(encoder, TextEncoder):  # a static form cuts texts otherwise than its encoder
        encoder.tokenizer = type(encoder.tokenizer).from_file(str(folder / "tokenizer.json"))
    return Exported(whole, _Computed(encoder, export.session, export.dim), export)
