"""OpenVINO: another runtime, which computes in bfloat16 where the processor has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        return Written(saved(converted(source.with_head(source.graph), folder), folder))


def converted(graph: onnx.ModelProto, folder: Path) -> Any:
    """Return OpenVINO's model of a graph; the folder is for what lies between.

    Raises:
        BadInput: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise BadInput("--format openvino: OpenVINO is not here; pip install 'fastness[openvino]'") from None
    between = folder / "between.onnx"
    onnx.save(graph, between)
    model = openvino.convert_model(between)
    between.unlink()
    return model


def saved(model: Any, folder: Path) -> str:
    """Write OpenVINO's files of a model into a folder and return the name of the one to load."""
    import openvino

    openvino.save_model(model, folder / "encoder.xml", compress_to_fp16=False)
    return "encoder.xml"
