"""The encoder as it is, in float32."""

from __future__ import annotations

from pathlib import Path

import onnx

from fastness.delivery.forms import FORMS, Form, Source, Written


@FORMS.register("onnx")
class Whole(Form):
    """ONNX in float32."""

    line = "float32, for ONNX Runtime and anything else that reads ONNX"

    def write(self, source: Source, folder: Path) -> Written:
        """Write it as it is."""
        onnx.save(source.with_head(source.graph), folder / "encoder.onnx")
        return Written("encoder.onnx")
