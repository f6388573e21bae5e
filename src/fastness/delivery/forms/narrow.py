"""Weights in half as many bits; the runtime widens them when it loads, and computes in float32."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastness.delivery.forms import FORMS, Form, Source, Written

_WORTH = 256  # numbers; smaller tensors stay as they are


class Narrow(Form):
    """Half the file, nothing else: any processor widens 16 bits, few compute in them."""

    floor = 0.999
    kind: ClassVar[int]
    dtype: ClassVar[type]

    def write(self, source: Source, folder: Path) -> Written:
        """Narrow every large tensor and put a cast behind it."""
        model = onnx.ModelProto()
        model.CopyFrom(source.graph)
        casts = []
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if tensor.data_type == TensorProto.FLOAT and values.size >= _WORTH:
                name, limit = tensor.name, float(ml_dtypes.finfo(self.dtype).max)
                narrow = np.clip(values, -limit, limit).astype(self.dtype)
                tensor.CopyFrom(
                    helper.make_tensor(f"{name}/narrow", self.kind, values.shape, narrow.tobytes(), raw=True)
                )
                casts.append(helper.make_node("Cast", [f"{name}/narrow"], [name], to=TensorProto.FLOAT))
        nodes = [*casts, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        onnx.save(source.with_head(model), folder / "encoder.onnx")
        return Written("encoder.onnx")


@FORMS.register("onnx-fp16")
class Half(Narrow):
    """Ten bits of fraction, numbers up to 65,504."""

    line = "weights in float16: half the file; computes in float32"
    kind = TensorProto.FLOAT16
    dtype = np.float16


@FORMS.register("onnx-bf16")
class Brain(Narrow):
    """Seven bits of fraction, the range of float32."""

    line = "weights in bfloat16: half the file, any range; computes in float32"
    kind = TensorProto.BFLOAT16
    dtype = ml_dtypes.bfloat16
