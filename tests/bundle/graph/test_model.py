"""Graphs are read as onnx reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.graph.model import Tensor, read_model
from edge_ad.bundle.graph.wire import InMemory
from edge_ad.errors import BundleError

DISC = Path(__file__).resolve().parents[3] / "edge_ad" / "demo" / "disc.edgead"
Names = st.text("abc/.:_", min_size=1, max_size=8)


def tensor_of(value: TensorProto) -> Any:
    """What the reader has to find in a tensor."""
    return value.name, value.data_type, tuple(value.dims)


def attribute_of(value: onnx.AttributeProto) -> Any:
    found = helper.get_attribute_value(value)
    if isinstance(found, TensorProto):
        return tensor_of(found)
    return tuple(found) if isinstance(found, (list, tuple)) or hasattr(found, "extend") else found


def plain(value: Any) -> Any:
    return (value.name, value.dtype, value.shape) if isinstance(value, Tensor) else value


def assert_read_alike(data: bytes) -> None:
    model, reader = read_model(InMemory(data))
    wanted = onnx.load_model_from_string(data)
    assert model.opset == wanted.opset_import[0].version and model.ir_version == wanted.ir_version
    assert len(model.nodes) == len(wanted.graph.node)
    for node, other in zip(model.nodes, wanted.graph.node, strict=True):
        assert (node.name, node.operator) == (other.name, other.op_type)
        assert (list(node.inputs), list(node.outputs)) == (list(other.input), list(other.output))
        assert {k: plain(v) for k, v in node.attributes.items()} == {a.name: attribute_of(a) for a in other.attribute}
    assert [plain(tensor) for tensor in model.initializers] == [tensor_of(t) for t in wanted.graph.initializer]
    for tensor, stored in zip(model.initializers, wanted.graph.initializer, strict=True):
        value = numpy_helper.to_array(stored)
        if tensor.raw is not None:
            assert reader.bytes_of(tensor.raw) == value.tobytes()
        elif tensor.dtype != TensorProto.FLOAT16:
            assert np.array_equal(np.array(tensor.numbers).reshape(tensor.shape).astype(value.dtype), value)
    for values, others in ((model.inputs, wanted.graph.input), (model.outputs, wanted.graph.output)):
        assert [value.name for value in values] == [other.name for other in others]
        for value, other in zip(values, others, strict=True):
            dims = other.type.tensor_type.shape.dim
            assert value.shape == tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)


def test_the_demonstration_and_all_precisions_are_read_alike(three_precisions: Path) -> None:
    assert_read_alike((DISC / "model.onnx").read_bytes())
    for name in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        assert_read_alike((three_precisions / name).read_bytes())


def test_all_precisions_are_clean(three_precisions: Path) -> None:
    bundle = Bundle.read(three_precisions)
    facts = {precision: bundle.examine_graph(precision) for precision in bundle.manifest.models}
    assert facts["int8"].operators["QuantizeLinear"] > 0
    assert facts["fp16"].operators["Cast"] > facts["fp32"].operators["Cast"]
    stored = onnx.load(three_precisions / "model.onnx").graph.initializer
    assert facts["fp32"].weights_bytes == sum(numpy_helper.to_array(tensor).nbytes for tensor in stored)


_attributes = st.dictionaries(
    Names,
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
        st.binary(min_size=1, max_size=20),
    ),
    max_size=4,
)
_nodes = st.builds(
    lambda kind, inputs, outputs, name, attributes: helper.make_node(kind, inputs, outputs, name, **attributes),
    Names,
    st.lists(Names, max_size=4),
    st.lists(Names, min_size=1, max_size=3),
    Names,
    _attributes.map(lambda given: {key: value for key, value in given.items() if key not in ("name", "domain")}),
)
_types = st.sampled_from([np.float32, np.float16, np.int64, np.int32, np.int8, np.uint8])
_tensors = st.builds(
    lambda shape, dtype, name, raw: (
        numpy_helper.from_array(np.arange(np.prod(shape)).reshape(shape).astype(dtype), name)
        if raw
        else helper.make_tensor(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape, np.arange(np.prod(shape)).astype(dtype)
        )
    ),
    st.lists(st.integers(1, 9), max_size=4),
    _types,
    Names,
    st.booleans(),
)


@st.composite
def models(draw: st.DrawFn) -> bytes:
    ends = [helper.make_tensor_value_info(draw(Names), TensorProto.FLOAT, [1, "N", None, 3]) for _ in range(2)]
    nodes, tensors = draw(st.lists(_nodes, max_size=5)), draw(st.lists(_tensors, max_size=4))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@given(models())
@settings(max_examples=150, deadline=None)
def test_any_model_of_onnx_is_read_alike(data: bytes) -> None:
    assert_read_alike(data)


@pytest.fixture(scope="module")
def contract() -> GraphContract:
    return Bundle.read(DISC).graph_contract


KINDS = st.sampled_from(["flip", "cut", "insert", "double", "set"])
CHANGES = st.lists(st.tuples(KINDS, st.integers(0, 10**9), st.binary(max_size=12)), min_size=1, max_size=6)


def mutated(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, other in changes:
        at = place % max(len(data), 1)
        if kind == "flip":
            data = data[:at] + bytes([data[at] ^ (1 << place % 8)]) + data[at + 1 :] if data else data
        elif kind == "cut":
            data = data[:at] + data[at + len(other) :]
        elif kind == "double":
            data = data[:at] + data[at : at + 40] + data[at:]
        else:
            data = data[:at] + other + (data[at:] if kind == "insert" else data[at + len(other) :])
    return data


def refusal(data: bytes, contract: GraphContract) -> str | None:
    """Why a graph is refused; None when it is not."""
    try:
        checked_graph(data, contract)
    except BundleError as exc:
        return str(exc)
    return None


@given(changes=CHANGES)
@settings(max_examples=400, deadline=None)
def test_any_change_is_let_through_or_refused(micro_graph: bytes, micro: GraphContract, changes: Any) -> None:
    """Nothing but a BundleError comes out, of one printable line."""
    said = refusal(mutated(micro_graph, changes), micro)
    assert said is None or (said.isprintable() and len(said) < 1000)


@given(data=st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused(contract: GraphContract, data: bytes) -> None:
    with pytest.raises(BundleError):
        checked_graph(data, contract)
