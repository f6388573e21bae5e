"""Eight bits: they cost what arithmetic says, an item is the same in any batch, and what is sensitive is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scipy import sparse

import fastness as fs
from fastness.delivery import convolutions, ranges, rows
from fastness.delivery.export import export
from fastness.delivery.forms import static
from fastness.delivery.forms.openvino import converted
from fastness.delivery.sensitivity import left_alone
from fastness_runtime import load as load_export

NAMES = ("red", "blue", "cat", "dog", "house", "tree", "under", "over")


def model(nodes: list[onnx.NodeProto], held: dict[str, np.ndarray], kind: int, shape: list) -> onnx.ModelProto:
    """A graph from ``x`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Return what a graph gives."""
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def naive(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A product in 8 and 7 bits, a row and a column at a time."""
    out = np.zeros((len(x), weights.shape[1]))
    for i, row in enumerate(x):
        largest = np.float32(max(np.abs(row).max(), 1e-30))
        whole = np.clip(np.rint((row / largest) / np.float32(1 / 127)) + 128, 0, 255) - 128
        for j, column in enumerate(weights.T):
            scale = np.float32(max(np.abs(column).max(), 1e-30) / 63)
            out[i, j] = (whole * np.rint(column / scale)).sum() / 127 * scale * largest + bias[j]
    return out


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 5), d=st.integers(16, 40), turned=st.booleans())
def test_products_are_those_of_a_loop(seed: int, n: int, d: int, turned: bool) -> None:
    lots = np.random.default_rng(seed)
    x = (lots.normal(size=(n, d)) * 10 ** lots.uniform(-3, 3, (n, 1))).astype(np.float32)
    weights, bias = lots.normal(size=(d, 24)).astype(np.float32), lots.normal(size=24).astype(np.float32)
    held = {"w": weights.T.copy() if turned else weights, "b": bias}
    whole = model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=int(turned))], held, TensorProto.FLOAT, [None, d]
    )
    assert rows.places(whole.graph) == {"y": 24 * d}
    before = whole.SerializeToString()
    narrow = rows.in_eight_bits(whole)
    assert whole.SerializeToString() == before
    found = run(narrow, x)
    size = np.abs(x).max(1, keepdims=True)
    np.testing.assert_allclose(found / size, naive(x, weights, bias) / size, rtol=1e-4, atol=0.02)
    for i in range(n):  # a row is the same whatever stands beside it
        np.testing.assert_array_equal(run(narrow, x[i : i + 1])[0], found[i])
    np.testing.assert_array_equal(run(rows.in_eight_bits(whole, leave=["y"]), x), run(whole, x))


def test_an_outlier_spoils_its_own_row_alone() -> None:
    lots = np.random.default_rng(0)
    x, weights = lots.normal(size=(4, 64)).astype(np.float32), lots.normal(size=(64, 32)).astype(np.float32)
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights}, TensorProto.FLOAT, [None, 64])
    x[2, 5] = 1e4
    lost = np.abs(run(rows.in_eight_bits(made), x) - x @ weights).mean(1)
    assert lost[2] > 50 * lost[[0, 1, 3]].max() and lost[[0, 1, 3]].max() < 0.2


def test_tables_have_a_scale_a_row() -> None:
    table = (
        np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
        * np.logspace(-4, 4, 50, dtype=np.float32)[:, None]
    )
    made = model([helper.make_node("Gather", ["t", "x"], ["y"])], {"t": table}, TensorProto.INT64, [None])
    narrow = rows.in_eight_bits(made)
    which = np.arange(50)
    assert (np.abs(run(narrow, which) - table) <= np.abs(table).max(1, keepdims=True) / 253).all()
    assert len(narrow.SerializeToString()) < 0.6 * len(made.SerializeToString())


def test_what_is_no_product_with_weights_stays() -> None:
    small, odd = np.ones((8, 8), np.float32), np.ones((64, 64), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "small"], ["a"]),
        helper.make_node("MatMul", ["a", "a"], ["b"]),
        helper.make_node("Gemm", ["b", "odd"], ["y"], alpha=0.5),
    ]
    assert rows.places(model(nodes, {"small": small, "odd": odd}, TensorProto.FLOAT, [8, 8]).graph) == {}


def test_only_what_convolutions_alone_feed_stays_in_integers_between_them() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["one"]),
        helper.make_node("Relu", ["one"], ["warm"]),
        helper.make_node("Conv", ["warm", "w"], ["two"]),
        helper.make_node("Add", ["two", "one"], ["joined"]),
        helper.make_node("Sigmoid", ["joined"], ["gate"]),
        helper.make_node("Add", ["gate", "joined"], ["y"]),
    ]
    made = model(nodes, {"w": np.ones((3, 3, 1, 1), np.float32)}, TensorProto.FLOAT, [None, 3, 4, 4])
    assert convolutions.places(made.graph) == {"one": 9, "two": 9}
    assert convolutions._chain(made.graph, {"one", "two"}) == {"one", "warm", "two", "joined"}
    assert convolutions._chain(made.graph, {"two"}) == {"two"}


@given(
    costs=st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1)), min_size=1, max_size=12),
    bearable=st.floats(0, 4),
)
def test_as_few_places_as_needed_are_left_alone(costs: list[tuple[int, float]], bearable: float) -> None:
    """Where losses add up: those that lose most a number first, and not one more than is needed."""
    places = {f"p{i}": size for i, (size, _) in enumerate(costs)}
    loss = {f"p{i}": cost for i, (_, cost) in enumerate(costs)}

    def lost(leave: set[str]) -> float:
        return sum(cost for place, cost in loss.items() if place not in leave)

    left = left_alone(places, lost, bearable)
    order = sorted(places, key=lambda place: -loss[place] / places[place])
    needed = next(n for n in range(len(order) + 1) if lost(set(order[:n])) <= bearable or n == len(order))
    assert len(left) == needed
    assert sorted(loss[p] / places[p] for p in left) == pytest.approx(
        sorted(loss[p] / places[p] for p in order[:needed])
    )


def test_int8_says_what_it_left_alone(bundle: Path, labelled: Path, tmp_path: Path) -> None:
    found = export(bundle, labelled, "onnx-int8", out=tmp_path / "narrow")
    whole = export(bundle, labelled, "onnx", out=tmp_path / "whole")
    made = load_export(found.folder).about["made"]
    assert made["ranges"] in convolutions.WAYS and len(made["left_alone"]) < made["of"]
    assert found.bytes < whole.bytes


def test_ranges_are_of_the_items_and_what_is_named_stays(tmp_path: Path) -> None:
    """Products in 8 bits are near; widened, or left alone, they are nearer."""
    openvino = pytest.importorskip("openvino")
    lots = np.random.default_rng(0)
    x, weights = lots.normal(size=(64, 64)).astype(np.float32), lots.normal(size=(64, 64)).astype(np.float32)
    x[2] *= 100  # a row that spoils the ranges of all
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["one"], name="first"),
        helper.make_node("Relu", ["one"], ["warm"]),
        helper.make_node("MatMul", ["warm", "w"], ["y"], name="y"),
    ]
    whole = converted(model(nodes, {"w": weights}, TensorProto.FLOAT, [None, 64]), tmp_path)

    def lost(made: object) -> float:
        compiled = openvino.Core().compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        wanted = np.maximum(x @ weights, 0) @ weights
        few = np.arange(3, 64)
        return float(np.abs(compiled([x])[0] - wanted)[few].mean() / np.abs(wanted)[few].mean())

    narrow = ranges.in_eight_bits(whole, [x[:32], x[32:]])
    assert ranges.places(narrow) == {"first": 4096, "y": 4096}
    assert 1e-4 < lost(ranges.widened(narrow, {"first", "y"})) < 0.5 * lost(narrow)
    alone = ranges.in_eight_bits(whole, [x], leave=["first"], apart="y.*")
    assert ranges.places(alone) == {} and lost(alone) < 1e-4 and lost(whole) < 1e-4


def test_moves_are_those_of_ridge_regression_on_the_table() -> None:
    lots = np.random.default_rng(0)
    texts = sparse.random(30, 50, 0.2, format="csr", random_state=1)
    table, wanted = lots.normal(size=(50, 4)).astype(np.float32), lots.normal(size=(30, 4)).astype(np.float32)
    for strength, move in zip((0.1, 2.0), static._moves(table, texts, wanted, (0.1, 2.0)), strict=True):
        ridge = strength * float((texts @ texts.T).diagonal().mean())
        direct = np.linalg.solve((texts.T @ texts).toarray() + ridge * np.eye(50), texts.T @ (wanted - texts @ table))
        np.testing.assert_allclose(move, direct, atol=1e-5)


def test_a_table_learns_what_words_alone_can_say(tmp_path: Path) -> None:
    """An encoder that is hardly more than the mean of its words is matched on texts that were not fitted on."""
    lots = np.random.default_rng(0)
    lines = [" ".join(lots.choice(NAMES, lots.integers(2, 8))) for _ in range(400)]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(lines))
    small = {"width": 32, "steps": 30, "batch_size": 32, "network": {"layers": 1, "heads": 2}}
    run = fs.train(path, encoder="transformer", out=tmp_path / "run", quiet=True, **small)
    found = export(run.bundle, path, "static")
    assert found.parity.judged == "order" and found.parity.order > 0.8
    assert load_export(found.folder).about["made"]["ridge"] in static._STRENGTHS
    alone, mixed = load_export(found.folder).embed(["red"]), load_export(found.folder).embed(["red", "blue cat"])
    np.testing.assert_array_equal(alone[0], mixed[0])
    fs.narrow(run.bundle, path, 8, out=tmp_path / "narrow")
    narrow = export(tmp_path / "narrow", path, "static")
    assert narrow.parity.order > 0.7 and load_export(narrow.folder).dim == 8
    vectors = [load_export(folder).embed(["red cat"]) for folder in (narrow.folder, export(
        tmp_path / "narrow", path, "static", out=tmp_path / "twice").folder)]  # fmt: skip
    np.testing.assert_array_equal(*vectors)
    again = fs.train(path, encoder="static", width=8, steps=1, batch_size=16, out=tmp_path / "table", quiet=True)
    with pytest.raises(fs.BadInput, match="is a table already"):
        export(again.bundle, path, "static")
    with pytest.raises(fs.GateRefused, match="orders pairs of"):
        export(run.bundle, path, "static", out=tmp_path / "refused", floor=1.0)


def test_a_table_of_one_row_stays_as_it_is() -> None:
    """However wide it is: OpenVINO does not load every model whose table of one row is in eight bits."""
    import openvino
    from openvino import opset13 as ops

    lots, first = np.random.default_rng(0), ops.constant(0)
    tokens = ops.parameter([-1, -1], np.int32)
    tables = [ops.constant(lots.normal(size=(rows, 256)).astype(np.float32)) for rows in (7, 1)]
    places = (tokens, ops.broadcast(ops.constant(np.int32(0)), ops.shape_of(tokens)))
    parts = [ops.gather(table, place, first) for table, place in zip(tables, places, strict=True)]
    product = ops.matmul(
        ops.add(*parts), ops.constant(lots.normal(size=(256, 8)).astype(np.float32) / 16), False, False
    )
    whole = openvino.Model([product], [tokens], "tables")
    batches = [lots.integers(0, 7, (4, 5)).astype(np.int32) for _ in range(4)]
    narrow = ranges.in_eight_bits(whole, batches)
    eight = [node for node in narrow.get_ops() if node.get_output_element_type(0).get_type_name() in ("i8", "u8")]
    assert {tuple(node.get_output_shape(0)) for node in eight} >= {(7, 256)}
    assert not [node for node in eight if node.get_output_shape(0)[0] == 1]
    plain, less = (openvino.Core().compile_model(m, "CPU")(batches[0])[0].ravel() for m in (whole, narrow))
    assert plain @ less > 0.999 * np.linalg.norm(plain) * np.linalg.norm(less)
