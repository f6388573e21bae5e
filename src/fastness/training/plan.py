"""From what the user asked to a complete recipe: every open choice made for the data and the hardware."""

from __future__ import annotations

import math
from typing import Any

import torch

from fastness.core import distributed
from fastness.core.errors import BadInput
from fastness.core.hardware import fast_bf16
from fastness.core.recipe import Recipe
from fastness.data import Dataset
from fastness.data.sides import sides_of
from fastness.encoders import Spec, modality
from fastness.methods import METHODS


def device_of(recipe: Recipe) -> torch.device:
    """Return the device that the recipe means here.

    Raises:
        BadInput: it asks for one that is not there.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device cuda: no usable GPU here; drop the option or install its driver")
    if recipe.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(recipe.device)


def complete(recipe: Recipe, dataset: Dataset, device: torch.device, init: Spec | None = None) -> Recipe:
    """Return the recipe with every open choice made.

    Args:
        recipe: what was asked.
        dataset: what it is to learn from.
        device: where it runs; smaller networks and a time budget are chosen on a CPU.
        init: the encoder whose weights are the start; what it says then holds.
    """
    if recipe.method == "auto":
        recipe = recipe.model_copy(update={"method": _method(dataset)})
    if init is not None and recipe.network:
        raise BadInput("--network and --schema mean nothing with --init: the network is given; drop them")
    kind = modality(dataset.modality)
    recipe = recipe.model_copy(update=kind.choose(recipe, dataset, device, init))
    defaults = METHODS.get(recipe.method).defaults
    scarce = defaults.scarce.get(dataset.modality, {}) if device.type == "cpu" else {}
    own = kind.training(recipe, dataset)
    usual = {**vars(defaults), **own, **scarce}
    chosen: dict[str, Any] = {}
    if not (recipe.epochs or recipe.steps or recipe.budget):
        if device.type == "cpu":
            chosen["budget"] = "10m"
        else:
            chosen["epochs"] = defaults.epochs
    if scarce and (recipe.size is None or recipe.size >= 32):  # tiny pictures cannot be halved
        chosen["views"] = {**scarce.get("views", {}), **recipe.views}
    if recipe.batch_size is None:
        chosen["batch_size"] = _batch(recipe, usual["batch_size"], len(dataset))
    optimizer = chosen["optimizer"] = recipe.optimizer or usual["optimizer"]
    if recipe.lr is None:
        rates = {"sgd": usual["lr"], "lars": 10 * usual["lr"], "adamw": 1e-3, **usual.get("rates", {})}
        batch = recipe.effective_batch or (recipe.batch_size or chosen["batch_size"]) * recipe.accumulate
        chosen["lr"] = _rate(recipe, rates[optimizer], batch / usual["batch_size"])
    if recipe.weight_decay is None:
        decays = {"sgd": usual["weight_decay"], "lars": 1e-6, "adamw": own.get("weight_decay", 0.05)}
        chosen["weight_decay"] = decays[optimizer]
    if METHODS.get(recipe.method).has_temperature(recipe.options):
        chosen["temperature"] = recipe.temperature or usual["temperature"]
    elif recipe.temperature is not None:
        raise BadInput(f"--temperature {recipe.temperature}: --method {recipe.method} so asked for has none; drop it")
    if recipe.precision == "auto":
        chosen["precision"] = "bf16" if fast_bf16(device.type) else "float32"
    options = METHODS.get(recipe.method).options
    # What a method does not allow is left as it is: a queue, say, wants a head whatever the modality.
    fitting = {
        name: value
        for name, value in own.get("options", {}).items()
        if name in options and options[name].low <= value != options[name].default
    }
    chosen["options"] = {**fitting, **recipe.options}
    if recipe.method == "pairs" and (wrong := _negatives(list(sides_of(dataset)))):
        chosen["options"] = {"negatives": wrong, **chosen["options"]}
    recipe = recipe.model_copy(update=chosen)
    _check_batch(recipe)
    return recipe


def _negatives(sides: list[str]) -> int:
    """Return how many of the last sides are called negative something; two sides at least are none."""
    further = [name.lower().startswith("negative") for name in sides[2:]]
    return next((i for i, wrong in enumerate(reversed(further)) if not wrong), len(further))


def _method(dataset: Dataset) -> str:
    """Return the method for what is known of the items."""
    if dataset.manifest.scores is not None:
        return "scored"
    return "pairs" if dataset.sides > 1 else "simclr"


def _check_batch(recipe: Recipe) -> None:
    """Refuse batches that cannot be cut into equal parts."""
    batch, processes = recipe.batch_size or 1, distributed.size()
    if recipe.effective_batch and recipe.effective_batch % batch:
        raise BadInput(f"--effective-batch {recipe.effective_batch} is no multiple of --batch-size {batch}")
    if batch % processes:
        raise BadInput(f"--batch-size {batch} cannot be shared equally by {processes} processes; give a multiple")


def _batch(recipe: Recipe, usual: int, items: int) -> int:
    """Return the usual batch, or all items if they are fewer: an item that comes twice would be its own negative."""
    if recipe.effective_batch is not None or items >= usual:
        return usual
    processes = distributed.size()
    return max(2 if processes == 1 else 1, items // processes) * processes


def _rate(recipe: Recipe, base: float, times: float) -> float:
    """Return a peak rate, growing with the square root of the batch; smaller where trained weights are the start.

    Args:
        times: as large as the usual batch.
    """
    if recipe.init is not None:
        base *= 0.1
    return float(f"{base * math.sqrt(times):.4g}")
