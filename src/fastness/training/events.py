"""What a run tells the world: ``events.jsonl`` always, other loggers on request."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Protocol

from fastness.core.errors import BadInput
from fastness.core.files import disk_errors, write_text


class Logger(Protocol):
    """What Lightning's loggers offer."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record numbers."""
        ...


class Events:
    """Appends one JSON object a line to ``events.jsonl`` and passes numbers on to other loggers.

    Args:
        path: the file; lines after the step ``resumed_at`` are dropped, so that a resumed run has each step once.
            ``None`` writes nothing: of several processes only the first does.
        loggers: where step metrics go too.
    """

    def __init__(self, path: Path | None, resumed_at: int, loggers: list[Logger]) -> None:
        self._path, self._loggers = path, loggers
        if path is None:
            return
        kept: list[str] = []
        if resumed_at and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # the line that was being written when the run was killed
                # A step is told before it is saved, and not again; that the run starts or ends there is.
                step = event.get("step", 0)
                if step < resumed_at or (step == resumed_at and event.get("event") not in {"start", "end"}):
                    kept.append(line)
        write_text(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, **values: Any) -> None:
        """Append one event with the time of day; floats are shortened to six digits."""
        if self._path is None:
            return
        line = {"event": event, "time": round(time.time(), 3), **{k: _short(v) for k, v in values.items()}}
        with disk_errors(self._path):
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
        if self._loggers and event in {"step", "knn"}:
            numbers = {k: float(v) for k, v in values.items() if k != "step" and isinstance(v, int | float)}
            for logger in self._loggers:
                logger.log_metrics(numbers, step=int(values["step"]))

    def close(self) -> None:
        """Close the file."""
        if self._path is not None:
            self._file.close()


def make_loggers(names: list[str], folder: Path) -> list[Logger]:
    """Return Lightning's loggers by name.

    Raises:
        BadInput: an unknown name, or its library is not installed.
    """
    made: list[Logger] = []
    for name in names:
        try:
            made.append(_logger(name, folder))
        except ImportError as error:
            raise BadInput(f"--log {name}: {error}; pip install 'fastness[track]'") from None
    return made


def _logger(name: str, folder: Path) -> Logger:
    if name == "tensorboard":
        from lightning_fabric.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="tensorboard")  # type: ignore[no-any-return]
    if name in {"mlflow", "wandb"}:
        from lightning.pytorch import loggers  # type: ignore[import-not-found,unused-ignore]

        if name == "mlflow":
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing tells anybody that it was used
            return loggers.MLFlowLogger("fastness", run_name=folder.name)  # type: ignore[no-any-return]
        return loggers.WandbLogger(folder.name, project="fastness", save_dir=folder)  # type: ignore[no-any-return]
    raise BadInput(f"unknown logger '{name}'; known: tensorboard, mlflow, wandb")


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
