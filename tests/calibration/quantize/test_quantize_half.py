"""float16 in the file: where it begins and ends, and what it computes, against NumPy's float16."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.half import with_half
from edge_ad.errors import ExportError

BUNDLE_SIZE = (64, 64)


def element_types(data: bytes) -> dict[str, int]:
    """Type of every tensor, by ONNX's own inference."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data), strict_mode=True, data_prop=True)
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def float_graphs(tiny_bundle: Any, mobilenet_float: bytes) -> dict[str, bytes]:
    return {"resnet18": (tiny_bundle / "model.onnx").read_bytes(), "mobilenet": mobilenet_float}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet"])
def test_float16_from_the_first_layer_to_the_last(float_graphs: dict[str, bytes], name: str) -> None:
    graph = Graph.parse(float_graphs[name])
    data = with_half(graph)
    model = onnx.load_model_from_string(data)
    types = element_types(data)
    names = {layer.name for layer in graph.layers}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == len(names) + 1
    for node in convolutions:
        wanted = TensorProto.FLOAT16 if node.name in names else TensorProto.FLOAT
        assert {types[each] for each in (*node.input, *node.output)} == {wanted}, node.name
    first = next(index for index, node in enumerate(model.graph.node) if node.op_type == "Conv")
    last = max(index for index, node in enumerate(model.graph.node) if node.op_type == "Conv")
    before = [node for node in model.graph.node[: first - 1] if node.op_type != "Cast"]
    behind = list(model.graph.node[last:])
    for node in (*before, *behind):
        assert TensorProto.FLOAT16 not in {types.get(each) for each in (*node.input, *node.output) if each}
    between = [
        node for node in model.graph.node[first : last - 1] if node.op_type in ("Relu", "Clip", "Add", "LeakyRelu")
    ]
    assert len(between) > 10
    for node in between:
        assert {types[each] for each in (*node.input, *node.output) if each} == {TensorProto.FLOAT16}, node.name
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.name.endswith(".cast")]
    assert len(casts) == 2, "in and out once, and nowhere back and forth"


@pytest.mark.parametrize("name", ["resnet18", "mobilenet"])
def test_contract_and_sizes_are_kept(float_graphs: dict[str, bytes], run: Any, pictures: Any, name: str) -> None:
    from edge_ad.bundle.specs import contract
    from edge_ad.export.onnx_graph import check_contract

    graph = Graph.parse(float_graphs[name])
    data = with_half(graph)
    images = pictures(3, BUNDLE_SIZE)
    wanted, got = run(float_graphs[name], images), run(data, images)
    model = onnx.load_model_from_string(data)
    check_contract(model, *contract(*BUNDLE_SIZE, wanted[0].shape[1:], None), 17)
    assert [value.shape for value in got] == [value.shape for value in wanted]
    assert {value.dtype for value in got} == {np.dtype(np.float32)}
    types = element_types(data)
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    assert resizes
    for node in resizes:
        assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT16
        assert types[node.input[3]] == TensorProto.INT64


@pytest.mark.parametrize("name", ["resnet18", "mobilenet"])
def test_maps_are_near_those_of_float(float_graphs: dict[str, bytes], run: Any, pictures: Any, name: str) -> None:
    """Half precision has 11 bits: 5e-4 of a value at each of some dozen roundings. Measured: 1.4e-4 in probability."""
    images = pictures(6, BUNDLE_SIZE)
    wanted, got = run(float_graphs[name], images), run(with_half(Graph.parse(float_graphs[name])), images)
    for one, other in zip(got, wanted, strict=True):
        assert np.abs(one - other).max() < 1e-3
    assert not np.array_equal(got[0], wanted[0])


@pytest.mark.parametrize("chosen", [slice(0, 1), slice(2, 5), slice(-1, None), slice(None)], ids=str)
def test_float_layers_stay_float32(float_graphs: dict[str, bytes], run: Any, pictures: Any, chosen: slice) -> None:
    graph = Graph.parse(float_graphs["mobilenet"])
    layers = [layer.name for layer in graph.layers]
    data = with_half(graph, layers[chosen])
    types = element_types(data)
    stored = {tensor.name: tensor for tensor in onnx.load_model_from_string(data).graph.initializer}
    for node in onnx.load_model_from_string(data).graph.node:
        if node.name in layers:
            wanted = TensorProto.FLOAT if node.name in layers[chosen] else TensorProto.FLOAT16
            assert {types[each] for each in (*node.input, *node.output)} == {wanted}
            if wanted == TensorProto.FLOAT:
                layer = next(each for each in graph.layers if each.name == node.name)
                weight = numpy_helper.to_array(stored[node.input[1]])
                np.testing.assert_array_equal(weight, graph.constant(layer.weight).astype(np.float32))
    images = pictures(2, BUNDLE_SIZE)
    pairs = zip(run(data, images), run(graph.serialized(), images), strict=True)
    differences = [np.abs(one - other).max() for one, other in pairs]
    assert max(differences) == 0 if layers[chosen] == layers else 0 < max(differences) < 1e-3


def test_it_is_what_numpy_computes_in_float16(small_net: Any, run: Any, pictures: Any, convolve: Any) -> None:
    """Weights and activations rounded to float16 at each layer, sums in float64; engines sum in float32 or float16.

    A result may round to the next float16 for that, 2⁻¹⁰ of it: tolerance 4e-3 of the largest for three roundings.
    """
    net = small_net((10, 10), seed=12)
    active = net.op("Relu", net.conv(net.pixels, 6, 3, pads=1, out="first"))
    shifted = net.op("Add", active, net.constant(np.linspace(-1, 1, 6).reshape(6, 1, 1), "offset"))
    second = net.op("LeakyRelu", net.conv(shifted, 6, 3, pads=1, out="second"), out="read", alpha=0.2)
    data = net.data(net.conv(second, 2, out="end"))
    images = pictures(4, (10, 10))
    graph = Graph.parse(data)
    layers = {layer.output: layer for layer in graph.convolutions}

    def half(value: np.ndarray) -> np.ndarray:
        return value.astype(np.float16).astype(np.float64)

    def layer(output: str, source: np.ndarray, rounded: Any) -> np.ndarray:
        each = layers[output]
        weight, bias = rounded(graph.constant(each.weight)), rounded(graph.constant(each.bias or ""))
        return np.stack([rounded(convolve(one, weight, bias, each)).reshape(-1, 10, 10) for one in source])

    def forward(rounded: Any) -> np.ndarray:
        pixels = rounded(images.transpose(0, 3, 1, 2).astype(np.float64) / 255)
        active = np.maximum(layer("first", pixels, rounded), 0)
        shifted = rounded(active + rounded(graph.constant("offset")))
        value = layer("second", shifted, rounded)
        return layer("end", rounded(np.where(value > 0, value, 0.2 * value)), lambda x: x)

    wanted, exact = forward(half), forward(lambda x: x)
    got = run(with_half(graph), images)[0]
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, atol=4e-3 * scale)
    np.testing.assert_allclose(run(data, images)[0], exact, atol=1e-5 * scale)
    assert np.abs(wanted - exact).max() > 1e-4 * scale


def test_sizes_axes_and_bounds_that_are_integers_stay_integers(small_net: Any, run: Any, pictures: Any) -> None:
    """Operators with inputs that are no data, between two layers."""
    net = small_net((8, 8), seed=13)
    tensor = net.conv(net.pixels, 4)
    padded = net.op(
        "Pad", tensor, net.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), net.constant(np.float32(0.5))
    )
    ends = [net.constant(np.array([value])) for value in (1, 9, 2)]
    cut = net.op("Slice", padded, *ends)
    flat = net.op("Unsqueeze", cut, net.constant(np.array([0])))
    back = net.op("Squeeze", flat, net.constant(np.array([0])))
    bounded = net.clip(back, -1, 1)
    scales = net.constant(np.float32([1, 1, 2, 2]))
    large = net.op("Resize", bounded, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
    data = net.data(net.conv(net.conv(large, 4), 2))
    images = pictures(2)
    half = with_half(Graph.parse(data))
    types = element_types(half)
    assert types[bounded] == types[large] == TensorProto.FLOAT16
    wanted = run(data, images)[0]
    np.testing.assert_allclose(run(half, images)[0], wanted, atol=4e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("what", ["weight", "bias"])
def test_a_constant_that_is_too_large_names_its_reader(small_net: Any, what: str) -> None:
    net = small_net()
    for value, fits in ((65504.0, True), (70000.0, False)):
        net = small_net()
        end = net.conv(net.conv(net.pixels, 4, out="large"), 1)
        node = next(node for node in net.nodes if node.output[0] == "large")
        net.constants[node.input[1 if what == "weight" else 2]].flat[1] = -value
        graph = Graph.parse(net.data(end))
        if fits:
            with_half(graph)
        else:
            with pytest.raises(ExportError, match=r"Conv_of_large has a constant of 7e\+04.*use int8"):
                with_half(graph)
            with_half(graph, [node.name])


def test_the_float_graph_stays_as_it_is(float_graphs: dict[str, bytes]) -> None:
    graph = Graph.parse(float_graphs["resnet18"])
    before = graph.serialized()
    assert with_half(graph) == with_half(graph) != before
    assert graph.serialized() == before
    assert len(with_half(graph)) < 0.6 * len(before)
