"""What runs a graph: ONNX Runtime, or OpenVINO."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastness_runtime.errors import Unusable

Array = npt.NDArray[Any]
OUTPUTS = ("embeddings", "features")
"""Of every graph, float32 ``[B, dim]`` each."""

ANSWERS = ("probabilities", "novelty")
"""Of a graph with a head in it, float32 ``[B, C]`` and ``[B]``."""

_SLOWER = ["SkipLayerNormFusion"]  # ONNX Runtime 1.32: six times as slow as the sum and the normalisation apart


class Session(Protocol):
    """A graph that is ready to run."""

    def run(self, batch: Array, *outputs: str) -> Sequence[Array]:
        """Return the outputs of these names; what none of them needs may be left uncomputed."""
        ...


class OnnxRuntime:
    """ONNX Runtime on the processor."""

    def __init__(self, graph: Path, wanted: str, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        options.inter_op_num_threads = 1
        self._name = wanted
        self._session: Any = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
        )

    def run(self, batch: Array, *outputs: str) -> Sequence[Array]:
        """See `Session.run`."""
        found: Sequence[Array] = self._session.run(outputs, {self._name: batch})
        return found


class OpenVino:
    """OpenVINO on the processor; in bfloat16 where the hardware has it, unless the graph says otherwise."""

    def __init__(self, graph: Path, wanted: str, threads: int | None) -> None:
        try:
            import openvino
        except ImportError:
            raise Unusable(f"{graph}: wants OpenVINO; pip install fastness-runtime[openvino]") from None
        self._name = wanted
        config = {"INFERENCE_NUM_THREADS": threads or cores(), "PERFORMANCE_HINT": "LATENCY"}
        self._compiled: Any = openvino.Core().compile_model(graph, "CPU", config)

    def run(self, batch: Array, *outputs: str) -> Sequence[Array]:
        """See `Session.run`; it computes them all."""
        found = self._compiled({self._name: batch})
        return [np.array(found[name]) for name in outputs]


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SESSIONS: dict[str, Callable[[Path, str, int | None], Session]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}
"""By name; adding one is a class and a line here."""
