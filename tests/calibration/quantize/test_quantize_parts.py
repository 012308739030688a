"""Convolutions of a concatenation: the same numbers in parts, and what cannot be taken apart stays float."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.calibration.quantize.calibrate import calibrate
from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.lint import qdq_faults
from edge_ad.calibration.quantize.parts import in_parts
from edge_ad.openvino_core import openvino_core


def kinds(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.model.graph.node]


def on_openvino(data: bytes, images: np.ndarray) -> np.ndarray:
    core = openvino_core()
    network = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(network([images])[0])


@settings(deadline=None, max_examples=40)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    kernel=st.sampled_from([(1, 0), (3, 0), (3, 1)]),
    strides=st.integers(1, 2),
    bias=st.booleans(),
    also_read=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_parts_compute_the_same(
    small_net: Any,
    run: Any,
    pictures: Any,
    widths: list[int],
    kernel: tuple[int, int],
    strides: int,
    bias: bool,
    also_read: bool,
    seed: int,
) -> None:
    net = small_net((8, 8), seed=seed)
    made = [net.op("Relu", net.conv(net.pixels, width)) for width in widths]
    joint = net.op("Concat", *made, axis=1, channels=sum(widths))
    read = net.conv(joint, 4, kernel[0], pads=kernel[1], strides=strides, bias=bias)
    end = net.conv(net.op("Relu", read), 1, out="end")
    data = net.data(end, joint) if also_read else net.data(end)
    graph = in_parts(Graph.parse(data))
    onnx.checker.check_model(graph.model, full_check=True)
    assert ("Concat" in kinds(graph)) == also_read
    assert kinds(graph).count("Conv") == 2 * len(widths) + 1
    assert len({node.name for node in graph.model.graph.node}) == len(graph.model.graph.node)
    images = pictures(2, seed=seed)
    for wanted, got in zip(run(data, images), run(graph.serialized(), images), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_each_part_has_a_range_of_its_own(small_net: Any, run: Any, pictures: Any) -> None:
    """Parts of which one is 1000 times as large: with one range for both, nothing of the small one would be left."""
    net = small_net()
    large, small = (net.op("Relu", net.conv(net.pixels, 4)) for _ in range(2))
    weight = np.concatenate([np.full((3, 4, 1, 1), 1e-3), np.full((3, 4, 1, 1), 1.0)], axis=1)
    net.constants[net.nodes[3].input[1]] *= 1000
    joint = net.op("Concat", large, small, axis=1, channels=8)
    data = net.data(net.conv(net.op("Relu", net.conv(joint, 3, weight=weight)), 1, out="end"))
    images = pictures(6)
    calibration, _ = calibrate(data, lambda _: iter(images), "min-max")
    assert len(calibration.layers) == 4
    wanted, got = (run(each, images)[0] for each in (data, calibration.build()))
    assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("between", "quantized"),
    [("nothing", True), ("MaxPool", True), ("AveragePool", True), ("Relu", False), ("Mul", False), ("groups", False)],
)
def test_what_openvino_would_compute_wrongly_stays_float(
    small_net: Any, run: Any, pictures: Any, between: str, quantized: bool
) -> None:
    """OpenVINO gets to a concatenation through some operators; with what is left int8 it agrees with ONNX Runtime."""
    net = small_net((16, 16), seed=3)
    made = [net.op("Relu", net.conv(net.pixels, 8, 3, pads=1)) for _ in range(2)]
    joint = net.op("Concat", *made, axis=-3, channels=16)
    if between.endswith("Pool"):
        joint = net.op(between, joint, kernel_shape=[2, 2], strides=[2, 2])
    elif between == "Mul":
        joint = net.op("Mul", joint, net.constant(np.linspace(0.5, 1.5, 16).reshape(16, 1, 1)), channels=16)
    elif between == "Relu":
        joint = net.op("Relu", joint)
    read = net.conv(joint, 8, 3, pads=1, groups=2 if between == "groups" else 1, out="read")
    data = net.data(net.conv(net.op("Relu", read), 1, out="end"))
    images = pictures(6, (16, 16))
    calibration, _ = calibrate(data, lambda _: iter(images), "min-max")
    assert any(name.startswith("Conv_of_read") for name in calibration.layers) == quantized
    built = calibration.build()
    assert qdq_faults(onnx.load_model_from_string(built)) == []
    wanted = run(data, images)[0]
    for got in (run(built, images)[0], on_openvino(built, images)):
        assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()


def test_concatenations_of_sizes_are_none_of_channels(small_net: Any) -> None:
    """The size that a Resize is told may be put together in the graph: its layer is quantized all the same."""
    net = small_net()
    first = net.op("Relu", net.conv(net.pixels, 4, out="first"))
    halves = [net.constant(np.array(part, np.int64)) for part in ([1, 4], [16, 16])]
    sizes = net.op("Concat", *halves, axis=0)
    none = net.constant(np.array([], np.float32))
    larger = net.op("Resize", first, none, none, sizes, mode="linear", channels=4)
    read = net.conv(larger, 4, out="read")
    data = net.data(net.conv(net.op("Relu", read), 1, out="end"))
    assert [layer.output for layer in in_parts(Graph.parse(data)).layers] == ["first", "read"]
