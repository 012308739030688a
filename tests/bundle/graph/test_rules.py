"""What the rules work out is what an engine gives: shapes, whole numbers, and which positions there can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.check import Examination
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.graph.known import Batch, Known, RuleError, followed
from edge_ad.bundle.graph.model import FLOAT, FLOAT16, INT32, INT64, Node, read_model
from edge_ad.bundle.graph.operators import COMMON, KNOWN, RULES
from edge_ad.bundle.graph.wire import InMemory
from edge_ad.bundle.specs import TensorSpec
from edge_ad.models import FAMILIES, model_family

TYPES = {FLOAT: np.float32, FLOAT16: np.float16, INT64: np.int64, INT32: np.int32}


def run(nodes: Sequence[NodeProto], constants: dict[str, Any], x: Any, outputs: Sequence[str]) -> list[Any]:
    """What ONNX Runtime makes of `x`. Raises: an exception of its own where it refuses."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(list(outputs), {"x": x})
    return found


def worked_out(node: NodeProto, constants: dict[str, Any], x: Any) -> list[Known]:
    """What the rule says. Raises: RuleError."""
    attributes = {
        entry.name: tuple(value) if isinstance(value := helper.get_attribute_value(entry), list) else value
        for entry in node.attribute
    }
    ours = Node(node.name, node.op_type, tuple(node.input), tuple(node.output), attributes)
    codes = {np.dtype(kind): code for code, kind in TYPES.items()}
    known: dict[str, Known | None] = {"": None, "x": Known(codes[x.dtype], x.shape)}
    for name, value in constants.items():
        array = np.asarray(value)
        known[name] = (
            followed(codes[array.dtype], array.astype(object))
            if array.size <= 64
            else Known(codes[array.dtype], array.shape, constant=True)
        )
    inputs = [known[name] for name in node.input]
    return RULES[node.op_type].apply(ours, inputs)


def compare(node: NodeProto, constants: dict[str, Any], x: Any) -> bool:
    """Whether the rule lets it through; if so, ONNX Runtime gives what the rule says."""
    try:
        expected = worked_out(node, constants, x)
    except RuleError:
        return False
    for known, value in zip(expected, run([node], constants, x, node.output), strict=True):
        assert known.shape == value.shape and TYPES[known.dtype] == value.dtype
        if known.span is not None:
            assert known.span[0] <= value.min() and value.max() <= known.span[1]
        if known.elements is not None:
            assert all(said is None or said == is_ for said, is_ in zip(known.elements.flat, value.flat, strict=True))
    return True


def pictures(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def node(kind: str, inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("y",), **attributes: Any) -> NodeProto:
    return helper.make_node(kind, list(inputs), list(outputs), "n", **attributes)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


small = st.integers(-1, 4)
FIXED = settings(max_examples=60, deadline=None)


@given(st.data())
@FIXED
def test_convolutions(data: st.DataObject) -> None:
    channels, group, factor = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)))
    kernel = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=2))
    weights = np.ones((group * factor, channels, *kernel), np.float32)
    attributes = {
        "group": group,
        "strides": data.draw(st.lists(small, min_size=2, max_size=2)),
        "dilations": data.draw(st.lists(small, min_size=2, max_size=2)),
        "pads": data.draw(st.lists(small, min_size=4, max_size=4)),
    }
    compare(node("Conv", ("x", "w"), **attributes), {"w": weights}, pictures(2, channels * group, 9, 7))


@given(st.data())
@FIXED
def test_pooling(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["MaxPool", "AveragePool"]))
    attributes = {
        "kernel_shape": data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=2)),
        "strides": data.draw(st.lists(small, min_size=2, max_size=2)),
        "pads": data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)),
        "ceil_mode": data.draw(st.integers(0, 1)),
    }
    assume(all(pad < attributes["kernel_shape"][axis % 2] for axis, pad in enumerate(attributes["pads"])))
    compare(node(kind, **attributes), {}, pictures(2, 3, 9, 10))


@given(st.data())
@FIXED
def test_slices(data: st.DataObject) -> None:
    end = st.one_of(st.integers(-8, 12), st.sampled_from([2**63 - 1, -(2**63) + 1]))
    axes = data.draw(st.lists(st.integers(-3, 2), min_size=1, max_size=2))
    draw = [ints(*(data.draw(kind) for _ in axes)) for kind in (st.integers(-8, 8), end, st.integers(-3, 3))]
    constants = dict(zip(("starts", "ends", "steps"), draw, strict=True)) | {"axes": ints(*axes)}
    sliced = node("Slice", ("x", "starts", "ends", "axes", "steps"))
    compare(sliced, constants, np.arange(60).reshape(3, 4, 5))
    compare(sliced, constants, pictures(3, 4, 5))


@given(st.lists(st.integers(-2, 12), min_size=1, max_size=4))
@FIXED
def test_new_shapes(shape: list[int]) -> None:
    compare(node("Reshape", ("x", "shape")), {"shape": ints(*shape)}, np.arange(24).reshape(2, 3, 4))


@given(st.permutations([0, 1, 2]), st.lists(st.integers(-5, 5), min_size=1, max_size=3))
@FIXED
def test_axes(order: list[int], axes: list[int]) -> None:
    compare(node("Transpose", perm=order), {}, np.arange(24).reshape(2, 3, 4))
    compare(node("Unsqueeze", ("x", "axes")), {"axes": ints(*axes)}, np.arange(24).reshape(2, 3, 4))
    compare(node("Squeeze", ("x", "axes")), {"axes": ints(*axes)}, np.arange(6).reshape(1, 3, 1, 2))
    for kind in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceL2"):
        compare(node(kind, axes=axes, keepdims=axes[0] % 2), {}, pictures(2, 3, 4))
    compare(node("ReduceSum", ("x", "axes"), keepdims=0), {"axes": ints(*axes)}, pictures(2, 3, 4))
    compare(node("Softmax", axis=axes[0]), {}, pictures(2, 3, 4))
    compare(node("CumSum", ("x", "axis")), {"axis": np.int64(axes[0])}, pictures(2, 3, 4))
    for kind in ("ArgMax", "ArgMin"):
        compare(node(kind, axis=axes[0], keepdims=0), {}, pictures(2, 3, 4))


@given(st.integers(-3, 3), st.integers(-2, 6))
@FIXED
def test_choices_and_parts(axis: int, count: int) -> None:
    top = node("TopK", ("x", "k"), ("values", "places"), axis=axis)
    compare(top, {"k": ints(count)}, pictures(2, 3, 4))
    parts = node("Split", ("x", "parts"), ("a", "b"), axis=axis)
    compare(parts, {"parts": ints(count, 4 - count)}, np.arange(64).reshape(4, 4, 4))
    compare(node("Split", ("x",), ("a", "b"), axis=axis), {}, pictures(4, 4, 4))
    compare(node("Concat", ("x", "c"), axis=axis), {"c": np.arange(8).reshape(2, 1, 4)}, np.arange(24).reshape(2, 3, 4))


@given(st.integers(-3, 3), st.lists(st.integers(-4, 5), min_size=1, max_size=4))
@FIXED
def test_gathering(axis: int, indices: list[int]) -> None:
    gather = node("Gather", ("x", "i"), axis=axis)
    compare(gather, {"i": ints(*indices)}, np.arange(24).reshape(2, 3, 4))
    compare(gather, {"i": np.int64(indices[0])}, np.arange(24).reshape(2, 3, 4))


@given(st.integers(-3, 3), st.integers(-1, 5), st.booleans())
@FIXED
def test_gathering_element_by_element(axis: int, most: int, aligned: bool) -> None:
    shape = [2, 3, 4]
    shape[axis % 3] = 2
    indices = np.random.default_rng(0).integers(0, max(most, 0) + 1, shape if aligned else [2, 2, 2])
    indices.flat[0] = most
    elements = node("GatherElements", ("x", "i"), axis=axis)
    assert compare(elements, {"i": indices}, pictures(2, 3, 4)) == (
        -3 <= axis < 3 and 0 <= most < (2, 3, 4)[axis] and list(indices.shape) == shape
    )


def test_a_place_that_was_chosen_may_be_spread_and_gathered() -> None:
    """From ArgMax through a sum with zeros, as the export of PatchCore writes it; another sum leaves the axis."""
    x = pictures(2, 3, 8, 8).reshape(2, 3, 64)
    for added, allowed in ((0, True), (1, False)):
        known = worked_out(node("ArgMax", axis=2), {}, x)[0]
        every = followed(INT64, np.full((1, 3, 1), added, object))
        spread = RULES["Add"].apply(Node("n", "Add", ("a", "b"), ("y",), {}), [known, every])[0]
        assert spread.span == (added, 63 + added)
        gather = Node("n", "GatherElements", ("x", "y"), ("z",), {"axis": 2})
        source = Known(FLOAT, (2, 3, 64))
        if allowed:
            assert RULES["GatherElements"].apply(gather, [source, spread])[0].shape == (2, 3, 1)
        else:
            with pytest.raises(RuleError, match="1 to 64, wanted some of an axis of 64"):
                RULES["GatherElements"].apply(gather, [source, spread])
    largest = Known(INT64, (1,), span=(2**62, 2**62), constant=True)
    huge = RULES["Add"].apply(Node("n", "Add", ("a", "b"), ("y",), {}), [largest, largest])[0]
    assert huge.span is None, "a sum that does not fit its type is not known"


two_scales = st.lists(st.floats(0.125, 4, width=32), min_size=2, max_size=2)


@given(two_scales, st.lists(st.integers(0, 20), min_size=2, max_size=2))
@FIXED
def test_resizing(scales: list[float], sizes: list[int]) -> None:
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    by_scale = node("Resize", ("x", "", "scales"), **attributes)
    compare(by_scale, {"scales": np.array([1, 1, *scales], np.float32)}, pictures(2, 3, 5, 7))
    by_size = node("Resize", ("x", "", "", "sizes"), **attributes)
    compare(by_size, {"sizes": ints(2, 3, *sizes)}, pictures(2, 3, 5, 7))


@given(st.lists(st.integers(-1, 5), min_size=6, max_size=6), st.sampled_from(["constant", "reflect", "edge"]))
@FIXED
def test_padding(pads: list[int], mode: str) -> None:
    compare(node("Pad", ("x", "pads"), mode=mode), {"pads": ints(*pads)}, pictures(2, 3, 4))


@given(st.sampled_from(["Add", "Sub", "Mul", "Div", "Mod"]), st.data())
@FIXED
def test_whole_numbers_are_computed_alike(kind: str, data: st.DataObject) -> None:
    numbers = st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3)
    first, second = (ints(*data.draw(numbers)) for _ in range(2))
    constants = {"a": first, "b": second}
    try:
        expected = worked_out(node(kind, ("a", "b")), constants, pictures(1))
    except RuleError:
        assert kind in ("Div", "Mod") and second.min() < 1
        return
    (value,) = run([node(kind, ("a", "b"))], constants, pictures(1), ["y"])
    assert expected[0].elements is not None
    for said, is_ in zip(expected[0].elements, value, strict=True):
        assert said is None or said == is_


def test_a_rule_that_refuses_everything_would_be_seen() -> None:
    """The comparisons above say nothing of what is refused."""
    constants = {
        "w": np.ones((2, 3, 3, 3), np.float32),
        "shape": ints(2, -1),
        "i": ints(0, -1),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "pads": ints(0, 0, 1, 1, 0, 0, 1, 1),
        "k": ints(2),
    }
    for one in (
        node("Conv", ("x", "w"), pads=[1, 1, 1, 1], strides=[2, 2]),
        node("MaxPool", kernel_shape=[2, 2], ceil_mode=1),
        node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool"),
        node("Reshape", ("x", "shape")),
        node("Gather", ("x", "i"), axis=1),
        node("Resize", ("x", "", "scales"), mode="nearest"),
        node("Pad", ("x", "pads")),
        node("TopK", ("x", "k"), ("a", "b")),
        node("ArgMax", axis=2),
        node("Shape"),
        node("MatMul", ("x", "x")),
        node("Cast", to=TensorProto.FLOAT16),
        node("Clip"),
        node("ReduceMax", axes=[1, 2]),
        node("Identity"),
    ):
        assert compare(one, {name: constants[name] for name in one.input if name in constants}, pictures(2, 3, 8, 8))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_operator_of_a_family_has_a_rule(name: str) -> None:
    declared = model_family(name).operators
    assert declared <= KNOWN and declared - RULES.keys() == {"Constant"}
    assert declared >= COMMON, "every graph has a picture before it and a score behind it, and may be quantized"


@pytest.mark.parametrize("name", ["model.onnx", "model.fp16.onnx", "model.int8.onnx"])
def test_every_tensor_of_our_graphs_is_known_beforehand(three_precisions: Path, name: str) -> None:
    """Shapes, whole numbers and spans of all tensors, for a batch that is left open and turns out to be three."""
    bundle = Bundle.read(three_precisions)
    data = bundle.read_file(name)
    assert_all_known(data, bundle.graph_contract)


def assert_all_known(data: bytes, contract: GraphContract) -> None:
    model, reader = read_model(InMemory(data))
    examination = Examination(model, reader, contract, len(data))
    examination.facts()
    written = onnx.load_model_from_string(data)
    names = [name for one in written.graph.node for name in one.output]
    del written.graph.output[:]
    written.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(written.SerializeToString(), options, providers=["CPUExecutionProvider"])
    height, width = (int(size or 0) for size in contract.image.shape[1:3])
    image = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    for name, value in zip(names, session.run(names, {"image": image}), strict=True):
        known = examination.tensors[name]
        assert tuple(size.times * 3 if isinstance(size, Batch) else size for size in known.shape) == value.shape
        if known.elements is not None and known.dtype == INT64:
            said = [size.times * 3 if isinstance(size, Batch) else size for size in known.elements.flat]
            assert None in said or said == list(value.flat)


def test_the_picture_bounds_what_a_graph_may_need(micro_graph: bytes, micro: GraphContract) -> None:
    """The same graph says the same of itself for a fixed batch, times its number of pictures."""
    model, reader = read_model(InMemory(micro_graph))
    facts = Examination(model, reader, micro, len(micro_graph)).facts()
    assert 0 < facts.peak_bytes < 10e6 and 1e6 < facts.multiplications < 1e9
    assert facts.nodes == len(model.nodes)
    other = TensorSpec("image", (None, 65, 64, 3), "uint8")
    with pytest.raises(Exception, match="the manifest has"):
        Examination(model, reader, GraphContract(other, micro.outputs, 17), len(micro_graph)).facts()
