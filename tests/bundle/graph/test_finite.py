"""A constant that is no number is found wherever it lies, and no engine is given it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hostile_graphs import per_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph import finite
from edge_ad.bundle.graph.check import checked_graph, examine_file
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.graph.finite import read_as_bounds, what_is_no_number
from edge_ad.bundle.graph.model import FLOAT, FLOAT16, Node, Tensor
from edge_ad.bundle.graph.wire import InMemory, Reader
from edge_ad.errors import BundleError

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
SPECIAL = {"NaN": (np.nan, -np.nan), "an infinity": (np.inf, -np.inf)}


def spoilt(array: Any, value: float) -> Any:
    """A copy whose last element is `value`."""
    copy = np.array(array)
    copy.reshape(-1)[-1] = value
    return copy


@pytest.mark.parametrize("name", ["model.onnx", "model.fp16.onnx", "model.int8.onnx"])
def test_no_constant_of_our_graphs_may_be_replaced(three_precisions: Path, name: str) -> None:
    """Weights, scales, what makes maps: one element that is none is enough, and its tensor is named."""
    bundle = Bundle.read(three_precisions)
    data = bundle.read_file(name)
    checked_graph(data, bundle.graph_contract)
    model, planted = onnx.load_model_from_string(data), 0
    constants = [tensor for tensor in model.graph.initializer if tensor.data_type in FLOATS]
    for tensor in constants[:: max(1, len(constants) // 12)]:
        sound = onnx.TensorProto.FromString(tensor.SerializeToString())
        for what, value in (("NaN", np.nan), ("an infinity", -np.inf)):
            tensor.CopyFrom(numpy_helper.from_array(spoilt(numpy_helper.to_array(sound), value), tensor.name))
            if what == "an infinity" and is_limit(model, tensor.name):
                continue
            with pytest.raises(BundleError, match=f"^initializer '{tensor.name}' holds {what}"):
                checked_graph(model.SerializeToString(), bundle.graph_contract)
            planted += 1
        tensor.CopyFrom(sound)
    assert planted > 10
    checked_graph(model.SerializeToString(), bundle.graph_contract)


def is_limit(model: onnx.ModelProto, name: str) -> bool:
    return all(node.op_type == "Clip" for node in model.graph.node if name in node.input)


def test_a_file_is_looked_through_too(micro_graph: bytes, micro: GraphContract, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(micro_graph)
    examine_file(tmp_path / "model.onnx", micro)
    model = onnx.load_model_from_string(micro_graph)
    last = [tensor for tensor in model.graph.initializer if tensor.data_type in FLOATS][-1]
    last.CopyFrom(numpy_helper.from_array(spoilt(numpy_helper.to_array(last), np.nan), last.name))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="holds NaN"):
        examine_file(tmp_path / "model.onnx", micro)


def padded(graph: bytes, value: float, *further: onnx.NodeProto) -> bytes:
    """A score that depends on a map with a margin of `value`, as poolings of timm have one of minus infinity."""
    nodes = [
        helper.make_node("Constant", [], ["margin"], "margin", value=helper.make_tensor("", 1, [], [value])),
        helper.make_node("Pad", ["patch_map", "pads", "margin"], ["wide"], "pad"),
        helper.make_node("Slice", ["wide", "first", "end", "axis"], ["w"], "slice"),
        *further,
    ]
    numbers = {"pads": [0, 1, 1, 0, 1, 1], "first": [0], "end": [1], "axis": [1]}
    return per_picture(graph, (nodes, {name: np.array(value, np.int64) for name, value in numbers.items()}))


def test_an_infinity_may_be_a_margin_and_nothing_else(micro_graph: bytes, micro: GraphContract) -> None:
    for value in (0.0, -np.inf):
        checked_graph(padded(micro_graph, value), micro)
    with pytest.raises(BundleError, match=r"'margin' \(Constant\): holds NaN"):
        checked_graph(padded(micro_graph, np.nan), micro)
    elsewhere = helper.make_node("Mul", ["patch_map", "margin"], ["spoilt"], "multiply")
    with pytest.raises(BundleError, match=r"'margin' \(Constant\): holds an infinity"):
        checked_graph(padded(micro_graph, -np.inf, elsewhere), micro)


def test_where_an_infinity_may_stand() -> None:
    def bounds(*nodes: Any) -> frozenset[str]:
        made = [helper.make_node(kind, inputs, outputs) for kind, inputs, outputs in nodes]
        graph = helper.make_graph(made, "g", [], [])
        plain = [Node(n.name, n.op_type, tuple(n.input), tuple(n.output), {}) for n in graph.node]
        return read_as_bounds(plain, ["out"]) & {"c", "half"}

    clip = ("Clip", ["x", "", "half"], ["y"])
    assert bounds(("Pad", ["x", "pads", "c"], ["y"])) == {"c"}
    assert bounds(("Cast", ["c"], ["half"]), clip) == {"c", "half"}
    assert bounds(("Cast", ["c"], ["half"]), clip, ("Add", ["y", "half"], ["z"])) == frozenset()
    assert bounds(("Cast", ["c"], ["half"])) == frozenset(), "read by nobody"
    assert bounds(("Identity", ["c"], ["out"]), ("Pad", ["x", "pads", "c"], ["y"])) == frozenset()
    assert bounds(("Clip", ["c", "low", "high"], ["y"])) == frozenset()


arrays = st.tuples(
    st.sampled_from([np.float32, np.float16]),
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 299), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=3),
    st.integers(0, 2**32 - 1),
)


@given(arrays)
@settings(max_examples=150, deadline=None)
def test_any_bits_are_told_apart_as_numpy_does(case: tuple[Any, int, list[tuple[int, float]], int]) -> None:
    """Bits of all kinds, NaN of any payload and subnormal numbers among them; a chunk ends where it likes."""
    kind, size, specials, seed = case
    bits = np.random.default_rng(seed).integers(0, 256, size * np.dtype(kind).itemsize, np.uint8)
    array = bits.view(kind).copy()
    if seed % 2:
        array[~np.isfinite(array)] = 1.0
    for at, value in specials:
        array[at % size] = value
    tensor = Tensor("t", FLOAT if kind == np.float32 else FLOAT16, (size,), (0, array.nbytes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finite, "CHUNK", 64)
        found = what_is_no_number(tensor, Reader(InMemory(array.tobytes())))
    wanted = "NaN" if np.isnan(array).any() else "an infinity" if np.isinf(array).any() else None
    assert found == wanted


@pytest.mark.parametrize(("what", "values"), SPECIAL.items())
def test_numbers_that_are_stored_one_by_one(what: str, values: tuple[float, float]) -> None:
    reader = Reader(InMemory(b""))
    for value in values:
        assert what_is_no_number(Tensor("t", FLOAT, (2,), None, (1.0, value)), reader) == what
        bits = int(np.float16(value).view(np.uint16))
        assert what_is_no_number(Tensor("t", FLOAT16, (2,), None, (0, bits)), reader) == what
    assert what_is_no_number(Tensor("t", FLOAT, (2,), None, (3.4e38, -1e-45)), reader) is None
    assert what_is_no_number(Tensor("t", FLOAT, (0,), None, ()), reader) is None
