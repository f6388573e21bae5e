"""What runs a graph: ONNX Runtime, or OpenVINO."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fastness_runtime.errors import Unusable

Array = npt.NDArray[Any]
Key = TypeVar("Key")
OUTPUTS = ("embeddings", "features")
"""Of every graph, float32 ``[B, dim]`` each."""

ANSWERS = ("probabilities", "novelty")
"""Of a graph with a head in it, float32 ``[B, C]`` and ``[B]``."""

_SLOWER = ["SkipLayerNormFusion"]  # ONNX Runtime 1.32: six times as slow as the sum and the normalisation apart
_SHAPES = 2000  # parts of networks made ready for a shape that OpenVINO keeps; its 5000 are gigabytes
_FIRST = threading.Lock()  # around the first use of OpenVINO's arrays
_MANY = 8  # batches; of fewer, each is better computed by all threads together

Run = Callable[..., Sequence[Array]]


class Session(Protocol):
    """A graph that is ready to run.

    Attributes:
        threads: that compute.
        alone: the same as `run`, by one thread; from as many threads at once as ``threads`` says.
    """

    threads: int

    @property
    def alone(self) -> Run: ...

    def run(self, batch: Array, *outputs: str) -> Sequence[Array]:
        """Return the outputs of these names; what none of them needs may be left uncomputed."""
        ...


def one_by_one(
    session: Session, batches: Iterator[tuple[Key, Array]], outputs: Sequence[str]
) -> Iterator[tuple[Key, Sequence[Array]]]:
    """Yield the outputs of batches, each computed by all threads together."""
    for key, batch in batches:
        yield key, session.run(batch, *outputs)


def several_at_once(
    session: Session, batches: Iterator[tuple[Key, Array]], outputs: Sequence[str]
) -> Iterator[tuple[Key, Sequence[Array]]]:
    """Yield the outputs of batches, where there are many a thread for each: threads need not wait for each other.

    Few are computed as `one_by_one` does it. What makes batches goes on while others are computed.
    """
    first = list(itertools.islice(batches, _MANY))
    if session.threads == 1 or len(first) < _MANY:
        yield from one_by_one(session, itertools.chain(first, batches), outputs)
        return
    waiting: deque[tuple[Key, Future[Sequence[Array]]]] = deque()
    with ThreadPoolExecutor(session.threads) as pool:
        for key, batch in itertools.chain(first, batches):
            waiting.append((key, pool.submit(session.alone, batch, *outputs)))
            if len(waiting) > 4 * session.threads:
                key, future = waiting.popleft()
                yield key, future.result()
        for key, future in waiting:
            yield key, future.result()


class OnnxRuntime:
    """ONNX Runtime on the processor."""

    def __init__(self, graph: Path, wanted: str, threads: int | None, calls: int = 1) -> None:
        self.threads = threads or cores()
        self._graph, self._name = graph, wanted
        self._session = self._made(self.threads)  # which several may call at once in any case

    def _made(self, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(
            self._graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
        )

    def run(self, batch: Array, *outputs: str) -> Sequence[Array]:
        """See `Session.run`."""
        found: Sequence[Array] = self._session.run(outputs, {self._name: batch})
        return found

    @cached_property
    def alone(self) -> Run:
        """See `Session.alone`; made when it is first wanted."""
        session = self._made(1)
        return lambda batch, *outputs: session.run(outputs, {self._name: batch})


class OpenVino:
    """OpenVINO on the processor; in bfloat16 where the hardware has it, unless the graph says otherwise."""

    def __init__(self, graph: Path, wanted: str, threads: int | None, calls: int = 1) -> None:
        self.threads = threads or cores()
        self._graph, self._name = graph, wanted
        self._run = self._made(self.threads * calls, calls)

    def _made(self, threads: int, streams: int) -> Run:
        """Return what runs the graph, several times at once if it is called so."""
        try:
            import openvino
        except ImportError:
            raise Unusable(f"{self._graph}: wants OpenVINO; pip install fastness-runtime[openvino]") from None
        config = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # several processes would all take the same cores
            "CPU_RUNTIME_CACHE_CAPACITY": _SHAPES,
        }
        with _FIRST:  # two threads that were the first to use it on arrays would wait for each other for ever
            _ = openvino.Tensor(np.zeros(1, np.float32)).data
        compiled: Any = openvino.Core().compile_model(self._graph, "CPU", config)
        free: list[Any] = []  # requests: each serves one call at a time

        def run(batch: Array, *outputs: str) -> Sequence[Array]:
            try:
                request = free.pop()
            except IndexError:
                request = compiled.create_infer_request()
            found = request.infer({self._name: batch})
            kept = [np.array(found[name]) for name in outputs]
            free.append(request)
            return kept

        return run

    def run(self, batch: Array, *outputs: str) -> Sequence[Array]:
        """See `Session.run`; it computes them all."""
        return self._run(batch, *outputs)

    @cached_property
    def alone(self) -> Run:
        """See `Session.alone`; made when it is first wanted."""
        return self._made(self.threads, self.threads)


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SESSIONS: dict[str, Callable[..., Session]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}
"""By name: makes one of a graph's file, the name of its input, threads, and calls at once.

Adding one is a class and a line here.
"""
