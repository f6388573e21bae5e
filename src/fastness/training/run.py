"""A whole run: from data and a recipe to a bundle, resumable at any point."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from fastness import bundle as bundles
from fastness.core import distributed, hardware
from fastness.core.errors import BadInput
from fastness.core.files import disk_errors
from fastness.core.recipe import Recipe
from fastness.data import open_data
from fastness.data.items import Items
from fastness.data.show import plural
from fastness.encoders import modality
from fastness.training import checkpoint, plan
from fastness.training.assembly import assemble, fitted, make_loop, refuse_few, refuse_unfit
from fastness.training.events import Events, make_loggers
from fastness.training.loop import Loop, Settings
from fastness.training.online_knn import PROTOCOL, OnlineKNN
from fastness.training.progress import Display


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where everything lies.
        bundle: the bundle's folder.
        id: the bundle's id.
        recipe: complete.
        steps: how many were made.
        seconds: wall time from the call to the bundle.
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
        refuse_unfit(recipe, part, init, encoder)
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / f".lock{distributed.rank() or ''}", timeout=0):
            origin = _origin(columns or {}, init)
            _refuse_foreign(out, recipe, part.whole.fingerprint, origin)
            if distributed.rank() == 0:
                _sweep(out)
            items, start = fitted(recipe, part, init, encoder, display.decoding)
            if distributed.rank() == 0:
                items.dataset.write_quarantine(out / "quarantine.csv")
            refuse_few(items.dataset)
            display.say(_words(asked, recipe, items, device))
            method, views = assemble(items, recipe, start)
            loop = make_loop(method, views, items, recipe, device, out, settings or Settings())
            loop.origin = origin
            parents = method.parents() | ({"init": init.id} if init is not None and init.id else {})
            identity, knn = _run(loop, encoder, loggers or [], display, began, parents)
            took, bad = time.perf_counter() - began, len(items.dataset.quarantine)
            return Run(out, out / "bundle", identity, recipe, loop.total, took, knn, bad)
    except Timeout:
        raise BadInput(f"{out}: another process is training here; choose another --out") from None
    finally:
        display.close()
        if joined:
            distributed.stop()


def _run(
    loop: Loop,
    module: nn.Module | None,
    loggers: list[str],
    display: Display,
    began: float,
    parents: dict[str, str],
) -> tuple[str, float | None]:
    """Start or resume, train and write the bundle; return its id, and the last online kNN accuracy."""
    out, recipe, dataset = loop.folder, loop.recipe, loop.batches.items.dataset
    found = loop.checkpoint_path.exists()
    distributed.wait()  # before the first process writes one
    if found:
        loop.resume()
        if loop.step == loop.total and (out / "bundle" / "bundle.json").exists():
            display.say(f"finished before, with {loop.total} steps; choose another --out to train anew")
            return bundles.load(out / "bundle", module, key=()).id, None
        display.say(f"resumed at step {loop.step} of {loop.total}")
    else:
        loop.fix_length()
        loop.save()
    first = distributed.rank() == 0
    events = Events(out / "events.jsonl" if first else None, loop.step, make_loggers(loggers if first else [], out))
    try:
        events.write("start", step=loop.step, total=loop.total, recipe=recipe.to_dict(), **_about(loop))
        display.start(loop.total, loop.step)
        cpu = time.process_time()
        loop.run(events, display, OnlineKNN(loop.batches.items, recipe.seed))
        cpu = time.process_time() - cpu
        if first:
            bundles.write(out / "bundle", loop.method.encoder, _kept(recipe, loop.total, parents), dataset.manifest)
        distributed.wait()
        identity = bundles.load(out / "bundle", module, key=()).id
        events.write("end", step=loop.step, bundle=identity, seconds=time.perf_counter() - began, cpu_seconds=cpu)
    finally:
        events.close()
    return identity, display.newest_knn


def _about(loop: Loop) -> dict[str, Any]:
    """Return what the first event says of the data, the network and the machine."""
    dataset = loop.batches.items.dataset
    return {
        "data": dataset.fingerprint,
        "hardware": hardware.describe(),
        "knn_protocol": PROTOCOL,
        "quarantined": len(dataset.quarantine),
        "handled": dict(dataset.handled),
        "parameters": sum(p.numel() for p in loop.method.encoder.parameters()),
    }


def _initial(recipe: Recipe) -> bundles.Bundle | None:
    if recipe.init is None:
        return None
    if recipe.init.startswith("timm:"):
        from fastness.bundle.adopt import from_timm

        return from_timm(recipe.init)
    return bundles.load(recipe.init)


def _kept(recipe: Recipe, steps: int, parents: dict[str, str]) -> dict[str, Any]:
    """Return the recipe as the bundle keeps it: with the steps that a budget came to, and the bundles it came from."""
    return {**recipe.to_dict(), "steps_made": steps, **({"parents": parents} if parents else {})}


def _origin(columns: dict[str, str | None], init: bundles.Bundle | None) -> dict[str, Any]:
    """Return what neither the recipe nor the data's fingerprint says of a run, JSON-able.

    Groups are in no fingerprint, and a recipe names the bundle to start from by its place, which may hold another now.
    """
    named = {name: str(column) for name, column in columns.items() if column is not None}
    return {"columns": named, "init": init.id if init is not None else None}


def _refuse_foreign(out: Path, recipe: Recipe, fingerprint: str, origin: dict[str, Any]) -> None:
    """Refuse a folder whose checkpoint belongs to another recipe, other data, or another start; see `_origin`."""
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
    # A checkpoint that was made before these were saved has none of them, and resumes.
    named, asked = state.get("columns", origin["columns"]), origin["columns"]
    for name in sorted({*named, *asked}):
        if named.get(name) != asked.get(name):
            raise BadInput(
                f"{out}: holds a run with {name} = {named.get(name)}, not {asked.get(name)}; "
                "choose another --out or delete it"
            )
    if state.get("init", origin["init"]) != origin["init"]:
        raise BadInput(
            f"{out}: holds a run that started from another bundle than {recipe.init} holds now; "
            "choose another --out or delete it"
        )


def _sweep(out: Path) -> None:
    """Clear away what a killed run left half-written; nobody else trains here, but other things may lie here."""
    for name in (checkpoint.NAME, "events.jsonl", "quarantine.csv", "bundle"):
        for place in out.glob(f".{name}.????????.tmp"):
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)


def _words(asked: Recipe, recipe: Recipe, items: Items, device: torch.device) -> str:
    """Return what will be done and what was chosen, in a line or two."""
    chosen = [name for name in type(recipe).model_fields if getattr(asked, name) != getattr(recipe, name)]
    bad, kind = len(items.dataset.quarantine), modality(items.dataset.modality)
    picked = ", ".join(f"{name.replace('_', '-')} {getattr(recipe, name)}" for name in chosen)
    lines = [
        f"{recipe.method} on {len(items):,} {plural(items.dataset.modality)}"
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
