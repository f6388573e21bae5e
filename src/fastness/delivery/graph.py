"""An encoder as one ONNX graph: preprocessing, network, pooling and normalisation in it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import nn

from fastness.delivery.intake import Intake
from fastness.encoders import Encoder
from fastness_runtime.sessions import OUTPUTS

OPSET = 20


class _Whole(nn.Module):
    """From items to embeddings of length 1, and the features as they are."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both, float32 ``[B, dim]``."""
        features = self.encoder(self.encoder.preprocess(batch))
        return nn.functional.normalize(features, dim=1), features


def graph_of(encoder: Encoder, intake: Intake) -> onnx.ModelProto:
    """Return a graph from a batch of any number of items to ``embeddings`` and ``features``, in float32.

    Args:
        encoder: in eval mode, on the processor.
        intake: what the graph is to take.
    """
    inner = "square" if intake.before else intake.name
    sizes = {0: torch.export.Dim("batch"), **{place: torch.export.Dim(name) for place, name in intake.any_size.items()}}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), quiet("torch.onnx", "onnxscript"):
        warnings.simplefilter("ignore")  # remarks for those who write exporters
        program = torch.onnx.export(
            _Whole(encoder).eval(),
            (intake.example,),
            dynamo=True,
            dynamic_shapes=(sizes,),
            input_names=[inner],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = _bare(program.model_proto)
    if intake.before:
        model = intake.before(model)
    onnx.checker.check_model(model)
    return model


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Leave out remarks on where in which Python file each node comes from: they tell of the machine, and are long."""
    del model.metadata_props[:]
    for part in (model.graph, *model.functions):
        for thing in (*part.node, *part.value_info, *getattr(part, "input", ()), *getattr(part, "initializer", ())):
            if hasattr(thing, "metadata_props"):
                del thing.metadata_props[:]
            thing.doc_string = ""
    for thing in (*model.graph.input, *model.graph.output):
        del thing.metadata_props[:]
    return model


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Let loggers speak of errors alone."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
