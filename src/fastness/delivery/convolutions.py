"""Convolutions in 8 bits: what flows has one scale a tensor, found on real items; weights have one a channel.

Krishnamoorthi 2018 (arXiv 1806.08342). Which range of a tensor is kept, and what is cut off, is decided by ONNX
Runtime's calibration.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime import quantization

from fastness.delivery.graph import quiet

WAYS = {
    "percentile": (quantization.CalibrationMethod.Percentile, {"CalibPercentile": 99.999}),
    "entropy": (quantization.CalibrationMethod.Entropy, {}),
}
"""How a tensor's range is found; which is better depends on the network."""

_AT_ONCE = 16  # items between which everything that flows is held in memory, before it becomes histograms
_BETWEEN = ("Add", "Clip", "MaxPool", "Relu")  # what stays in integers between two convolutions
Batches = Sequence[npt.NDArray[Any]]


def places(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the convolutions with fixed weights by the name of their output, and how many weights each has."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    return {n.output[0]: sizes[n.input[1]] for n in graph.node if n.op_type == "Conv" and n.input[1] in sizes}


class Convolutions:
    """Puts a model's convolutions in 8 bits, with ranges that are found once.

    Args:
        model: in float32.
        batches: of the graph's one input, all of one item, by which ranges are found.
        way: one of `WAYS`.
    """

    def __init__(self, model: onnx.ModelProto, batches: Batches, way: str) -> None:
        whole = len(batches) // _AT_ONCE * _AT_ONCE  # of a number that its parts do not fill the quantiser takes none
        self._model, self._batches = model, batches[:whole] if whole else batches
        self._method, self._settings = WAYS[way]
        self._folder = tempfile.TemporaryDirectory()
        self._names = places(model.graph)

    def in_eight_bits(self, leave: Collection[str] = ()) -> onnx.ModelProto:
        """Return the model with its convolutions in 8 bits, except those whose outputs are named."""
        narrow = _chain(self._model.graph, set(self._names) - set(leave))
        if not narrow:
            return self._model
        folder = Path(self._folder.name)
        onnx.save(self._named(), folder / "wide.onnx")
        with contextlib.redirect_stdout(io.StringIO()), quiet("root"):
            quantization.quantize_static(
                folder / "wide.onnx",
                folder / "narrow.onnx",
                _Reader(self._model.graph.input[0].name, self._batches),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,  # see rows.py on seven bits
                weight_type=quantization.QuantType.QInt8,
                activation_type=quantization.QuantType.QUInt8,
                calibrate_method=self._method,
                op_types_to_quantize=["Conv", *_BETWEEN],
                nodes_to_quantize=sorted(narrow),
                extra_options={**self._settings, "CalibStridedMinMax": min(_AT_ONCE, len(self._batches))},
                calibration_cache_path=folder / "ranges.json",
            )
        return onnx.load(folder / "narrow.onnx")

    def _named(self) -> onnx.ModelProto:
        """Return the model with each node named by its output, which is how the quantiser is told of nodes."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        for node in model.graph.node:
            node.name = node.output[0]
        return model


def _chain(graph: onnx.GraphProto, convolutions: set[str]) -> set[str]:
    """Return convolutions and whatever between them is fed by such alone."""
    fixed, found = {tensor.name for tensor in graph.initializer}, set(convolutions)
    for node in graph.node:
        fed = [name for name in node.input if name and name not in fixed]
        if node.op_type in _BETWEEN and fed and all(name in found for name in fed):
            found.add(node.output[0])
    return found


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Gives calibration its batches, one after the other, of the range that is asked for."""

    def __init__(self, name: str, batches: Batches) -> None:
        self._name, self._batches, self._left = name, batches, iter(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Begin anew, with some of them."""
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """Return the next, or ``None`` behind the last."""
        batch = next(self._left, None)
        return None if batch is None else {self._name: batch}
