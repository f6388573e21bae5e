"""The Python face: ``fs.train``, and where all else lies, which is imported with what it needs when it is asked for."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from fastness.bundle import load
    from fastness.bundle.adopt import adopt
    from fastness.data import open_data
    from fastness.delivery.bench.bench import bench
    from fastness.delivery.export import export
    from fastness.delivery.narrowing import narrow
    from fastness.delivery.prune import prune
    from fastness.delivery.signing import sign, verify
    from fastness.evaluation.evaluate import evaluate
    from fastness.evaluation.side_by_side import compare
    from fastness.features import Features
    from fastness.index import Index
    from fastness.monitoring.between import drift
    from fastness.monitoring.online.online import Online
    from fastness.monitoring.sketching import sketch
    from fastness.registry import Registry
    from fastness.serving.run import serve
    from fastness.tasks.classify import classify
    from fastness.tasks.fit import fit
    from fastness.tasks.search import search
    from fastness.training.run import Run

_WHERE = {
    "Features": "fastness.features",
    "Index": "fastness.index",
    "Online": "fastness.monitoring.online.online",
    "Registry": "fastness.registry",
    "adopt": "fastness.bundle.adopt",
    "bench": "fastness.delivery.bench.bench",
    "classify": "fastness.tasks.classify",
    "compare": "fastness.evaluation.side_by_side",
    "drift": "fastness.monitoring.between",
    "evaluate": "fastness.evaluation.evaluate",
    "export": "fastness.delivery.export",
    "fit": "fastness.tasks.fit",
    "load": "fastness.bundle",
    "narrow": "fastness.delivery.narrowing",
    "open_data": "fastness.data",
    "prune": "fastness.delivery.prune",
    "search": "fastness.tasks.search",
    "serve": "fastness.serving.run",
    "sign": "fastness.delivery.signing",
    "sketch": "fastness.monitoring.sketching",
    "verify": "fastness.delivery.signing",
}
__all__ = [
    "Features",
    "Index",
    "Online",
    "Registry",
    "adopt",
    "bench",
    "classify",
    "compare",
    "drift",
    "evaluate",
    "export",
    "fit",
    "load",
    "narrow",
    "open_data",
    "prune",
    "search",
    "serve",
    "sign",
    "sketch",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fastness' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def new_run_folder(method: str) -> Path:
    """Return ``runs/<time>-<method>`` that does not exist yet."""
    base = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{'train' if method == 'auto' else method}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


def train(
    data: Any,
    *,
    method: str = "auto",
    encoder: str | nn.Module = "auto",
    out: str | Path | None = None,
    columns: dict[str, str | None] | None = None,
    loggers: Sequence[str] = (),
    stop_on_collapse: bool = False,
    checkpoint_seconds: float = 30.0,
    quiet: bool = False,
    **recipe: Any,
) -> Run:
    """Train an encoder on data and write a bundle.

    Args:
        data: a folder, archive, file, array, torch dataset …; see `open_data`. Of a set with splits only
            ``train`` is learnt from.
        method: ``simclr``, ``moco``, ``byol``, ``supervised`` …; ``fastness methods`` lists them.
        encoder: a name (``resnet18``, ``vit-tiny``, ``timm:NAME``) or a module ``[B, 3, S, S] -> [B, D]``.
        out: the run's folder; default ``runs/<time>-<method>``. An unfinished run of the same recipe there is
            resumed.
        columns: which columns or folders mean what, e.g. ``{"label": "none"}``; each may as well be given by its
            name, as to `open_data`.
        loggers: ``tensorboard``, ``mlflow``, ``wandb``; ``events.jsonl`` is always written.
        stop_on_collapse: end the run when the collapse watch warns.
        checkpoint_seconds: how often the run can be resumed from.
        quiet: show warnings only.
        **recipe: further fields of `core.recipe.Recipe`: ``epochs`` or ``steps`` or ``budget="10m"``,
            ``width``, ``size``, ``batch_size``, ``loss``, ``lr``, ``temperature``, ``init``, ``seed``, ``views`` …

    Returns:
        the finished run; ``run.bundle`` is the bundle's folder.

    Raises:
        BadInput: the data or an option is unusable.
        Failure: the run could not go on (loss not finite, disk full, stopped by a signal).
    """
    from fastness.core.recipe import Recipe
    from fastness.data.sources import ROLES
    from fastness.training.loop import Settings
    from fastness.training.progress import Display
    from fastness.training.run import train as run

    named = isinstance(encoder, str)
    by_name = {name: recipe.pop(name) for name in ROLES if name in recipe}
    asked = Recipe.parse({"method": method, "encoder": encoder if named else "module", **recipe})
    return run(
        data,
        asked,
        Path(out) if out is not None else new_run_folder(method),
        columns={**(columns or {}), **by_name},
        encoder=None if isinstance(encoder, str) else encoder,
        settings=Settings(checkpoint_seconds, stop_on_collapse),
        loggers=list(loggers),
        display=Display(quiet),
    )
