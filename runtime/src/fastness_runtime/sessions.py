"""What runs a graph: ONNX Runtime, or OpenVINO."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastness_runtime.errors import Unusable

Array = npt.NDArray[Any]
OUTPUTS = ("embeddings", "features")
_SLOWER = ["SkipLayerNormFusion"]  # ONNX Runtime 1.32: six times as slow as the sum and the normalisation apart


class Session(Protocol):
    """A graph that is ready to run."""

    def run(self, batch: Array) -> tuple[Array, Array]:
        """Return embeddings and features, float32 ``[B, dim]`` each."""
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

    def run(self, batch: Array) -> tuple[Array, Array]:
        """See `Session.run`."""
        embeddings, features = self._session.run(OUTPUTS, {self._name: batch})
        return embeddings, features


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

    def run(self, batch: Array) -> tuple[Array, Array]:
        """See `Session.run`."""
        found = self._compiled({self._name: batch})
        embeddings, features = (np.array(found[name]) for name in OUTPUTS)
        return embeddings, features


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SESSIONS: dict[str, Callable[[Path, str, int | None], Session]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}
"""By name; adding one is a class and a line here."""
