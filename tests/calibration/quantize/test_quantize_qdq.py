"""Explicit Q/DQ: its form, the integers in the file, and what it computes against fake quantization in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_ad.calibration.quantize.calibrate import Calibration, calibrate
from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.lint import qdq_faults
from edge_ad.calibration.quantize.qdq import with_qdq
from edge_ad.errors import ExportError
from edge_ad.openvino_core import openvino_core

BUNDLE_SIZE = (64, 64)


def calibrated(data: bytes, images: np.ndarray) -> Calibration:
    return calibrate(data, lambda _: iter(images), "min-max")[0]


@pytest.fixture(scope="module")
def float_graphs(tiny_bundle: Any, mobilenet_float: bytes) -> dict[str, bytes]:
    return {"resnet18": (tiny_bundle / "model.onnx").read_bytes(), "mobilenet": mobilenet_float}


@pytest.fixture(scope="module")
def calibrations(float_graphs: dict[str, bytes], pictures: Any) -> dict[str, Calibration]:
    images = pictures(8, BUNDLE_SIZE)
    return {name: calibrated(data, images) for name, data in float_graphs.items()}


class Reader:
    """Looks things up in a Q/DQ model."""

    def __init__(self, data: bytes) -> None:
        self.model = onnx.load_model_from_string(data)
        self.nodes = list(self.model.graph.node)
        self.made = {name: node for node in self.nodes for name in node.output}
        self.stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    def of_kind(self, kind: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == kind]

    def pair(self, name: str) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
        """The pair that makes a tensor, if one does."""
        end = self.made.get(name)
        return None if end is None or end.op_type != "DequantizeLinear" else (self.made[end.input[0]], end)

    def dequantized(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """int8 levels of stored weights and what they stand for, computed as the standard says."""
        pair = self.pair(name)
        assert pair is not None
        value, scale = self.stored[pair[0].input[0]], self.stored[pair[0].input[1]]
        shaped = scale.reshape(-1, *[1] * (value.ndim - 1))
        levels = np.clip(np.rint(value / shaped), -128, 127).astype(np.int8)
        return levels, levels.astype(np.float32) * shaped


@pytest.mark.parametrize("name", ["resnet18", "mobilenet"])
def test_the_form_is_the_one_that_is_taken_everywhere(calibrations: dict[str, Calibration], name: str) -> None:
    calibration = calibrations[name]
    data = calibration.build()
    reader = Reader(data)
    assert qdq_faults(reader.model) == []
    convolutions = {node.name: node for node in reader.of_kind("Conv")}
    assert len(convolutions) == len(calibration.layers) + 1
    for node_name, node in convolutions.items():
        quantized = [reader.pair(each) is not None for each in node.input[:2]]
        assert quantized == [node_name in calibration.layers] * 2
        assert len(node.input) < 3 or node.input[2] in reader.stored, "biases stay float"
    assert len(reader.of_kind("QuantizeLinear")) >= 2 * len(calibration.layers)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet"])
def test_weights_in_the_file_are_the_rounded_ones(calibrations: dict[str, Calibration], name: str) -> None:
    """The levels are found again bit by bit: rounding a second time would undo what error feedback has chosen."""
    calibration = calibrations[name]
    reader = Reader(calibration.build())
    convolutions = {node.name: node for node in reader.of_kind("Conv")}
    for layer, rounded in calibration.weights.items():
        levels, value = reader.dequantized(convolutions[layer].input[1])
        np.testing.assert_array_equal(levels, rounded.levels)
        np.testing.assert_array_equal(value, rounded.value)
        pair = reader.pair(convolutions[layer].input[1])
        assert pair is not None
        np.testing.assert_array_equal(reader.stored[pair[0].input[1]], rounded.scale)


def test_the_127th_level_of_an_activation_is_its_range(calibrations: dict[str, Calibration]) -> None:
    calibration = calibrations["mobilenet"]
    reader = Reader(calibration.build())
    sources = {layer.name: layer.source for layer in calibration.graph.layers}
    for node in reader.of_kind("Conv"):
        pair = reader.pair(node.input[0])
        if pair is not None:
            assert pair[0].input[0] == sources[node.name]
            scale = float(reader.stored[pair[0].input[1]])
            assert 127 * scale == pytest.approx(calibration.ranges[sources[node.name]], rel=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet"])
def test_float_layers_read_and_multiply_floats(calibrations: dict[str, Calibration], name: str) -> None:
    calibration = calibrations[name]
    prepared = {layer.name: layer for layer in calibration.graph.layers}
    for chosen in (calibration.layers[:1], calibration.layers[3:6], calibration.layers[1:], calibration.layers[::2]):
        data = calibration.build(chosen)
        reader = Reader(data)
        assert qdq_faults(reader.model) == []
        convolutions = {node.name: node for node in reader.of_kind("Conv")}
        for layer in calibration.layers:
            node = convolutions[layer]
            pairs = [reader.pair(each) is not None for each in node.input[:2]]
            assert pairs == [layer not in chosen] * 2
            if layer in chosen:
                assert node.input[0] == prepared[layer].source
                weight = calibration.graph.constant(prepared[layer].weight)
                np.testing.assert_array_equal(reader.stored[node.input[1]], weight.astype(np.float32))
        read = {each for node in reader.nodes for each in node.input} | {v.name for v in reader.model.graph.output}
        assert all(set(node.output) & read for node in reader.nodes), "something computes what nobody reads"


def test_a_skip_is_read_through_a_pair_and_the_convolution_beside_it_is_not(
    calibrations: dict[str, Calibration],
) -> None:
    """Of every addition inside the backbone; that is what lets an engine add inside of the convolution in int8."""
    reader = Reader(calibrations["resnet18"].build())
    convolved = {node.output[0] for node in reader.of_kind("Conv")}
    additions = [n for n in reader.of_kind("Add") if "trunk" in n.name and not set(n.input) & set(reader.stored)]
    assert len(additions) == 4
    kinds = [
        sorted(("pair" if reader.pair(i) else "conv" if i in convolved else "other") for i in n.input)
        for n in additions
    ]
    assert kinds.count(["conv", "pair"]) >= 3
    assert all("conv" in kind for kind in kinds)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet"])
@pytest.mark.parametrize("float_layers", [slice(0), slice(0, 4), slice(None)])
def test_the_contract_and_the_dynamic_batch_are_kept(
    calibrations: dict[str, Calibration],
    float_graphs: dict[str, bytes],
    run: Any,
    pictures: Any,
    name: str,
    float_layers: slice,
) -> None:
    from edge_ad.bundle.specs import contract
    from edge_ad.export.onnx_graph import check_contract

    images = pictures(3, BUNDLE_SIZE, 1)
    patch_map = run(float_graphs[name], images, ["patch_map"])[0]
    data = calibrations[name].build(calibrations[name].layers[float_layers])
    model = onnx.load_model_from_string(data)
    check_contract(model, *contract(*BUNDLE_SIZE, patch_map.shape[1:], None), 17)
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in (*model.graph.input, *model.graph.output)} == {
        "N"
    }
    together = run(data, images)
    for index, image in enumerate(images):
        for one, every in zip(run(data, image[None]), together, strict=True):
            np.testing.assert_allclose(one[0], every[index], atol=1e-6)


def quantized_values(value: np.ndarray, reach: float) -> np.ndarray:
    step = np.float64(np.float32(reach / 127))
    return np.asarray(np.clip(np.rint(value / step), -127, 127) * step)


def test_the_graph_computes_fake_quantization(small_net: Any, run: Any, pictures: Any, convolve: Any) -> None:
    """Two layers, a sum with a skip, and a float tail in float64. A value on the edge between two levels may fall to
    either side in float32, and is read by 54 of the 3600 of the next layer: at most two do, all others are off by
    1e-5 of the largest.
    """
    net = small_net((10, 10), seed=11)
    first = net.op("Relu", net.conv(net.pixels, 6, 3, pads=1, out="first"), out="active")
    second = net.conv(first, 6, 3, pads=1, out="second")
    read = net.op("Relu", net.op("Add", first, second), out="read")
    third = net.conv(read, 4, out="third")
    data = net.data(net.conv(third, 2, out="end"))
    images = pictures(6, (10, 10))
    calibration = calibrated(data, images)
    got = run(calibration.build(), images, ["second", "end"])

    prepared = calibration.graph
    layers = {layer.output: layer for layer in prepared.convolutions}
    reach = calibration.ranges

    def layer(output: str, source: np.ndarray) -> np.ndarray:
        """(N, C, H, W) → the same for the outputs, with rounded weights where the layer is quantized."""
        each = layers[output]
        bias = np.zeros(len(prepared.constant(each.weight))) if each.bias is None else prepared.constant(each.bias)
        weight = prepared.constant(each.weight)
        if each.name in calibration.weights:
            rounded = calibration.weights[each.name]
            weight, bias = rounded.value.astype(np.float64), bias + rounded.bias_correction
        return np.stack([convolve(one, weight, bias, each).reshape(-1, *source.shape[2:]) for one in source])

    pixels = images.transpose(0, 3, 1, 2).astype(np.float64) * np.float64(np.float32(1 / 255))
    active = np.maximum(layer("first", quantized_values(pixels, reach["pixels"])), 0)
    skip = quantized_values(active, reach["active"])
    second_value = layer("second", skip)
    summed = quantized_values(np.maximum(skip + second_value, 0), reach["read"])
    wanted = [second_value, layer("end", layer("third", summed))]
    for found, want in zip(got, wanted, strict=True):
        scale = np.abs(want).max()
        off = np.abs(found - want) > 1e-5 * scale
        assert off.sum() <= 2 * 54
        assert np.abs(found - want).max() < 0.02 * scale
    # Without rounding it is something else: the tolerance tells them apart.
    plain = run(data, images, ["end"])[0]
    assert (np.abs(plain - wanted[1]) > 1e-5 * np.abs(wanted[1]).max()).mean() > 0.9


def test_openvino_and_onnx_runtime_agree(calibrations: dict[str, Calibration], run: Any, pictures: Any) -> None:
    """On the maps of the small bundle, for images that nothing was calibrated on.

    Both round the same tensors; a value between two levels may fall to either side, and then moves what follows by up
    to a step. ONNX Runtime alone shows how much that explains, with pixels that are smaller by a hundred thousandth.
    Measured: 0.0023 at most and 0.0005 on average between the engines, 0.0034 and 0.0007 with such pixels.
    """
    data = calibrations["resnet18"].build()
    images = pictures(6, BUNDLE_SIZE, 5)
    dimmer = Graph.parse(data)
    dimmer.replace("scale", dimmer.constant("scale") * (1 - 1e-5))
    core = openvino_core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    results = core.compile_model(core.read_model(data), "CPU", options)(images)
    maps = ["patch_map", "anomaly_map"]
    triples = zip(
        (results[name] for name in maps), run(data, images, maps), run(dimmer.serialized(), images, maps), strict=True
    )
    for by_openvino, by_onnxruntime, of_dimmer in triples:
        between = np.abs(np.asarray(by_openvino) - by_onnxruntime)
        explained = np.abs(of_dimmer - by_onnxruntime)
        assert between.max() < 0.01 and between.mean() < 0.001
        assert between.mean() < 2 * explained.mean()


def test_no_layer_at_all_gives_the_prepared_graph(
    calibrations: dict[str, Calibration], run: Any, pictures: Any
) -> None:
    calibration = calibrations["resnet18"]
    data = calibration.build(calibration.layers)
    assert {node.op_type for node in Reader(data).nodes}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    images = pictures(2, BUNDLE_SIZE)
    for one, other in zip(run(data, images), run(calibration.graph.serialized(), images), strict=True):
        np.testing.assert_array_equal(one, other)


def test_building_changes_nothing(calibrations: dict[str, Calibration]) -> None:
    calibration = calibrations["resnet18"]
    before = calibration.graph.serialized()
    first = calibration.build()
    assert calibration.build(calibration.layers[:2]) != first
    assert calibration.build() == first
    assert calibration.graph.serialized() == before


def test_a_range_that_is_missing_is_one_line(calibrations: dict[str, Calibration]) -> None:
    calibration = calibrations["resnet18"]
    with pytest.raises(ExportError, match="quantizer failed") as exc:
        with_qdq(Graph.parse(calibration.graph.serialized()), {}, calibration.weights)
    assert "\n" not in str(exc.value)
