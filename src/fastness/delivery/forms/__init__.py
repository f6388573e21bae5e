"""The forms in which an encoder is delivered: one file a form or a family of them, one line here to register it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx

from fastness.bundle import Bundle
from fastness.bundle.heads import Head
from fastness.core.registry import Registry
from fastness.delivery.answering import answering
from fastness.delivery.intake import Intake, Sample
from fastness_runtime.items import Batches


@dataclass(frozen=True)
class Source:
    """What a form is made of.

    Attributes:
        bundle: what is delivered; of things with several sides the bundle of one.
        intake: what the graph takes.
        graph: in float32; not to be changed.
        sample: real items to calibrate by, others than the export is compared on where there are enough; as many as the
            form asks for, at most.
        ready: makes batches of items, as the runtime does.
        head: what is to answer within the graph, if anything is.
    """

    bundle: Bundle
    intake: Intake
    graph: onnx.ModelProto
    sample: Sample
    ready: Batches
    head: Head | None = None

    def with_head(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        """Return a graph, in whatever form, with the head behind it in float32, if there is one."""
        return graph if self.head is None else answering(graph, self.head.numbers)

    def batches(self, size: int, sample: Sample | None = None) -> Iterator[tuple[npt.NDArray[np.int64], Any]]:
        """Yield a sample as the graph takes it, each batch with its items' positions."""
        return self.ready((self.sample if sample is None else sample).items, size)


@dataclass(frozen=True)
class Written:
    """What a form wrote: the graph's file, and what else is to be known of it, as values of JSON."""

    graph: str
    about: Mapping[str, Any] = field(default_factory=dict)


class Form(ABC):
    """One way to write an encoder.

    Attributes:
        line: what it is, in a line.
        runtime: what runs it; see `fastness_runtime.sessions.SESSIONS`.
        floor: below which it is refused.
        judged: by what: ``least``, the least cosine between what it gives for an item and what the encoder gives, or
            ``order``, for forms with geometry of their own: how alike both order pairs of items; see `parity.Parity`.
        modalities: of which it can be made; empty: of all.
        calibrated: on how many items.
    """

    line: ClassVar[str]
    runtime: ClassVar[str] = "onnxruntime"
    floor: ClassVar[float] = 0.99999
    judged: ClassVar[str] = "least"
    modalities: ClassVar[tuple[str, ...]] = ()
    calibrated: ClassVar[int] = 0

    @abstractmethod
    def write(self, source: Source, folder: Path) -> Written:
        """Write the graph into a folder."""


FORMS: Registry[type[Form]] = Registry(
    "form",
    "fastness.delivery.forms",
    {
        "onnx": "whole",
        "onnx-fp16": "narrow",
        "onnx-bf16": "narrow",
        "onnx-int8": "int8",
        "openvino": "openvino",
        "openvino-int8": "int8",
        "static": "static",
    },
)
