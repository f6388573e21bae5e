"""Training in memory: no folder, no checkpoint; for baselines, probes and tests."""

from __future__ import annotations

from pathlib import Path

import torch

from fastness.core.recipe import Recipe
from fastness.data.cache import DecodedImages
from fastness.methods import Method
from fastness.training import plan
from fastness.training.loop import Loop, Settings
from fastness.training.run import assemble, make_loop


def fit(images: DecodedImages, recipe: Recipe) -> Method:
    """Return the trained method.

    Args:
        images: decoded at the recipe's size.
        recipe: with a number of steps or epochs; open fields are chosen.
    """
    device = plan.device_of(recipe)
    recipe = plan.complete(recipe, images.dataset, device)
    method, views = assemble(images, recipe)
    loop: Loop = make_loop(method, views, images, recipe, device, Path(), Settings())
    loop.fix_length()
    loop.run_silently()
    return method.to(torch.device("cpu"))
