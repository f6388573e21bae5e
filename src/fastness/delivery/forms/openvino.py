"""OpenVINO: another runtime, which computes in bfloat16 where the processor has it."""

from __future__ import annotations

from pathlib import Path

import onnx

from fastness.core.errors import BadInput
from fastness.delivery.forms import FORMS, Form, Source, Written


@FORMS.register("openvino")
class OpenVino(Form):
    """OpenVINO's own files. Its resizing of pictures is not Pillow's, and it loses missing cells: it takes texts."""

    line = "OpenVINO, in bfloat16 where the processor has it; of texts"
    runtime = "openvino"
    floor = 0.999
    modalities = ("text",)

    def write(self, source: Source, folder: Path) -> Written:
        """Convert the graph; weights keep their 32 bits."""
        return Written(convert(source.with_head(source.graph), folder))


def convert(graph: onnx.ModelProto, folder: Path) -> str:
    """Write OpenVINO's files of a graph into a folder and return the name of the one to load."""
    try:
        import openvino
    except ImportError:
        raise BadInput("--format openvino: OpenVINO is not here; pip install 'fastness[openvino]'") from None
    between = folder / "between.onnx"
    onnx.save(graph, between)
    openvino.save_model(openvino.convert_model(between), folder / "encoder.xml", compress_to_fp16=False)
    between.unlink()
    return "encoder.xml"
