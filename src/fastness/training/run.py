"""A whole run: from data and a recipe to a bundle, resumable at any point."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from torch import nn

from fastness import bundle as bundles
from fastness.core import distributed, hardware
from fastness.core.errors import BadInput
from fastness.core.files import disk_errors
from fastness.core.recipe import Recipe
from fastness.core.seeds import derive
from fastness.data import Dataset, open_data
from fastness.data.items import Items, Progress
from fastness.data.sides import sides_of
from fastness.encoders import Encoder, build, modality, ready
from fastness.encoders.batch_norm import synchronise
from fastness.methods import METHODS, Method
from fastness.training import checkpoint, plan
from fastness.training.batches import Batches
from fastness.training.events import Events, make_loggers
from fastness.training.loop import Loop, Settings
from fastness.training.online_knn import PROTOCOL, OnlineKNN
from fastness.training.optimizers import make_optimizer
from fastness.training.progress import Display
from fastness.views import VIEWS, Views


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where everything lies.
        bundle: the bundle's folder.
        id: the bundle's id.
        recipe: complete.
        steps: how many were made.
        knn: the last online kNN accuracy, if there were labels.
        quarantined: how many items could not be used.
    """

    folder: Path
    bundle: Path
    id: str
    recipe: Recipe
    steps: int
    seconds: float
    knn: float | None
    quarantined: int


def train(
    data: Any,
    recipe: Recipe,
    out: Path,
    *,
    columns: dict[str, str | None] | None = None,
    encoder: nn.Module | None = None,
    settings: Settings | None = None,
    loggers: list[str] | None = None,
    display: Display | None = None,
) -> Run:
    """Train an encoder and write ``out/bundle``, ``out/events.jsonl`` and ``out/quarantine.csv``.

    A folder that holds an unfinished run of the same recipe and data is resumed.

    Args:
        data: see `open_data`; of a set with splits only ``train`` is learnt from.
        recipe: what was asked; open fields are chosen.
        out: the run's folder.
        columns: see `open_data`.
        encoder: a module of the user's own, from preprocessed items to ``[B, D]``, instead of the recipe's.
        settings, loggers, display: what the run shows and keeps on the way.

    Raises:
        BadInput: the data or an option is unusable, or the folder holds another run.
        Failure: see `Loop.run`.
    """
    display = display or Display(quiet=True)
    began = time.perf_counter()
    device = plan.device_of(recipe)
    joined = distributed.start(device.type)
    display = display if distributed.rank() == 0 else Display(quiet=True)
    out = Path(distributed.first_text(str(out)))  # a name made from the time of day may differ by a second
    try:
        dataset = open_data(data, **(columns or {}))
        part = dataset.training_part()
        init = _initial(recipe)
        asked, recipe = recipe, plan.complete(recipe, part, device, init.encoder.spec if init else None)
        _check(recipe, part, init, encoder)
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / f".lock{distributed.rank() or ''}", timeout=0):
            _refuse_foreign(out, recipe, part.whole.fingerprint)
            items, start = fitted(recipe, part, init, encoder, display.decoding)
            if distributed.rank() == 0:
                items.dataset.write_quarantine(out / "quarantine.csv")
            _enough(items.dataset)
            display.say(_words(asked, recipe, items, device))
            return _train(items, recipe, out, device, start, encoder, settings, loggers, display, began)
    except Timeout:
        raise BadInput(f"{out}: another process is training here; choose another --out") from None
    finally:
        display.close()
        if joined:
            distributed.stop()


def _train(
    items: Items,
    recipe: Recipe,
    out: Path,
    device: torch.device,
    encoder: Encoder,
    module: nn.Module | None,
    settings: Settings | None,
    loggers: list[str] | None,
    display: Display,
    began: float,
) -> Run:
    method, views = assemble(items, recipe, encoder)
    loop = make_loop(method, views, items, recipe, device, out, settings or Settings())
    found = loop.checkpoint_path.exists()
    distributed.wait()  # before the first process writes one
    if found:
        loop.resume()
        if loop.step == loop.total and (out / "bundle" / "bundle.json").exists():
            display.say(f"finished before, with {loop.total} steps; choose another --out to train anew")
            return _finished(out, items, recipe, loop.total, bundles.load(out / "bundle", module).id, began, None)
        display.say(f"resumed at step {loop.step} of {loop.total}")
    else:
        loop.fix_length()
        loop.save()
    first = distributed.rank() == 0
    events = Events(
        out / "events.jsonl" if first else None, loop.step, make_loggers(loggers or [] if first else [], out)
    )
    try:
        events.write(
            "start",
            step=loop.step,
            total=loop.total,
            recipe=recipe.to_dict(),
            data=items.dataset.fingerprint,
            hardware=hardware.describe(),
            knn_protocol=PROTOCOL,
            quarantined=len(items.dataset.quarantine),
            handled=dict(items.dataset.handled),
            parameters=sum(p.numel() for p in method.encoder.parameters()),
        )
        display.start(loop.total, loop.step)
        cpu = time.process_time()
        loop.run(events, display, OnlineKNN(items, recipe.seed))
        cpu = time.process_time() - cpu
        if first:
            bundles.write(out / "bundle", method.encoder, _kept(recipe, loop.total), items.dataset.manifest)
        distributed.wait()
        identity = bundles.load(out / "bundle", module).id
        events.write("end", step=loop.step, bundle=identity, seconds=time.perf_counter() - began, cpu_seconds=cpu)
    finally:
        events.close()
    return _finished(out, items, recipe, loop.total, identity, began, display.newest_knn)


def _finished(
    out: Path, items: Items, recipe: Recipe, steps: int, identity: str, began: float, knn: float | None
) -> Run:
    seconds, bad = time.perf_counter() - began, len(items.dataset.quarantine)
    return Run(out, out / "bundle", identity, recipe, steps, seconds, knn, bad)


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
    init: bundles.Bundle | None = None,
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
    assert recipe.temperature
    kind = METHODS.get(recipe.method)
    views = VIEWS.get(dataset.modality).chosen(recipe.views, kind.views_taken[0], encoder.spec, dataset, items)
    kind.check_views(views.count)
    if recipe.unfreeze is not None:
        encoder.freeze_all_but(recipe.unfreeze)
    torch.manual_seed(derive(recipe.seed, "heads"))
    classes = len(dataset.class_names) if "labels" in kind.needs else 0
    return kind(encoder, recipe.temperature, classes, **recipe.options), views


def _check(recipe: Recipe, part: Dataset, init: bundles.Bundle | None, module: nn.Module | None) -> None:
    """Put everything together once, so that a mistake is said before the data are decoded or a folder is made."""
    _enough(part)
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
        raise BadInput(f"--init {recipe.init}: an encoder of {init.modality}s cannot start on {part.modality}s")
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


def _initial(recipe: Recipe) -> bundles.Bundle | None:
    if recipe.init is None:
        return None
    if recipe.init.startswith("timm:"):
        from fastness.bundle.adopt import from_timm

        return from_timm(recipe.init)
    return bundles.load(recipe.init)


def _kept(recipe: Recipe, steps: int) -> dict[str, Any]:
    """Return the recipe as the bundle keeps it: with the number of steps that a budget came to."""
    return {**recipe.to_dict(), "steps_made": steps}


def _refuse_foreign(out: Path, recipe: Recipe, fingerprint: str) -> None:
    """Refuse a folder whose checkpoint belongs to another recipe or other data."""
    path = out / checkpoint.NAME
    if not path.exists():
        return
    state = checkpoint.read_state(path)
    if state["data"] != fingerprint:
        raise BadInput(f"{out}: holds a run on other data; choose another --out or delete it")
    theirs, ours = state["recipe"], recipe.to_dict()
    for name in ours:
        if theirs.get(name) != ours[name]:
            raise BadInput(
                f"{out}: holds a run with {name} = {theirs.get(name)}, not {ours[name]}; "
                "choose another --out or delete it"
            )


def _enough(dataset: Dataset) -> None:
    if len(dataset) < 2:
        raise BadInput(f"{dataset.whole.source}: {len(dataset)} usable item; learning by comparison needs at least 2")


def _words(asked: Recipe, recipe: Recipe, items: Items, device: torch.device) -> str:
    """Return what will be done and what was chosen, in a line or two."""
    chosen = [name for name in type(recipe).model_fields if getattr(asked, name) != getattr(recipe, name)]
    bad, kind = len(items.dataset.quarantine), modality(items.dataset.modality)
    picked = ", ".join(f"{name.replace('_', '-')} {getattr(recipe, name)}" for name in chosen)
    lines = [
        f"{recipe.method} on {len(items):,} {kind.called}"
        + (f" of {recipe.size} {kind.unit}" if recipe.size and kind.unit else "")
        + f", {recipe.encoder}, {device.type}"
        + (f" ({bad} quarantined, see quarantine.csv)" if bad else "")
    ]
    if picked:
        lines.append(f"chosen for you: {picked}")
    if distributed.size() > 1:
        lines.append(f"{distributed.size()} processes share every batch; batch statistics are over all of them")
    if recipe.effective_batch:
        lines.append(
            f"one loss over {recipe.effective_batch:,} items, computed {recipe.batch_size} at a time; "
            "batch statistics are still those of each part"
        )
    if recipe.precision == "bf16" and device.type == "cpu":
        lines.append("this processor has AMX: computing in bfloat16, channels last")
    return "\n".join(lines)
