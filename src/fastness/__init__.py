"""fastness turns unlabelled data into an encoder that holds.

``import fastness as fs`` and then ``fs.train``, ``fs.load``, ``fs.evaluate``, ``fs.compare``, ``fs.search``,
``fs.adopt``, ``fs.open_data``. Each is imported, with the heavy libraries that it needs, when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastness.api import train
from fastness.core.errors import BadInput, Failure, FastnessError, GateRefused

if TYPE_CHECKING:
    from fastness.bundle import load
    from fastness.bundle.adopt import adopt
    from fastness.data import open_data
    from fastness.estimator import ContrastiveEncoder
    from fastness.evaluation.evaluate import evaluate
    from fastness.evaluation.side_by_side import compare
    from fastness.tasks.search import search

__version__ = "0.1.0"
_WHERE = {
    "ContrastiveEncoder": "fastness.estimator",
    "adopt": "fastness.bundle.adopt",
    "compare": "fastness.evaluation.side_by_side",
    "evaluate": "fastness.evaluation.evaluate",
    "load": "fastness.bundle",
    "open_data": "fastness.data",
    "search": "fastness.tasks.search",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'fastness' has no attribute '{name}'")
    found = globals()[name] = getattr(importlib.import_module(_WHERE[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


__all__ = [
    "BadInput",
    "ContrastiveEncoder",
    "Failure",
    "FastnessError",
    "GateRefused",
    "adopt",
    "compare",
    "evaluate",
    "load",
    "open_data",
    "search",
    "train",
]
