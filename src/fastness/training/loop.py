"""The loop: one plain function body that a reader can follow from batch to checkpoint."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric

from fastness.core import distributed
from fastness.core.errors import BadInput, Failure
from fastness.core.recipe import Recipe, seconds
from fastness.core.seeds import derive
from fastness.methods import Method, Outcome
from fastness.training import checkpoint
from fastness.training.batches import Batch, Batches
from fastness.training.collapse import measure
from fastness.training.events import Events
from fastness.training.gradient_cache import cached_step
from fastness.training.online_knn import OnlineKNN
from fastness.training.progress import Display
from fastness.training.schedule import learning_rate

LOG_EVERY = 10
KNN_TIMES = 5
_RESERVE = 0.03  # of a time budget, for checkpoints and the online kNN


@dataclass
class Settings:
    """How a run behaves, none of which changes the weights that it computes."""

    checkpoint_seconds: float = 30.0
    stop_on_collapse: bool = False


class Loop:
    """Trains a method for a number of steps.

    Args:
        fabric: device and precision.
        method: what learns.
        optimizer: over the method's parameters.
        batches: where the views come from.
        recipe: complete.
        folder: where the checkpoint goes.
    """

    def __init__(
        self,
        fabric: Fabric,
        method: Method,
        optimizer: torch.optim.Optimizer,
        batches: Batches,
        recipe: Recipe,
        folder: Path,
        settings: Settings,
    ) -> None:
        self.fabric, self.method, self.batches, self.recipe = fabric, method, batches, recipe
        self.folder, self.settings = folder, settings
        self.optimizer = optimizer
        self.origin: dict[str, Any] = {}  # what else tells this run from another; saved with the state
        self.model, self._wrapped = fabric.setup(method, optimizer)
        self.step = 0
        self.total = 0
        self._views_an_item = batches.views.count

    # --- length -----------------------------------------------------------------------------------

    def fix_length(self) -> None:
        """Turn epochs, steps or a time budget into a number of steps.

        A time budget is divided by the time of a few trial steps, which are then undone, so that the run
        itself starts from its seed and its schedule knows its length from the first step on.
        """
        recipe = self.recipe
        per_step = (recipe.batch_size or 1) * recipe.parts
        if recipe.steps:
            self.total = recipe.steps
        elif recipe.epochs:
            self.total = max(1, round(recipe.epochs * max(1, len(self.batches.items) // per_step)))
        else:
            assert recipe.budget
            self.total = self._fit(seconds(recipe.budget))

    def _fit(self, budget: float) -> int:
        before = {name: tensor.clone() for name, tensor in self.method.state_dict().items()}
        began = time.perf_counter()
        times: list[float] = []
        limit = 1 << 30
        source = self.source(0, limit)
        enough = False
        while not enough:
            started = time.perf_counter()
            self.update(source, 0, limit)
            if self.batches.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
            spent = time.perf_counter() - began
            enough = distributed.agreed(spent > 0.5 * budget or (len(times) >= 8 and spent >= min(0.03 * budget, 15.0)))
        source.close()  # type: ignore[attr-defined]
        self.method.load_state_dict(before)
        self.optimizer.state.clear()
        self.optimizer.zero_grad(set_to_none=True)
        usual = times[2:] or times
        left = (1 - _RESERVE) * budget - (time.perf_counter() - began)
        return distributed.first(max(1, int(left / (sum(usual) / len(usual)))))

    # --- checkpoint -------------------------------------------------------------------------------

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's only checkpoint lies."""
        return self.folder / checkpoint.NAME

    def resume(self) -> None:
        """Go on from the checkpoint.

        Raises:
            BadInput: it is another run's.
        """
        state = checkpoint.read_state(self.checkpoint_path)
        if state.get("parents", {}) != self.method.parents():
            raise BadInput(
                f"{self.checkpoint_path}: learnt from another bundle than is there now; "
                "choose another --out or delete it"
            )
        checkpoint.load(self.checkpoint_path, self.method, self.optimizer)
        self.step, self.total = int(state["step"]), int(state["total"])

    def save(self) -> None:
        """Write the checkpoint; of several processes the first does, as all have the same state."""
        if distributed.rank():
            return
        data = self.batches.items.dataset.whole.fingerprint
        state = {"step": self.step, "total": self.total, "recipe": self.recipe.to_dict(), "data": data}
        state["parents"] = self.method.parents()
        state.update(self.origin)
        checkpoint.save(self.checkpoint_path, self.method, self.optimizer, state)

    # --- training ---------------------------------------------------------------------------------

    def run(self, events: Events, progress: Display, knn: OnlineKNN) -> None:
        """Train from the current step to the last.

        Raises:
            Failure: the loss is not finite, the encoder collapsed and was to stop then, or a signal came;
                in the last case the checkpoint is saved first.
        """
        source = self.source(self.step, self.total)
        waited, began, saved, since = 0.0, time.perf_counter(), time.perf_counter(), self.step
        knn_every = max(1, math.ceil(self.total / KNN_TIMES))
        with _signals() as asked_to_stop:
            while self.step < self.total:
                outcome, pause = self.update(source, self.step, self.total)
                self.step += 1
                waited += pause
                last = self.step == self.total
                if self.step % LOG_EVERY == 0 or last:
                    elapsed = time.perf_counter() - began
                    done = self.step - since
                    self._log(outcome, events, progress, done / elapsed, waited / elapsed)
                    waited, began, since = 0.0, time.perf_counter(), self.step
                if knn.possible and (self.step % knn_every == 0 or last):
                    paused = time.perf_counter()
                    accuracy = knn(self.method.encoder, self.autocast())
                    events.write("knn", step=self.step, knn=accuracy)
                    progress.knn(accuracy)
                    began += time.perf_counter() - paused  # views a second are those of training
                if distributed.agreed(asked_to_stop.is_set()):
                    self.save()
                    raise Failure(f"stopped at step {self.step} of {self.total}; run the same command to go on")
                if last or time.perf_counter() - saved >= self.settings.checkpoint_seconds:
                    self.save()
                    saved = time.perf_counter()

    def run_silently(self) -> None:
        """Train from the current step to the last and write nothing."""
        source = self.source(self.step, self.total)
        while self.step < self.total:
            self.update(source, self.step, self.total)
            self.step += 1

    def update(self, source: Iterator[Batch], step: int, total: int) -> tuple[Outcome, float]:
        """Make one optimiser step; return the last outcome and the seconds waited for views."""
        recipe = self.recipe
        assert recipe.lr is not None
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, total, recipe.lr, recipe.warmup)
        seed = derive(recipe.seed, "step", step, distributed.rank())
        self.model.train()
        waited: list[float] = []

        def parts() -> Iterator[Batch]:
            for _ in range(recipe.parts):
                batch = next(source)
                waited.append(batch.waited)
                yield batch

        if recipe.effective_batch:
            outcome = cached_step(self.method, parts, self.fabric.backward, seed, self.autocast)
        else:
            torch.manual_seed(seed)
            for batch in parts():
                outcome = self.model(batch.views, batch.known)
                self.fabric.backward(outcome.loss / recipe.parts)
        distributed.average_gradients(self.method.parameters())
        if recipe.clip:
            self.fabric.clip_gradients(self.model, self._wrapped, max_norm=recipe.clip)
        self._wrapped.step()
        self._wrapped.zero_grad(set_to_none=True)
        self.method.after_step((step + 1) / total)
        return outcome, sum(waited)

    def source(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of the steps ``first`` to ``last - 1``; a gradient cache sees each step's twice."""
        parts = self.recipe.parts
        passes = 2 if self.recipe.effective_batch else 1
        steps = ((step, part) for step in range(first, last) for _ in range(passes) for part in range(parts))
        return self.batches.run(step * parts + part for step, part in steps)

    def autocast(self) -> Any:
        """Return a context in which the encoder computes as it does in training."""
        enabled = self.recipe.precision == "bf16"
        return torch.autocast(self.batches.device.type, torch.bfloat16, enabled=enabled)

    def _log(self, outcome: Outcome, events: Events, progress: Display, steps_a_second: float, waiting: float) -> None:
        loss = float(distributed.total(outcome.loss.detach())) / distributed.size()
        if not math.isfinite(loss):
            raise Failure(
                f"the loss is {loss} at step {self.step}; lower --lr, add --clip 1, or train with --precision float32"
            )
        signals = measure(outcome.embeddings)
        items = (self.recipe.batch_size or 1) * self.recipe.parts
        watch = {n: float(distributed.total(v.detach())) / distributed.size() for n, v in outcome.watch.items()}
        numbers = {
            "loss": loss,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "views_per_second": steps_a_second * items * self._views_an_item,
            "waiting": waiting,
            **vars(signals),
            **watch,
        }
        events.write("step", step=self.step, **numbers)
        progress.update(self.step, numbers)
        warning = signals.warning(self.method.encoder.dim)
        if warning and self.step > 2 * LOG_EVERY:
            events.write("warning", step=self.step, text=warning)
            progress.warn(warning)
        # Of several processes each sees its part of the batch; they stop together.
        if self.settings.stop_on_collapse and distributed.agreed(bool(warning) and self.step > 2 * LOG_EVERY):
            self.save()
            raise Failure(f"step {self.step}: {warning or 'the embeddings of another process collapsed'}")


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT or SIGTERM sets; a second one acts as usual."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield asked
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
