"""A head within the graph: behind the embeddings and the features, the classes' probabilities and the novelty."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastness.bundle.heads import Numbers
from fastness_runtime.sessions import ANSWERS, OUTPUTS

_NEAR = "head."  # of the names of all that is added, which no graph of torch's begins with


def answering(graph: onnx.ModelProto, numbers: Numbers) -> onnx.ModelProto:
    """Return a copy of a graph with two further outputs, computed in float32 as `heads.Head.answer` does.

    Args:
        graph: with the outputs ``embeddings`` and ``features``, float32 ``[B, D]``.
        numbers: of the head.
    """
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    embeddings, features = OUTPUTS
    means = numbers.means.astype(np.float64)
    held = {
        "mean": numbers.mean,
        "weights": numbers.weights,
        "bias": numbers.bias,
        "centre": numbers.centre,
        "whitening": numbers.whitening,
        "twice": np.ascontiguousarray(-2 * means.T, np.float32),
        "squares": np.square(means).sum(1).astype(np.float32),
        "nothing": np.float32(0),
        "axis": np.array([1], np.int64),
    }
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), _NEAR + name) for name, value in held.items()
    )
    steps = (
        ("Sub", (features, "mean"), "moved"),
        ("MatMul", ("moved", "weights"), "scores"),
        ("Add", ("scores", "bias"), "logits"),
        ("Softmax", ("logits",), ANSWERS[0]),
        ("Sub", (embeddings, "centre"), "centred"),
        ("MatMul", ("centred", "whitening"), "white"),
        ("ReduceSumSquare", ("white", "axis"), "square"),
        ("MatMul", ("white", "twice"), "products"),
        ("Add", ("products", "squares"), "partial"),
        ("Add", ("partial", "square"), "distances"),
        ("ReduceMin", ("distances", "axis"), "least"),
        ("Max", ("least", "nothing"), ANSWERS[1]),
    )
    for kind, taken, given in steps:
        inputs, output = [_named(name) for name in taken], _named(given)
        more = {"keepdims": int(given == "square")} if kind.startswith("Reduce") else {}
        made.graph.node.append(helper.make_node(kind, inputs, [output], name=_NEAR + given + ".node", **more))
    for name, shape in ((ANSWERS[0], ["batch", len(numbers.bias)]), (ANSWERS[1], ["batch"])):
        made.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return made


def _named(name: str) -> str:
    """Return the name that a value has in the graph: outputs keep theirs."""
    return name if name in (*OUTPUTS, *ANSWERS) else _NEAR + name
