"""The Python face: thin functions that import what they need when they are called."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from fastness.bundle import Bundle
    from fastness.data import Dataset
    from fastness.evaluation import Report
    from fastness.evaluation.side_by_side import Compared
    from fastness.tasks.search import Answers
    from fastness.training.run import Run


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
        columns: which columns or folders mean what, e.g. ``{"label": "none"}``.
        loggers: ``tensorboard``, ``mlflow``, ``wandb``; ``events.jsonl`` is always written.
        stop_on_collapse: end the run when the collapse watch warns.
        checkpoint_seconds: how often the run can be resumed from.
        quiet: show warnings only.
        **recipe: further fields of `core.recipe.Recipe`: ``epochs`` or ``steps`` or ``budget="10m"``,
            ``width``, ``size``, ``batch_size``, ``lr``, ``temperature``, ``init``, ``seed``, ``views`` …

    Returns:
        the finished run; ``run.bundle`` is the bundle's folder.

    Raises:
        BadInput: the data or an option is unusable.
        Failure: the run could not go on (loss not finite, disk full, stopped by a signal).
    """
    from fastness.core.recipe import Recipe
    from fastness.training.loop import Settings
    from fastness.training.progress import Display
    from fastness.training.run import train as run

    named = isinstance(encoder, str)
    asked = Recipe.parse({"method": method, "encoder": encoder if named else "module", **recipe})
    return run(
        data,
        asked,
        Path(out) if out is not None else new_run_folder(method),
        columns=columns,
        encoder=None if isinstance(encoder, str) else encoder,
        settings=Settings(checkpoint_seconds, stop_on_collapse),
        loggers=list(loggers),
        display=Display(quiet),
    )


def load(path: str | Path, encoder: nn.Module | None = None) -> Bundle:
    """Load a bundle; see `bundle.load`."""
    from fastness import bundle

    return bundle.load(path, encoder)


def adopt(name: str, out: str | Path, **options: Any) -> Bundle:
    """Make a bundle of an encoder that was trained elsewhere; see `bundle.adopt.adopt`."""
    from fastness.bundle.adopt import adopt as make

    return make(name, Path(out), **options)


def evaluate(bundle: Bundle | str | Path, data: Any, checks: Sequence[str] | None = None, **options: Any) -> Report:
    """Measure a bundle on data; see `evaluation.evaluate`."""
    from fastness.evaluation import evaluate as measure

    return measure(bundle, data, checks, **options)


def compare(*bundles: Bundle | str | Path, data: Any = None, **options: Any) -> Compared:
    """Measure bundles on the same items and say what changed; see `evaluation.side_by_side.compared`."""
    from fastness.evaluation.side_by_side import compared

    return compared(bundles, data, **options)


def search(bundle: Bundle | str | Path, data: Any, query: str | Path, k: int = 10, **columns: str | None) -> Answers:
    """Find the items nearest to a picture; see `tasks.search.search`."""
    from fastness.tasks.search import search as find

    return find(bundle, data, query, k, **columns)


def open_data(data: Any, **columns: str | None) -> Dataset:
    """Open data wherever it lies and whatever form it has; see `data.open_data`."""
    from fastness.data import open_data as opened

    return opened(data, **columns)
