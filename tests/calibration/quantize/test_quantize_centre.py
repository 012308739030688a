"""Centring: the same outputs, centred tensors where that is free, and untouched ones where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.calibration.quantize.centre import apply_shifts, moved, plan_shifts
from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.observe import ChannelRange, channel_ranges

KINDS = ("1x1", "1x1", "3x3", "relu", "add", "add", "one channel", "biased")

Steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=9)


def random_net(small_net: Any, steps: list[tuple[str, int, int]], also: int | None, seed: int) -> Any:
    """Convolutions with large biases, additions and whatever `steps` say, each on tensors made before."""
    net = small_net((6, 6), seed=seed)
    tensors = [net.conv(net.pixels, 4, bias=2.0)]
    for kind, first, second in steps:
        source, other = tensors[first % len(tensors)], tensors[second % len(tensors)]
        if kind == "1x1":
            tensors.append(net.conv(source, 4, bias=2.0))
        elif kind == "3x3":
            tensors.append(net.conv(source, 4, 3, pads=1, bias=False))
        elif kind == "relu":
            tensors.append(net.op("Relu", source))
        elif kind == "add":
            tensors.append(net.op("Add", source, other))
        elif kind == "one channel":
            tensors.append(net.op("Add", net.conv(source, 1, bias=2.0), other))
        else:
            tensors.append(net.op("Add", source, net.constant(net.rng.standard_normal((4, 1, 1)))))
    end = net.conv(net.conv(tensors[-1], 4), 1, out="end")
    outputs = [end] if also is None else [tensors[also % len(tensors)], end]
    return net.data(*outputs)


def centred(data: bytes, images: np.ndarray) -> tuple[Graph, Graph, dict[str, ChannelRange], dict[str, np.ndarray]]:
    """Graph before and after, the ranges before, and the shifts."""
    before, after = Graph.parse(data), Graph.parse(data)
    ranges = channel_ranges(before, before.layers, images)
    shifts = plan_shifts(after, ranges)
    apply_shifts(after, shifts)
    return before, after, ranges, shifts


def must_stay(graph: Graph) -> set[str]:
    """Tensors that something reads which a constant would change: padded convolutions, activations, the outside."""
    padded = {layer.name for layer in graph.convolutions if layer.is_padded}
    found = set(graph.outputs)
    for node in graph.model.graph.node:
        constant_operand = any(map(graph.is_constant, node.input))
        if node.name in padded or node.op_type == "Relu" or (node.op_type == "Add" and constant_operand):
            found.update(node.input)
    return found


@settings(max_examples=100, deadline=None)
@given(steps=Steps, also=st.none() | st.integers(0, 99), seed=st.integers(0, 2**20))
def test_every_tensor_is_what_it_was_plus_its_shift(
    small_net: Any, run: Any, pictures: Any, steps: list[tuple[str, int, int]], also: int | None, seed: int
) -> None:
    data = random_net(small_net, steps, also, seed)
    images = pictures(3, (6, 6), seed)
    before, after, ranges, shifts = centred(data, images)
    assert not shifts.keys() & must_stay(before)
    names = [node.output[0] for node in before.model.graph.node][2:]
    values, others = run(data, images, names), run(after.serialized(), images, names)
    scale = max(float(np.abs(value).max()) for value in (*values, *others))  # small ones come from large ones
    for name, was, now in zip(names, values, others, strict=True):
        shift = shifts.get(name, np.zeros(was.shape[1]))
        np.testing.assert_allclose(now, was + shift[:, None, None], atol=1e-5 * scale, rtol=0, err_msg=name)
    seen = channel_ranges(after, after.layers, images)
    for name in shifts.keys() & ranges.keys():
        assert np.abs(seen[name].low + seen[name].high).max() <= 1e-5 * scale, name


def bottleneck(small_net: Any, *, pads: int = 0, reader: str = "conv", output: bool = False) -> bytes:
    """conv → y → conv (padded or not, or behind a Relu) → head; y is an output too if wanted."""
    net = small_net(seed=4)
    y = net.conv(net.pixels, 4, bias=3.0, out="y")
    if reader == "relu":
        net.conv(y, 4, out="beside")  # y is read by a layer, as ranges are taken of these only
        y = net.op("Relu", y)
    end = net.conv(net.conv(y, 4, 3, pads=pads), 1, out="end")
    others = ["beside"] if reader == "relu" else []
    return bytes(net.data(end, *others, *(["y"] if output else [])))


def test_what_only_unpadded_convolutions_read_is_moved(small_net: Any, run: Any, pictures: Any) -> None:
    data = bottleneck(small_net)
    _, after, _, shifts = centred(data, pictures(3))
    assert set(shifts) == {"y"} and np.abs(shifts["y"]).max() > 1
    np.testing.assert_allclose(run(after.serialized(), pictures(3))[0], run(data, pictures(3))[0], atol=2e-5)


@pytest.mark.parametrize("obstacle", [{"pads": 1}, {"reader": "relu"}, {"output": True}], ids=str)
def test_what_others_read_stays(small_net: Any, pictures: Any, obstacle: dict[str, Any]) -> None:
    data = bottleneck(small_net, **obstacle)
    graph = Graph.parse(data)
    _, after, _, shifts = centred(data, pictures(3))
    assert shifts == {}
    assert after.serialized() == graph.serialized()


def residual(small_net: Any, *, free: bool) -> bytes:
    """Two branches added and read by a convolution; without a free operand both go through a Relu before."""
    net = small_net(seed=5)
    branches = [net.conv(net.pixels, 4, bias=3.0, out=f"branch{n}") for n in range(2)]
    if not free:
        branches = [net.op("Relu", branch) for branch in branches]
    return bytes(net.data(net.conv(net.conv(net.op("Add", *branches, out="sum"), 4), 1)))


def test_a_sum_is_moved_by_one_operand(small_net: Any, pictures: Any) -> None:
    _, _, ranges, shifts = centred(residual(small_net, free=True), pictures(3))
    assert set(shifts) == {"branch1", "sum"}
    np.testing.assert_allclose(shifts["sum"], -(ranges["sum"].low + ranges["sum"].high) / 2)
    np.testing.assert_allclose(shifts["branch1"], shifts["sum"])


def test_a_sum_without_a_free_operand_stays(small_net: Any, pictures: Any) -> None:
    assert centred(residual(small_net, free=False), pictures(3))[3] == {}


def test_ranges_move_along(small_net: Any, pictures: Any) -> None:
    _, after, ranges, shifts = centred(residual(small_net, free=True), pictures(3))
    expected = moved(ranges, shifts)
    seen = channel_ranges(after, after.layers, pictures(3))
    assert expected.keys() == seen.keys()
    for name, found in seen.items():
        scale = float(found.reach.max())
        np.testing.assert_allclose(expected[name].low, found.low, atol=1e-5 * scale)
        np.testing.assert_allclose(expected[name].high, found.high, atol=1e-5 * scale)
        assert (expected[name].power <= expected[name].reach ** 2).all()


def test_mobilenet_computes_the_same_with_centred_bottlenecks(mobilenet_float: bytes, run: Any, pictures: Any) -> None:
    """Looked at before the sigmoid, which would hide differences."""
    images = pictures(4, (64, 64))
    before, after, ranges, shifts = centred(mobilenet_float, images)
    tensors = [layer.output for layer in before.convolutions[-2:]]
    assert len(shifts.keys() & ranges.keys()) >= 4
    pairs = zip(run(mobilenet_float, images, tensors), run(after.serialized(), images, tensors), strict=True)
    for was, now in pairs:
        np.testing.assert_allclose(now, was, atol=2e-5 * np.abs(was).max())
    seen = channel_ranges(after, after.layers, images)
    for name in shifts.keys() & ranges.keys():
        reach = float(ranges[name].reach.max())
        assert np.abs(seen[name].low + seen[name].high).max() < 1e-5 * reach
        assert seen[name].reach.max() <= reach * 1.00001
