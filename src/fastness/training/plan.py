"""From what the user asked to a complete recipe: every open choice made for the data and the hardware."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from fastness.core import distributed
from fastness.core.errors import BadInput
from fastness.core.hardware import cpu_has_fast_bf16
from fastness.core.recipe import Recipe
from fastness.core.seeds import numpy_generator
from fastness.data import Dataset
from fastness.data.decode import DamagedItem, decode
from fastness.encoders import EncoderSpec
from fastness.methods import METHODS

_SIZES_CPU = ((12, 16), (40, 32), (100, 64), (math.inf, 96))
_SIZES_GPU = ((12, 16), (40, 32), (100, 64), (math.inf, 224))


def training_part(dataset: Dataset) -> Dataset:
    """Return the items to learn from: the split ``train`` if there is one, never validation or test."""
    if "train" in dataset.split_names:
        return dataset.split("train")
    splits = dataset.manifest.splits
    held_out = None if splits is None else np.isin(splits, ["validation", "test"])
    if held_out is None or not held_out.any():
        return dataset
    if held_out.all():
        return dataset  # a single file called test.parquet, say: the user pointed at it
    return dataset.select(~held_out)


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


def complete(recipe: Recipe, dataset: Dataset, device: torch.device, init: EncoderSpec | None = None) -> Recipe:
    """Return the recipe with every open choice made.

    Args:
        recipe: what was asked.
        dataset: what it is to learn from.
        device: where it runs; smaller networks and a time budget are chosen on a CPU.
        init: the encoder whose weights are the start; its size then holds.
    """
    method = METHODS.get(recipe.method)
    defaults = method.defaults
    chosen: dict[str, Any] = {}
    if recipe.size is None:
        chosen["size"] = init.size if init else _size(dataset, device)
    size = int(chosen.get("size") or recipe.size or 0)
    is_vit = recipe.encoder.startswith("vit")
    if init is None and recipe.encoder.startswith("resnet"):
        if recipe.width is None:
            chosen["width"] = 64 if device.type != "cpu" else 16
        if recipe.stem is None:
            chosen["stem"] = "small" if size <= 64 else "imagenet"
    if not (recipe.epochs or recipe.steps or recipe.budget):
        if device.type == "cpu":
            chosen["budget"] = "10m"
        else:
            chosen["epochs"] = defaults.epochs
    scarce = defaults.scarce if device.type == "cpu" else {}
    usual = {**vars(defaults), **scarce}
    if scarce and size >= 32:
        chosen["views"] = {**scarce["views"], **recipe.views}
    if recipe.batch_size is None:
        chosen["batch_size"] = usual["batch_size"]
    if recipe.optimizer is None:
        chosen["optimizer"] = "adamw" if is_vit else defaults.optimizer
    if recipe.lr is None:
        chosen["lr"] = _rate(recipe, chosen, usual["lr"], usual["batch_size"])
    if recipe.weight_decay is None:
        decays = {"sgd": usual["weight_decay"], "lars": 1e-6, "adamw": 0.05}
        chosen["weight_decay"] = decays[str(chosen.get("optimizer", recipe.optimizer))]
    if recipe.temperature is None:
        chosen["temperature"] = usual["temperature"]
    if recipe.precision == "auto":
        fast = cpu_has_fast_bf16() if device.type == "cpu" else torch.cuda.is_bf16_supported()
        chosen["precision"] = "bf16" if fast else "float32"
    recipe = recipe.model_copy(update=chosen)
    _check_batch(recipe)
    return recipe


def _check_batch(recipe: Recipe) -> None:
    """Refuse batches that cannot be cut into equal parts."""
    batch, processes = recipe.batch_size or 1, distributed.size()
    if recipe.effective_batch and recipe.effective_batch % batch:
        raise BadInput(f"--effective-batch {recipe.effective_batch} is no multiple of --batch-size {batch}")
    if batch % processes:
        raise BadInput(f"--batch-size {batch} cannot be shared equally by {processes} processes; give a multiple")


def _rate(recipe: Recipe, chosen: dict[str, Any], lr: float, usual_batch: int) -> float:
    """Return a peak rate for the optimiser, growing with the square root of the batch."""
    optimizer = recipe.optimizer or chosen["optimizer"]
    base = {"sgd": lr, "lars": 10 * lr, "adamw": 1e-3}[optimizer]
    if recipe.init is not None:
        base *= 0.1
    batch = recipe.effective_batch or (recipe.batch_size or usual_batch) * recipe.accumulate
    return float(f"{base * math.sqrt(batch / usual_batch):.4g}")


def _size(dataset: Dataset, device: torch.device) -> int:
    """Return a size near the pictures' own: by the median short side of up to 64 of them."""
    rows = numpy_generator(0, "size").permutation(len(dataset))[:64]
    sides = []
    for row in rows:
        try:
            height, width = decode(dataset.payloads.read(int(dataset.rows[row]))).shape[:2]
        except (DamagedItem, OSError):
            continue  # counted and named when everything is decoded
        sides.append(min(height, width))
    median = float(np.median(sides)) if sides else 64.0
    table = _SIZES_CPU if device.type == "cpu" else _SIZES_GPU
    return next(size for limit, size in table if median <= limit)
