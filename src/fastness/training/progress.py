"""What a person sees while a run goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY = 15.0


class Display:
    """Shows progress on stderr.

    Args:
        quiet: show warnings only.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: Any = None
        self._total = 0
        self.newest_knn: float | None = None
        self._last_line = 0.0
        self._warned = ""

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            self._console.print(text, markup=False, soft_wrap=True)

    def decoding(self, done: int, total: int) -> None:
        """Show how far decoding is."""
        if self._quiet:
            return
        if self._console.is_terminal:
            self._start("reading", total)
            assert self._bar is not None
            self._bar.update(self._task, completed=done)
            if done >= total:
                self.close()
        elif done >= total and total > 1000:
            self.say(f"read {total:,} items")

    def start(self, total: int, done: int) -> None:
        """Begin to show training steps."""
        self._total = total
        if not self._quiet and self._console.is_terminal:
            self._start("training", total)
            assert self._bar is not None
            self._bar.update(self._task, completed=done)

    def knn(self, accuracy: float) -> None:
        """Remember the newest kNN accuracy."""
        self.newest_knn = accuracy

    def update(self, step: int, numbers: dict[str, float]) -> None:
        """Show the newest numbers of a training step."""
        knn = f"  kNN {self.newest_knn:.3f}" if self.newest_knn is not None else ""
        text = (
            f"loss {numbers['loss']:.3f}{knn}  {numbers['views_per_second']:,.0f} views/s  "
            f"waiting {100 * numbers['waiting']:.0f}%  std {numbers['feature_std']:.2f}  "
            f"rank {numbers['effective_rank']:.0f}  align {numbers['alignment']:.2f}  "
            f"unif {numbers['uniformity']:.2f}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=text)
        elif time.monotonic() - self._last_line > _LINE_EVERY or step == self._total:
            self._last_line = time.monotonic()
            self.say(f"step {step}/{self._total}  {text}")

    def warn(self, text: str) -> None:
        """Print a warning, once as long as it says the same."""
        kind = text.split("(")[0]
        if kind != self._warned:
            self._warned = kind
            self._console.print(f"warning: {text}", markup=False, soft_wrap=True, style="yellow")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start(self, name: str, total: int) -> None:
        if self._bar is not None:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(name, total=total, numbers="")
        self._bar.start()
