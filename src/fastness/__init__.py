"""fastness turns unlabelled data into an encoder that holds.

``import fastness as fs`` and then ``fs.train``, ``fs.load``, ``fs.evaluate``, ``fs.compare``, ``fs.search``,
``fs.fit``, ``fs.classify``, ``fs.prune``, ``fs.narrow``, ``fs.export``, ``fs.bench``, ``fs.sign``, ``fs.verify``,
``fs.sketch``, ``fs.drift``, ``fs.Index``, ``fs.Registry``, ``fs.Features``, ``fs.serve``, ``fs.adopt``,
``fs.open_data``. Each is imported, with the heavy libraries that it needs, when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastness import api
from fastness.core.errors import BadInput, Failure, FastnessError, GateRefused

if TYPE_CHECKING:
    from fastness.api import (
        Features,
        Index,
        Online,
        Registry,
        adopt,
        bench,
        classify,
        compare,
        drift,
        evaluate,
        export,
        fit,
        load,
        narrow,
        open_data,
        prune,
        search,
        serve,
        sign,
        sketch,
        train,
        verify,
    )
    from fastness.estimator import ContrastiveEncoder

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "ContrastiveEncoder",
    "Failure",
    "FastnessError",
    "Features",
    "GateRefused",
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
    if name == "ContrastiveEncoder":
        from fastness.estimator import ContrastiveEncoder

        return ContrastiveEncoder
    found = globals()[name] = getattr(api, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
