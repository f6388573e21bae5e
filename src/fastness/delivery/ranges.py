"""Products in 8 bits for OpenVINO: what flows into each has one fixed range, found on real items.

OpenVINO joins such products with what follows them into one integer operation, which it does not with rows that are
divided by their own sizes (`rows`). One range would be spoilt by the few channels that are always large; their size is
moved into the weights first (Xiao et al. 2022, SmoothQuant, arXiv 2211.10438). NNCF does both.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.delivery.graph import quiet

_WORTH = 256  # numbers; smaller tables stay as they are, and those of one row, which OpenVINO cannot fold
_QUIETLY = "NNCF_CI"  # set, it reports to nobody that it is used


def in_eight_bits(
    model: Any, batches: Iterable[npt.NDArray[Any]], leave: Collection[str] = (), apart: str | None = None
) -> Any:
    """Return a copy of OpenVINO's model with its products and tables in 8 bits.

    Args:
        model: in float32; not changed.
        batches: of what it takes, by which ranges are found.
        leave: names of operations that stay as they are.
        apart: a pattern of names of more such operations.

    Raises:
        BadInput: NNCF is not installed.
    """
    os.environ.setdefault(_QUIETLY, "1")
    try:
        import nncf
    except ImportError:
        raise BadInput("--format openvino-int8: NNCF is not here; pip install 'fastness[openvino]'") from None
    batches = list(batches)
    ignored = nncf.IgnoredScope(
        names=[*leave, *_small_tables(model)], patterns=[] if apart is None else [apart], validate=False
    )
    with contextlib.redirect_stdout(io.StringIO()), quiet("nncf"):
        return nncf.quantize(
            model.clone(),
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
            ignored_scope=ignored,
        )


def places(model: Any) -> dict[str, int]:
    """Return the products in 8 bits with weights, by name, and how many numbers each holds."""
    return {
        product.get_friendly_name(): int(np.prod(product.input(1).get_shape()))
        for product in _products(model)
        if product.input(1).get_partial_shape().is_static
    }


def widened(model: Any, names: Collection[str]) -> Any:
    """Return a copy in which what flows into these products is not rounded; their weights are still."""
    model = model.clone()
    for product in _products(model):
        if product.get_friendly_name() in names:
            product.input(0).replace_source_output(product.input_value(0).get_node().input_value(0))
    return model


def _products(model: Any) -> Iterator[Any]:
    for operation in model.get_ordered_ops():
        product = operation.get_type_name() == "MatMul"
        if product and operation.input_value(0).get_node().get_type_name() == "FakeQuantize":
            yield operation


def _small_tables(model: Any) -> list[str]:
    tables = [operation for operation in model.get_ordered_ops() if operation.get_type_name() == "Gather"]
    known = [table for table in tables if table.input(0).get_partial_shape().is_static]
    shapes = {table.get_friendly_name(): table.input(0).get_shape() for table in known}
    return [name for name, shape in shapes.items() if np.prod(shape) < _WORTH or shape[0] == 1]
