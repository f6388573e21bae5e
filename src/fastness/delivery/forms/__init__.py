"""The forms in which an encoder is delivered: one file a form or a family of them, one line here to register it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx

from fastness.bundle import Bundle
from fastness.core.registry import Registry
from fastness.delivery.intake import Intake


@dataclass(frozen=True)
class Source:
    """What a form is made of.

    Attributes:
        bundle: what is delivered; of things with several sides the bundle of one.
        intake: what the graph takes.
        graph: in float32; not to be changed.
    """

    bundle: Bundle
    intake: Intake
    graph: onnx.ModelProto


class Form(ABC):
    """One way to write an encoder.

    Attributes:
        line: what it is, in a line.
        runtime: what runs it; see `fastness_runtime.sessions.SESSIONS`.
        floor: least cosine between what it gives for an item and what the encoder gives.
        modalities: of which it can be made; empty: of all.
    """

    line: ClassVar[str]
    runtime: ClassVar[str] = "onnxruntime"
    floor: ClassVar[float] = 0.99999
    modalities: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def write(self, source: Source, folder: Path) -> str:
        """Write the graph into a folder and return the name of its file."""


FORMS: Registry[type[Form]] = Registry(
    "form",
    "fastness.delivery.forms",
    {"onnx": "whole", "onnx-fp16": "narrow", "onnx-bf16": "narrow", "openvino": "openvino"},
)
