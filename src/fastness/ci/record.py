"""What happened, step by step, in ``ci.json``: for readers, and for the next run, which leaves out what is done.

A step is written down before it begins, with what it will make, so that what a killed run left can be cleared away.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastness.core.errors import BadInput, GateRefused
from fastness.core.files import write_json

NAME = "ci.json"
_FORMAT = 1
State = Literal["running", "done", "kept", "refused", "failed"]


@dataclass
class Entry:
    """What happened to a step.

    Attributes:
        step: its name.
        key: SHA-256 of all that it depends on.
        makes: what it writes into the bundle, relative to its folder.
        state: ``kept`` is what was done by an earlier run.
        seconds: how long it took, of the run that did it.
        result: what it gave, as JSON values; ``said`` is that in a sentence.
        error: why it ended otherwise.
    """

    step: str
    key: str
    makes: list[str]
    state: State = "running"
    seconds: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


class Record:
    """What is in a pipeline's ``ci.json``.

    Args:
        path: of the file.
        about: what is said of the pipeline as a whole.

    Raises:
        BadInput: what is there is no record of this version.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about = path, about
        self.state: State = "running"
        self.before = _read(path)
        self.entries: dict[str, Entry] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        steps = [asdict(entry) for entry in self.entries.values()]
        return {"format": _FORMAT, **self.about, "state": self.state, "steps": steps}

    def write(self) -> None:
        """Write all of it atomically; what an earlier run did and this one has not come to yet stays in it."""
        later = [asdict(entry) for name, entry in self.before.items() if name not in self.entries]
        write_json(self.path, {**self.to_dict(), "earlier": later})

    def begin(self, entry: Entry) -> None:
        """Write down that a step begins."""
        self.entries[entry.step] = entry
        self.write()

    def end(self, entry: Entry, result: dict[str, Any], began: float) -> None:
        """Write down what a step gave.

        Args:
            began: of `time.perf_counter`.
        """
        entry.state, entry.result, entry.seconds = "done", result, _since(began)
        self.write()

    def fail(self, entry: Entry, error: BaseException, began: float) -> None:
        """Write down why a step, and with it the pipeline, ended."""
        self.entries[entry.step] = entry
        entry.state = self.state = "refused" if isinstance(error, GateRefused) else "failed"
        entry.error, entry.seconds = str(error) or type(error).__name__, _since(began)
        self.write()


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def _read(path: Path) -> dict[str, Entry]:
    """Return what an earlier run did."""
    if not path.exists():
        return {}
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        if stated["format"] != _FORMAT:
            raise ValueError(f"format {stated['format']}")
        return {values["step"]: Entry(**values) for values in [*stated["steps"], *stated["earlier"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: is no record of a pipeline ({error}); delete it, or choose another --out") from None
