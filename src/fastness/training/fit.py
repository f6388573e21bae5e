"""Training in memory: no folder, no checkpoint; for baselines, probes and tests."""

from __future__ import annotations

from pathlib import Path

import torch

from fastness.core.recipe import Recipe
from fastness.data.items import Items
from fastness.encoders import Encoder
from fastness.methods import Method
from fastness.training import plan
from fastness.training.assembly import assemble, make_loop
from fastness.training.loop import Loop, Settings


def fit(items: Items, recipe: Recipe, encoder: Encoder) -> Method:
    """Return the trained method.

    Args:
        items: made ready for the encoder.
        recipe: with a number of steps or epochs; open fields are chosen.
        encoder: what learns; it is changed.
    """
    device = plan.device_of(recipe)
    recipe = plan.complete(recipe, items.dataset, device, encoder.spec)
    method, views = assemble(items, recipe, encoder)
    loop: Loop = make_loop(method, views, items, recipe, device, Path(), Settings())
    loop.fix_length()
    loop.run_silently()
    return method.to(torch.device("cpu"))
