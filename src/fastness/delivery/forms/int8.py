"""Weights, and what is multiplied with them, in 8 bits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx

from fastness.core.errors import BadInput
from fastness.delivery import ranges, rows
from fastness.delivery.convolutions import WAYS, Convolutions
from fastness.delivery.convolutions import places as convolutions
from fastness.delivery.forms import FORMS, Form, Source, Written
from fastness.delivery.forms.openvino import converted, saved
from fastness.delivery.intake import Sample
from fastness.delivery.parity import cosines
from fastness.delivery.sensitivity import left_alone
from fastness_runtime.sessions import OUTPUTS, SESSIONS

_FEW = 64  # items by which ways and places are put in order; how much is left alone is found on all there are
_TOGETHER = 8  # items by which ranges are found
_HEAD = r"head\..*"  # names of what `answering` puts behind a graph
Narrow = Callable[[set[str]], onnx.ModelProto]


class Int8(Form):
    """A quarter of the file, and faster where there are integer units."""

    floor = 0.99
    calibrated = 256

    @property
    def bearable(self) -> float:
        """What items that are tried may lose; others lose more: of a thousand the worst twice as much."""
        return 0.4 * (1 - self.floor)


@FORMS.register("onnx-int8")
class Onnx(Int8):
    """For ONNX Runtime."""

    line = "products by row, tables and convolutions in int8, calibrated on your items; what is sensitive stays float32"

    def write(self, source: Source, folder: Path) -> Written:
        """Write the graph in 8 bits."""
        graph, about = self.narrow(source)
        return Written(_saved(source.with_head(graph), folder), about)

    def narrow(self, source: Source) -> tuple[onnx.ModelProto, dict[str, object]]:
        """Return the graph in 8 bits, and what is to be known of how it was made."""
        places = {**rows.places(source.graph.graph), **convolutions(source.graph.graph)}
        if not places:
            raise BadInput("--format int8: nothing in this network is a product with weights worth it; take onnx")
        trial = _Trial(source, self.runtime, _saved)
        ways = self._ways(source)
        losses = {way: trial.roughly(make(set())) for way, make in ways.items()}
        way = min(losses, key=losses.__getitem__)
        left = trial.left_alone(places, ways[way], self.bearable)
        return ways[way](set(left)), {"ranges": way, "left_alone": left, "of": len(places)}

    def _ways(self, source: Source) -> dict[str, Narrow]:
        """Return the ways to narrow, given what to leave alone: several where convolutions need ranges."""
        if not convolutions(source.graph.graph):
            return {"by row": lambda leave: rows.in_eight_bits(source.graph, leave)}
        alone = [batch for _, batch in source.batches(1)]
        return {way: _both(Convolutions(source.graph, alone, way)) for way in WAYS}


def _both(by: Convolutions) -> Narrow:
    return lambda leave: rows.in_eight_bits(by.in_eight_bits(leave), leave)


def _saved(graph: onnx.ModelProto, folder: Path) -> str:
    onnx.save(graph, folder / "encoder.onnx")
    return "encoder.onnx"


@FORMS.register("openvino-int8")
class OpenVino(Int8):
    """For OpenVINO, which is faster with ranges that are fixed."""

    line = "products and tables in int8 for OpenVINO, ranges from your items; what is sensitive stays; of texts"
    runtime = "openvino"
    modalities: ClassVar[tuple[str, ...]] = ("text",)

    def write(self, source: Source, folder: Path) -> Written:
        """Find ranges, and what is left alone, without the head; write both."""
        batches = [batch for _, batch in source.batches(_TOGETHER)]
        narrow = ranges.in_eight_bits(converted(source.graph, folder), batches)
        places = ranges.places(narrow)
        trial = _Trial(source, self.runtime, saved)
        left = trial.left_alone(places, lambda leave: ranges.widened(narrow, leave), self.bearable)
        if left or source.head is not None:
            whole = converted(source.with_head(source.graph), folder)
            narrow = ranges.in_eight_bits(whole, batches, left, _HEAD)
        return Written(saved(narrow, folder), {"ranges": "smoothed", "left_alone": left, "of": len(places)})


class _Trial:
    """Measures what narrowing loses: one less the least cosine over the items that ranges are found on, or a few."""

    def __init__(self, source: Source, runtime: str, save: Callable[[Any, Path], str]) -> None:
        self._source, self._runtime, self._save = source, runtime, save
        self._few = source.sample.select(range(min(_FEW, len(source.sample))))

    def left_alone(self, places: Mapping[str, int], narrow: Callable[[set[str]], Any], bearable: float) -> list[str]:
        """Return what is to be left alone for no item to lose more than is bearable."""
        return left_alone(
            places,
            lambda leave: self._lost(narrow(leave), self._source.sample),
            bearable,
            lambda leave: self.roughly(narrow(leave)),
        )

    def roughly(self, graph: Any) -> float:
        """Return what a graph loses on a few items."""
        return self._lost(graph, self._few)

    def _lost(self, graph: Any, sample: Sample) -> float:
        found = np.zeros_like(sample.vectors)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            session = SESSIONS[self._runtime](folder / self._save(graph, folder), self._source.intake.name, None)
            for positions, batch in self._source.batches(16, sample):
                (found[positions],) = session.run(batch, OUTPUTS[0])
            del session  # before the file it reads
        return float(1 - cosines(found, sample.vectors).min())
