"""Pictures of any size become squares within a graph, as `fastness.data.square` makes them."""

from __future__ import annotations

import onnx
from onnx import TensorProto, compose, helper

ROUNDED = 0.9999
"""Cosine that a picture keeps, whose resizing rounded some pixels one level otherwise than torch does.

Of 1,000 photographs of mixed sizes a ResNet that had learnt for minutes gave the worst .99997 (``benchmarks/exports``).
"""


def squares_first(graph: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """Return a graph that takes pixels uint8 ``[batch, 3, height, width]`` where it took ``[batch, 3, size, size]``.

    Resize computes on bytes, with the antialiasing of Pillow and of torch; weights beyond the edge are left out as
    both do, and the result differs from theirs by one level in a few pixels of a thousand.
    """
    nodes = [
        helper.make_node("Shape", ["pixels"], ["sides"], start=2),
        helper.make_node("ReduceMin", ["sides"], ["side"], keepdims=1),
        helper.make_node("Sub", ["sides", "side"], ["beyond"]),
        helper.make_node("Div", ["beyond", "two"], ["first"]),
        helper.make_node("Add", ["first", "side"], ["last"]),
        helper.make_node("Slice", ["pixels", "first", "last", "places"], ["square"]),
        helper.make_node(
            "Resize",
            ["square", "", "", "wanted"],
            ["resized"],
            mode="linear",
            antialias=1,
            exclude_outside=1,
            axes=[2, 3],
        ),
    ]
    numbers = {"two": [2], "places": [2, 3], "wanted": [size, size]}
    made = helper.make_graph(
        nodes,
        "squares",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("resized", TensorProto.UINT8, ["batch", 3, size, size])],
        [helper.make_tensor(name, TensorProto.INT64, [len(values)], values) for name, values in numbers.items()],
    )
    first = helper.make_model(made, opset_imports=graph.opset_import, ir_version=graph.ir_version)
    wanted = graph.graph.input[0].name
    prefixed = compose.add_prefix(first, "square/", rename_inputs=False)
    merged = compose.merge_models(prefixed, graph, [("square/resized", wanted)])
    del merged.opset_import[len(graph.opset_import) :]  # it lists each twice, which ONNX Runtime's quantiser refuses
    return merged
