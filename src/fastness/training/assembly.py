"""From a complete recipe to the things it names, items, encoder, method, views, loop; or why they do not fit."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from fastness.bundle import Bundle
from fastness.core import distributed
from fastness.core.errors import BadInput
from fastness.core.recipe import Recipe
from fastness.core.seeds import derive
from fastness.data import Dataset
from fastness.data.items import Items, Progress
from fastness.data.show import plural
from fastness.data.sides import sides_of
from fastness.encoders import Encoder, build, modality, ready
from fastness.encoders.batch_norm import synchronise
from fastness.methods import METHODS, Method
from fastness.training.batches import Batches
from fastness.training.loop import Loop, Settings
from fastness.training.optimizers import make_optimizer
from fastness.views import VIEWS, Views


def make_loop(
    method: Method,
    views: Views,
    items: Items,
    recipe: Recipe,
    device: torch.device,
    out: Path,
    settings: Settings,
) -> Loop:
    """Put a method, its data and its optimiser into a loop on ``device``.

    Args:
        recipe: complete.
        out: where checkpoints go.
    """
    mixed = recipe.precision == "bf16"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it says, the first line of a run says
    mine: int | list[int] = [torch.cuda.current_device()] if device.type == "cuda" else 1
    fabric = Fabric(accelerator=device.type, devices=mine, precision="bf16-mixed" if mixed else "32-true")
    if distributed.size() > 1:
        synchronise(method)
    method.to(device).to(memory_format=torch.channels_last)
    if recipe.compile:
        method.encoder.backbone.compile()
    assert recipe.optimizer and recipe.lr and recipe.batch_size and recipe.weight_decay is not None
    optimizer = make_optimizer(method, recipe.optimizer, recipe.lr, recipe.weight_decay)
    together = method.defaults.together
    parts = recipe.parts if recipe.effective_batch else 1
    batches = Batches(items, views, recipe.batch_size, recipe.seed, device, together, parts)
    return Loop(fabric, method, optimizer, batches, recipe, out, settings)


def fitted(
    recipe: Recipe,
    dataset: Dataset,
    init: Bundle | None = None,
    module: nn.Module | None = None,
    progress: Progress | None = None,
) -> tuple[Items, Encoder]:
    """Return the training items made ready, and the encoder at its start.

    Args:
        recipe: complete.
        init: whose weights and preprocessing are the start.
        module: the backbone itself, for ``encoder="module"``.
    """
    kind = modality(dataset.modality)
    if init is None:
        spec = kind.fit(recipe, dataset, progress)
        torch.manual_seed(derive(recipe.seed, "weights"))
        encoder = build(spec, module)
    else:
        encoder = build(modality(init.modality).refit(init.encoder.spec, recipe), module)
        encoder.load_weights(init.encoder.weights())
    return ready(encoder, dataset, progress), encoder


def assemble(items: Items, recipe: Recipe, encoder: Encoder) -> tuple[Method, Views]:
    """Return the method, its heads initialised from the seed, and the views it learns from.

    Args:
        items: what it will learn from.
        recipe: complete.
    """
    return _assemble(recipe, items.dataset, items, encoder)


def _assemble(recipe: Recipe, dataset: Dataset, items: Items | None, encoder: Encoder) -> tuple[Method, Views]:
    kind = METHODS.get(recipe.method)
    views = VIEWS.get(dataset.modality).chosen(recipe.views, kind.views_taken[0], encoder.spec, dataset, items)
    kind.check_views(views.count)
    if recipe.unfreeze is not None:
        encoder.freeze_all_but(recipe.unfreeze)
    torch.manual_seed(derive(recipe.seed, "heads"))
    classes = len(dataset.class_names) if "labels" in kind.needs else 0
    return kind(encoder, recipe.temperature or 1.0, classes, **recipe.options), views


def refuse_unfit(recipe: Recipe, part: Dataset, init: Bundle | None, module: nn.Module | None) -> None:
    """Put everything together once, so that a mistake is said before the data are decoded or a folder is made.

    Args:
        recipe: complete.
        part: what it is to learn from.
        init, module: see `fitted`.

    Raises:
        BadInput: the recipe does not fit the data.
    """
    refuse_few(part)
    kind, there = METHODS.get(recipe.method), _known(part)
    if part.sides < kind.sides:
        raise BadInput(
            f"{part.whole.source}: --method {recipe.method} learns from pairs; "
            "name two columns, e.g. --text FIRST,SECOND"
        )
    if kind.needs == ("labels",):
        part.required_labels(f"--method {recipe.method}")
    if kind.needs and not there & set(kind.needs):
        wanted = " or ".join(kind.needs)
        raise BadInput(
            f"{part.whole.source}: --method {recipe.method} needs {wanted}; give "
            + " or ".join(f"--{name.removesuffix('s')}" for name in kind.needs)
        )
    negatives = recipe.options.get("negatives", 0)
    if isinstance(negatives, int) and negatives > max(0, part.sides - 2):
        raise BadInput(f"option negatives = {negatives}: of {part.sides} sides two must be of the same thing")
    mask = recipe.options.get("mask")
    if mask in ("label", "group") and f"{mask}s" not in there:
        raise BadInput(f"{part.whole.source}: option mask = {mask} needs {mask}s; name the column with --{mask}")
    if recipe.effective_batch and recipe.effective_batch > len(part):
        raise BadInput(f"--effective-batch {recipe.effective_batch} is more than the {len(part)} items")
    if init is not None and init.modality not in (part.modality, *(side.modality for side in sides_of(part).values())):
        raise BadInput(
            f"--init {recipe.init}: an encoder of {plural(init.modality)} cannot start on {plural(part.modality)}"
        )
    if init is None:
        spec = modality(part.modality).draft(recipe, part)
    else:
        spec = modality(init.modality).refit(init.encoder.spec, recipe)
    _assemble(recipe, part, None, build(spec, module))


def _known(part: Dataset) -> set[str]:
    """Return what is known of at least one item: labels, groups, scores."""
    manifest = part.manifest
    known = set()
    if manifest.labels is not None and (manifest.labels >= 0).any():
        known.add("labels")
    if manifest.groups is not None:
        known.add("groups")
    if manifest.scores is not None:
        known.add("scores")
    return known


def refuse_few(dataset: Dataset) -> None:
    """Raise `BadInput` where there is nothing to compare with."""
    if len(dataset) < 2:
        raise BadInput(f"{dataset.whole.source}: {len(dataset)} usable item; learning by comparison needs at least 2")
