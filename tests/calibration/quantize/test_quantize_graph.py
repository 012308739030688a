"""Graphs as the passes see them: own parameters, unique names, the float tail, and the same outputs as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_ad.calibration.quantize.graph import Graph
from edge_ad.errors import ExportError


def same(run: Any, before: bytes, after: bytes, images: np.ndarray) -> bool:
    pairs = zip(run(before, images), run(after, images), strict=True)
    return all(np.array_equal(first, second) for first, second in pairs)


def two_layers(small_net: Any) -> tuple[Any, str]:
    """Two equal 1×1 convolutions in a row and a head: a net, and its output."""
    net = small_net(seed=1)
    first = net.conv(net.pixels, 4)
    second = net.conv(net.op("Relu", first), 4)
    third = net.conv(net.op("Relu", second), 4)
    return net, net.conv(third, 1)


def with_shared_weights(net: Any) -> None:
    """The third convolution takes the weights and the bias of the second one."""
    convolutions = [node for node in net.nodes if node.op_type == "Conv"]
    convolutions[2].input[1:] = convolutions[1].input[1:]


def with_identities(net: Any) -> None:
    convolutions = [node for node in net.nodes if node.op_type == "Conv"]
    for index, kind in ((1, "weight"), (2, "bias")):
        first = helper.make_node("Identity", [convolutions[1].input[index]], [f"same_{kind}"])
        again = helper.make_node("Identity", [f"same_{kind}"], [f"again_{kind}"])
        net.nodes[:0] = [first, again]
        convolutions[2].input[index] = f"again_{kind}"


def with_constant_nodes(net: Any) -> None:
    convolutions = [node for node in net.nodes if node.op_type == "Conv"]
    for index in (1, 2):
        name = convolutions[2].input[index]
        value = numpy_helper.from_array(net.constants.pop(name))
        net.nodes.insert(0, helper.make_node("Constant", [], [name], value=value))


@pytest.mark.parametrize("change", [with_shared_weights, with_identities, with_constant_nodes, lambda net: None])
def test_every_convolution_has_constants_of_its_own(small_net: Any, run: Any, pictures: Any, change: Any) -> None:
    net, output = two_layers(small_net)
    change(net)
    data = net.data(output)
    graph = Graph.parse(data)
    assert same(run, data, graph.serialized(), pictures(3))
    assert not {node.op_type for node in graph.model.graph.node} & {"Identity", "Constant"}
    parameters = [name for layer in graph.convolutions for name in (layer.weight, layer.bias)]
    assert len(parameters) == len(set(parameters)) == 8
    assert all(graph.is_constant(name) for name in parameters)
    untouched = {layer.name: graph.constant(layer.weight) for layer in graph.convolutions}
    changed = graph.convolutions[1]
    graph.replace(changed.weight, 2 * graph.constant(changed.weight))
    for layer in graph.convolutions:
        factor = 2 if layer.name == changed.name else 1
        np.testing.assert_array_equal(graph.constant(layer.weight), factor * untouched[layer.name])
    assert not same(run, data, graph.serialized(), pictures(3))


def test_a_constant_that_others_read_too_is_not_changed_with_the_layer(small_net: Any, run: Any, pictures: Any) -> None:
    """A bias (C,) that a Mul of the same graph reads as well, behind the convolution, and one of two additions."""
    net = small_net((4, 4), seed=2)
    first = net.conv(net.pixels, 4)
    bias = net.nodes[-1].input[2]
    scaled = net.op("Mul", net.op("Relu", first), bias)  # broadcast along the columns
    offset = net.constant(np.linspace(-1, 1, 4).reshape(4, 1, 1))
    once = net.op("Add", net.conv(scaled, 4), offset)
    twice = net.op("Add", net.conv(once, 4), offset)
    data = net.data(net.conv(twice, 1))
    graph = Graph.parse(data)
    assert same(run, data, graph.serialized(), pictures(2, (4, 4)))
    nodes = graph.model.graph.node
    additions = [node.input[1] for node in nodes if node.op_type == "Add"]
    assert len(set(additions)) == 2
    factor = next(node.input[1] for node in nodes if node.op_type == "Mul" and node.input[0] != "tensor1")
    before = graph.constant(factor)
    graph.add_to_bias(graph.convolutions[0], np.ones(4))
    np.testing.assert_array_equal(graph.constant(factor), before)


@pytest.mark.parametrize("given", ["", "same"])
def test_nodes_get_names_that_are_unique(small_net: Any, run: Any, pictures: Any, given: str) -> None:
    net, output = two_layers(small_net)
    for node in net.nodes:
        node.name = given
    net.nodes[-1].name = "Conv_3"  # what the unnamed node at that place would be called
    data = net.data(output)
    graph = Graph.parse(data)
    names = [node.name for node in graph.model.graph.node]
    assert len(set(names)) == len(names) and all(names)
    assert names[-1] == "Conv_3"
    onnxruntime_takes_it = not given  # it refuses equal names
    assert not onnxruntime_takes_it or same(run, data, graph.serialized(), pictures(2))
    assert [node.name for node in graph.copy().model.graph.node] == names


def test_layers_leave_out_the_last_convolution(small_net: Any) -> None:
    net, output = two_layers(small_net)
    net.op("Sigmoid", output, out="probability")
    graph = Graph.parse(net.data("probability"))
    assert len(graph.convolutions) == 4
    assert [layer.output for layer in graph.layers] == [layer.output for layer in graph.convolutions[:3]]


def test_layers_leave_out_the_last_convolution_of_each_of_two_heads(small_net: Any) -> None:
    net = small_net((16, 16))
    trunk = net.op("Relu", net.conv(net.pixels, 4, out="trunk"))
    near = net.conv(net.op("Relu", net.conv(trunk, 4, out="near")), 1, out="near_tail")
    deep = net.conv(trunk, 4, 3, pads=1, strides=2, out="deep")
    far = net.conv(net.op("Relu", deep), 1, out="far_tail")
    net.op("Sigmoid", near, out="patch_map")
    scale = net.constant(np.float32([1, 1, 2, 2]))
    whole = net.op("Resize", far, "", scale, mode="linear", coordinate_transformation_mode="half_pixel")
    summed = net.op("Add", whole, near)
    net.op("Sigmoid", summed, out="anomaly_map")
    graph = Graph.parse(net.data("patch_map", "anomaly_map"))
    assert [layer.output for layer in graph.layers] == ["trunk", "near", "deep"]
    assert {layer.output for layer in graph.convolutions} >= {"near_tail", "far_tail"}


def test_a_convolution_that_is_an_output_and_goes_on_is_no_layer(small_net: Any) -> None:
    net = small_net()
    first = net.conv(net.pixels, 4, out="first")
    second = net.conv(net.conv(first, 4, out="second"), 1)
    assert [layer.output for layer in Graph.parse(net.data("first", second)).layers] == ["second"]


def test_bias_is_added_and_made_where_there_is_none(small_net: Any, run: Any, pictures: Any) -> None:
    net = small_net()
    plain = net.conv(net.pixels, 4, bias=False)
    biased = net.conv(plain, 4)
    empty = net.conv(biased, 4, bias=False)
    net.nodes[-1].input.append("")  # an optional input may be named by nothing
    net.constant(np.zeros(1), f"{net.nodes[-3].name}.bias")  # a name that the new bias would like to have
    data = net.data(net.op("Identity", empty, out="end"))
    graph = Graph.parse(data)
    difference = np.array([1.0, -2.0, 0.5, 0.25])
    wanted = []
    for layer in graph.convolutions:
        one = Graph.parse(data)
        one.add_to_bias(layer, difference)
        one.add_to_bias(layer, difference)  # a description from before the bias was made serves as well
        onnx.checker.check_model(one.model)
        names = [tensor.name for tensor in one.model.graph.initializer]
        assert len(names) == len(set(names))
        before = run(data, pictures(2), [layer.output])[0]
        after = run(one.serialized(), pictures(2), [layer.output])[0]
        wanted.append(after - before - 2 * difference[:, None, None])
    assert len(wanted) == 3
    np.testing.assert_allclose(wanted, 0, atol=2e-6)


def test_geometry_is_read_as_onnx_defines_it(small_net: Any) -> None:
    net = small_net((16, 16))
    tensor = net.conv(net.pixels, 6, 3, pads=1, strides=2, dilations=2, groups=3, bias=False)
    net.nodes[-1].attribute.remove(next(a for a in net.nodes[-1].attribute if a.name == "pads"))
    net.nodes[-1].attribute.append(helper.make_attribute("pads", [0, 1, 2, 3]))
    plain = net.op("Conv", tensor, net.constant(np.ones((2, 6, 1, 1))), channels=2)
    first, second = Graph.parse(net.data(plain)).convolutions
    assert (first.groups, first.strides, first.pads, first.dilations) == (3, (2, 2), (0, 1, 2, 3), (2, 2))
    assert first.is_padded and first.bias is None
    assert (second.groups, second.strides, second.pads, second.dilations) == (1, (1, 1), (0, 0, 0, 0), (1, 1))
    assert not second.is_padded


def test_a_convolution_that_pads_by_itself_is_left_alone(small_net: Any) -> None:
    """Its padding depends on the size of the image: nobody may take it for an unpadded one."""
    net = small_net()
    weight = net.constant(np.ones((4, 3, 3, 3)))
    own = net.op("Conv", net.pixels, weight, channels=4, auto_pad="SAME_UPPER")
    valid = net.op("Conv", own, net.constant(np.ones((4, 4, 3, 3))), channels=4, auto_pad="VALID")
    graph = Graph.parse(net.data(net.conv(valid, 1)))
    assert [layer.source for layer in graph.layers] == [own]


def test_copies_are_independent_and_unused_constants_go(small_net: Any) -> None:
    net, output = two_layers(small_net)
    net.constant(np.ones(7), "unused")
    graph = Graph.parse(net.data(output))
    before = graph.serialized()
    copy = graph.copy()
    assert copy.serialized() == before
    copy.replace(copy.convolutions[0].weight, np.zeros((4, 3, 1, 1)))
    copy.drop_unused_constants()
    assert graph.serialized() == before
    assert graph.is_constant("unused") and not copy.is_constant("unused")
    names = {tensor.name for tensor in copy.model.graph.initializer}
    assert names == {name for node in copy.model.graph.node for name in node.input} & names


def test_small_bundle_computes_the_same_after_reading(tiny_bundle: Any, mobilenet_float: bytes, run: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for data in ((tiny_bundle / "model.onnx").read_bytes(), mobilenet_float):
        graph = Graph.parse(data)
        assert same(run, data, graph.serialized(), images)
        assert len(graph.layers) == len(graph.convolutions) - 1


def test_what_is_no_onnx_is_one_line() -> None:
    with pytest.raises(ExportError, match="cannot be read as ONNX") as exc:
        Graph.parse(b"\xff\xff not a graph")
    assert "\n" not in str(exc.value)
