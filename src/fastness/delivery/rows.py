"""Products with weights, and tables of vectors, in 8 bits: row by row.

Each row that flows into a product is divided by its own largest number, so that one fixed scale fits every row.
Nothing has to be calibrated, an outlier spoils its own row alone, and an item is the same whatever else is in its
batch: with one scale a batch, as ONNX Runtime's dynamic quantisation finds it, it is not. After Dettmers et al. 2022
(LLM.int8(), arXiv 2208.07339) and Yao et al. 2022 (ZeroQuant, arXiv 2206.01861), here in ONNX's own operations, which
the runtime joins into one integer product.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Floats = npt.NDArray[np.float32]
_WORTH = 256  # numbers; smaller matrices and tables stay as they are
_SEVEN_BITS = 63  # two products of eight bits overflow the sums of processors without VNNI
_SCALE, _MIDDLE = np.float32(1 / 127), np.uint8(128)
_EVERYWHERE = {"rows/last": np.array([-1], np.int64), "rows/least": np.float32(1e-30)}
_EVERYWHERE |= {"rows/scale": _SCALE, "rows/middle": _MIDDLE}


def places(graph: onnx.GraphProto) -> dict[str, int]:
    """Return what can be in 8 bits, by the name of its output, and how many numbers each holds."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    named = {node.output[0]: _weights_of(node, held) for node in graph.node}
    return {output: int(np.prod(held[name].dims)) for output, name in named.items() if name is not None}


def in_eight_bits(model: onnx.ModelProto, leave: Collection[str] = ()) -> onnx.ModelProto:
    """Return a model with its products and tables in 8 bits, except those whose outputs are named.

    Weights have one scale a column (a row of a table) and seven bits in products.
    """
    model, written = _copy(model), _Written()
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        name = None if node.output[0] in leave else _weights_of(node, held)
        if name is None:
            written.nodes.append(node)
        elif node.op_type == "Gather":
            _table(written, node, numpy_helper.to_array(held[name]))
        else:
            _product(written, node, numpy_helper.to_array(held[name]))
    return written.into(model)


class _Written:
    """Nodes and numbers of the new graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.numbers: dict[str, npt.NDArray[np.generic]] = {}
        self._divided: set[str] = set()

    def add(self, kind: str, inputs: list[str], output: str, **attributes: int) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def divided(self, rows: str) -> tuple[str, str]:
        """Return the names of rows in 8 bits (as floats again) and of each row's largest size; made once a tensor."""
        unit, largest = f"{rows}/rows", f"{rows}/rows/largest"
        if rows not in self._divided:
            self._divided.add(rows)
            self.numbers |= {name: np.asarray(value) for name, value in _EVERYWHERE.items()}
            size = self.add("Abs", [rows], f"{rows}/rows/size")
            most = self.add("ReduceMax", [size, "rows/last"], f"{rows}/rows/most", keepdims=1)
            self.add("Max", [most, "rows/least"], largest)
            one = self.add("Div", [rows, largest], f"{rows}/rows/one")
            narrow = self.add("QuantizeLinear", [one, "rows/scale", "rows/middle"], f"{rows}/rows/int8")
            self.add("DequantizeLinear", [narrow, "rows/scale", "rows/middle"], unit)
        return unit, largest

    def into(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Replace a model's nodes, and its numbers by those that are used."""
        graph = model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self.numbers.items())
        return model


def _product(written: _Written, node: onnx.NodeProto, weights: Floats) -> None:
    """Rows times weights, in integers; the bias stays as it is."""
    out = node.output[0]
    weights = weights.T if _attributes(node).get("transB") else weights
    numbers, scale = _narrow(weights, 0, _SEVEN_BITS)
    written.numbers |= {f"{out}/int8": numbers, f"{out}/scale": scale}
    unit, largest = written.divided(node.input[0])
    wide = written.add("DequantizeLinear", [f"{out}/int8", f"{out}/scale"], f"{out}/weights", axis=1)
    found = written.add("MatMul", [unit, wide], f"{out}/one")
    if len(node.input) > 2:
        found = written.add("Mul", [found, largest], f"{out}/many")
        written.add("Add", [found, node.input[2]], out)
    else:
        written.add("Mul", [found, largest], out)


def _table(written: _Written, node: onnx.NodeProto, weights: Floats) -> None:
    """Rows of a table, each with its scale."""
    out, which = node.output[0], node.input[1]
    numbers, scale = _narrow(weights, 1, 127)
    written.numbers |= {f"{out}/int8": numbers, f"{out}/scale": scale[:, None]}
    narrow = written.add("Gather", [f"{out}/int8", which], f"{out}/row")
    wide = written.add("Cast", [narrow], f"{out}/one", to=onnx.TensorProto.FLOAT)
    largest = written.add("Gather", [f"{out}/scale", which], f"{out}/largest")
    written.add("Mul", [wide, largest], out)


def _narrow(weights: Floats, along: int, most: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Return whole numbers up to ``most``, and the scale of each vector along an axis, float32."""
    scale = np.maximum(np.abs(weights).max(along), 1e-30) / most
    numbers = np.rint(weights / np.expand_dims(scale, along)).clip(-most, most)
    return numbers.astype(np.int8), scale.astype(np.float32)


def _weights_of(node: onnx.NodeProto, held: Mapping[str, onnx.TensorProto]) -> str | None:
    """Return the name of the fixed matrix of a product or the table of a lookup, if it is one that is worth it."""
    if node.op_type not in ("MatMul", "Gemm", "Gather") or len(node.input) < 2:
        return None
    name, said = node.input[0 if node.op_type == "Gather" else 1], _attributes(node)
    tensor = held.get(name)
    plain = said.get("alpha", 1) == said.get("beta", 1) == 1 and not said.get("transA") and not said.get("axis")
    if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2 or not plain:
        return None
    return name if np.prod(tensor.dims) >= _WORTH else None


def _attributes(node: onnx.NodeProto) -> dict[str, float]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied
