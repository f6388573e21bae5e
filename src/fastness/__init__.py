"""fastness turns unlabelled data into an encoder that holds.

``import fastness as fs`` and then ``fs.train``, ``fs.load``, ``fs.evaluate``, ``fs.compare``, ``fs.search``,
``fs.adopt``, ``fs.open_data``. Heavy libraries are imported by the functions that need them.
"""

from fastness.api import adopt, compare, evaluate, load, open_data, search, train
from fastness.core.errors import BadInput, Failure, FastnessError, GateRefused

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what needs scikit-learn only when it is asked for."""
    if name == "ContrastiveEncoder":
        from fastness.estimator import ContrastiveEncoder

        return ContrastiveEncoder
    raise AttributeError(f"module 'fastness' has no attribute '{name}'")


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
