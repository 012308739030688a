"""Equalization: the same outputs, nothing newly cut by a Clip, and less quantization noise as it is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.calibration.quantize.equalize import ChannelGroup, apply_scales, channel_groups, plan_scales, scaled
from edge_ad.calibration.quantize.graph import Convolution, Graph
from edge_ad.calibration.quantize.observe import ChannelRange, channel_ranges

KINDS = (
    "conv",
    "conv",
    "3x3",
    "depthwise",
    "grouped",
    "add",
    "add",
    "relu",
    "leaky",
    "pool",
    "mean",
    "biased",
    "narrow",
)

Steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=9)


def spread(net: Any, tensor: str, decades: float) -> str:
    """Give the channels of the convolution that was made last very different sizes."""
    weight, *bias = net.nodes[-1].input[1:]
    sizes = 10 ** net.rng.uniform(-decades, 0, net.channels[tensor])
    net.constants[weight] = (net.constants[weight] * sizes[:, None, None, None]).astype(np.float32)
    for name in bias:
        net.constants[name] = (net.constants[name] * sizes).astype(np.float32)
    return tensor


def random_net(small_net: Any, steps: list[tuple[str, int, int]], seed: int) -> bytes:
    net = small_net((6, 6), seed=seed)
    tensors = [spread(net, net.conv(net.pixels, 4), 2)]
    for kind, first, second in steps:
        source, other = tensors[first % len(tensors)], tensors[second % len(tensors)]
        made = {
            "conv": lambda s, o: spread(net, net.conv(s, 4), 2),
            "3x3": lambda s, o: spread(net, net.conv(s, 4, 3, pads=1), 2),
            "depthwise": lambda s, o: spread(net, net.conv(s, 4, 3, pads=1, groups=4), 2),
            "grouped": lambda s, o: spread(net, net.conv(s, 4, groups=2), 2),
            "add": lambda s, o: net.op("Add", s, o),
            "relu": lambda s, o: net.op("Relu", s),
            "leaky": lambda s, o: net.op("LeakyRelu", s, alpha=0.2),
            "pool": lambda s, o: net.op("MaxPool", s, kernel_shape=[3, 3], pads=[1] * 4),
            "mean": lambda s, o: net.op("AveragePool", s, kernel_shape=[3, 3], pads=[1] * 4),
            "biased": lambda s, o: net.op("Add", s, net.constant(net.rng.standard_normal((4, 1, 1)))),
            "narrow": lambda s, o: net.op("Add", net.conv(s, 1), o),
        }[kind](source, other)
        tensors.append(made)
    return bytes(net.data(net.conv(net.conv(tensors[-1], 4), 1, out="end")))


def tensors_of(graph: Graph) -> list[str]:
    return [node.output[0] for node in graph.model.graph.node][2:]


def assert_outputs_equal(run: Any, before: bytes, after: bytes, images: np.ndarray, names: list[str]) -> None:
    """Within float32 rounding of the largest value that they are computed from."""
    for name, was, now in zip(names, run(before, images, names), run(after, images, names), strict=True):
        np.testing.assert_allclose(now, was, atol=1e-5 * max(1.0, np.abs(was).max()), rtol=0, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(steps=Steps, seed=st.integers(0, 2**20))
def test_any_factors_of_any_group_leave_the_outputs_as_they_are(
    small_net: Any, run: Any, pictures: Any, steps: list[tuple[str, int, int]], seed: int
) -> None:
    """Powers of two, so that float32 rounds the same: equal but for the order of sums. Members are scaled as said."""
    data = random_net(small_net, steps, seed)
    images = pictures(2, (6, 6), seed)
    before, after = Graph.parse(data), Graph.parse(data)
    rng = np.random.default_rng(seed)
    groups = channel_groups(before)
    factors = {group.key: 2.0 ** rng.integers(-6, 7, 4) for group in groups}
    factors = {key: value for key, value in factors.items() if len(value) == channels_of(before, groups, key)}
    apply_scales(after, factors)
    by_tensor = {
        member.source: factors[group.key] for group in groups if group.key in factors for member in group.readers
    }
    names = tensors_of(before)
    for name, was, now in zip(names, run(data, images, names), run(after.serialized(), images, names), strict=True):
        if name in by_tensor:
            was = was * by_tensor[name][:, None, None].astype(np.float32)
        elif name != "end":
            continue
        np.testing.assert_allclose(now, was, atol=2e-6 * max(1.0, np.abs(was).max()), rtol=0, err_msg=name)


def channels_of(graph: Graph, groups: list[ChannelGroup], key: str) -> int:
    return next(len(graph.constant(group.makers[0].weight)) for group in groups if group.key == key)


@settings(max_examples=60, deadline=None)
@given(steps=Steps, seed=st.integers(0, 2**20))
def test_planned_factors_leave_the_outputs_as_they_are(
    small_net: Any, run: Any, pictures: Any, steps: list[tuple[str, int, int]], seed: int
) -> None:
    data = random_net(small_net, steps, seed)
    images = pictures(3, (6, 6), seed)
    after = Graph.parse(data)
    ranges = channel_ranges(after, after.layers, images)
    scales = plan_scales(after, ranges)
    assert all((scale >= 1 - 1e-12).all() for scale in scales.values())
    apply_scales(after, scales)
    assert_outputs_equal(run, data, after.serialized(), images, ["end"])
    seen, expected = channel_ranges(after, after.layers, images), scaled(after, ranges, scales)
    assert seen.keys() == expected.keys()
    for name, found in seen.items():
        np.testing.assert_allclose(expected[name].reach, found.reach, atol=1e-4 * found.reach.max(), err_msg=name)
        np.testing.assert_allclose(expected[name].power, found.power, atol=1e-4 * found.power.max(), err_msg=name)
    for group in channel_groups(after):
        names = {reader.source for reader in group.readers} & seen.keys()
        before, now = (max((each[name].reach.max() for name in names), default=0) for each in (ranges, seen))
        assert now <= before * 1.0001


def residual(small_net: Any, obstacle: str | None = None) -> bytes:
    """Two branches, one with a bias that is added behind it, summed and read by two layers."""
    net = small_net(seed=6)
    first = spread(net, net.conv(net.pixels, 4, out="first"), 2)
    second = spread(net, net.conv(net.pixels, 4, bias=False, out="second"), 2)
    second = net.op("Add", second, net.constant(np.linspace(0.1, 1, 4).reshape(4, 1, 1), "offset"))
    if obstacle == "Sigmoid":
        second = net.op("Sigmoid", second)
    if obstacle == "Mul":
        second = net.op("Mul", second, first)
    summed = net.op("Relu", net.op("Add", first, second), out="summed")
    tensors = [net.conv(summed, 6, out="one"), net.conv(summed, 4, 3, pads=1, groups=4, out="two")]
    if obstacle == "Concat":
        tensors.append(net.op("Concat", summed, tensors[1], axis=1, channels=8))
    return bytes(net.data(*(net.conv(tensor, 2) for tensor in tensors)))


def test_a_group_goes_through_sums_biases_and_grouped_layers(small_net: Any) -> None:
    groups = {group.key: group for group in channel_groups(Graph.parse(residual(small_net)))}
    group = groups["first"]
    assert {layer.output for layer in group.makers} == {"first", "second"}
    assert {layer.output for layer in group.readers} == {"one", "two"}
    assert group.biases == ("offset",)
    assert set(groups) == {"first", "one", "two"}


@pytest.mark.parametrize("obstacle", ["Sigmoid", "Mul", "Concat"])
def test_other_operators_fix_their_group(small_net: Any, obstacle: str) -> None:
    keys = {group.key for group in channel_groups(Graph.parse(residual(small_net, obstacle)))}
    assert "first" not in keys and "second" not in keys and "one" in keys


def clipped(small_net: Any, low: float = 0.0, high: float = 6.0, *, gain: float = 4.0) -> Any:
    """Channels of very different size under a Clip, read by one layer; some are cut."""
    net = small_net(seed=7)
    sizes = gain * np.geomspace(0.01, 3, 8) * [1, -1, 1, 1, -1, 1, -1, 1]
    weight = sizes[:, None, None, None] * np.random.default_rng(7).uniform(0.5, 1, (8, 3, 1, 1))
    return net, net.clip(net.conv(net.pixels, 8, weight=weight, bias=False), low, high)


def test_a_clip_cuts_nothing_new(small_net: Any, run: Any, pictures: Any) -> None:
    net, tensor = clipped(small_net)
    data = net.data(net.conv(net.conv(tensor, 4), 1, out="end"))
    images = pictures(6)
    graph = Graph.parse(data)
    ranges = channel_ranges(graph, graph.layers, images)
    assert (ranges[tensor].high == 6).any() and (ranges[tensor].high < 1).any()
    scales = plan_scales(graph, ranges)
    (scale,) = (scale for key, scale in scales.items() if len(scale) == 8)
    assert scale.max() > 2 and (scale[ranges[tensor].high == 6] == 1).all()
    apply_scales(graph, scales)
    assert_outputs_equal(run, data, graph.serialized(), images, ["end"])


def test_a_clip_cuts_a_channel_that_goes_beyond_what_was_seen(small_net: Any, run: Any, pictures: Any) -> None:
    """The price that the module speaks of: the outputs differ on images that reach further, by nothing else."""
    net, tensor = clipped(small_net)
    data = net.data(net.conv(net.conv(tensor, 4), 1, out="end"))
    graph = Graph.parse(data)
    dim = (pictures(6) // 8).astype(np.uint8)
    scales = plan_scales(graph, channel_ranges(graph, graph.layers, dim))
    apply_scales(graph, scales)
    assert_outputs_equal(run, data, graph.serialized(), dim, ["end"])
    bright = np.full((1, 8, 8, 3), 255, np.uint8)
    before, after = (run(each, bright, [tensor])[0] for each in (data, graph.serialized()))
    (scale,) = (scale for scale in scales.values() if len(scale) == 8)
    wanted = np.minimum(before * scale[:, None, None], 6)
    np.testing.assert_allclose(after, wanted, rtol=1e-5)
    assert (wanted < before * scale[:, None, None]).any()


@pytest.mark.parametrize(
    ("low", "high", "gain"), [(-1.0, 6.0, 4.0), (-2.0, 2.0, 4.0), (-6.0, 0.5, 4.0), (0.0, 100.0, 4.0)]
)
def test_bounds_on_both_sides_cut_nothing_new(
    small_net: Any, run: Any, pictures: Any, low: float, high: float, gain: float
) -> None:
    net, tensor = clipped(small_net, low, high, gain=gain)
    data = net.data(net.conv(net.conv(tensor, 4), 1, out="end"))
    images = pictures(6)
    graph = Graph.parse(data)
    scales = plan_scales(graph, channel_ranges(graph, graph.layers, images))
    assert scales
    apply_scales(graph, scales)
    assert_outputs_equal(run, data, graph.serialized(), images, ["end"])


def test_a_clip_inside_of_a_sum_cuts_nothing_new(small_net: Any, run: Any, pictures: Any) -> None:
    """The sum reaches far beyond the bound in one channel and cancels in another: what is clipped is not stretched."""
    net, tensor = clipped(small_net)
    straight = net.conv(net.pixels, 8, weight=20 * np.random.default_rng(8).standard_normal((8, 3, 1, 1)))
    summed = net.op("Add", tensor, straight)
    read = [net.conv(summed, 4), net.conv(tensor, 4)]
    data = net.data(*(net.conv(each, 1, out=f"end{n}") for n, each in enumerate(read)))
    images = pictures(6)
    graph = Graph.parse(data)
    apply_scales(graph, plan_scales(graph, channel_ranges(graph, graph.layers, images)))
    assert_outputs_equal(run, data, graph.serialized(), images, ["end0", "end1"])


def test_a_clip_that_nobody_has_looked_at_is_left_alone(small_net: Any, run: Any, pictures: Any) -> None:
    """It is read by an addition only, whose result cancels to something small."""
    net, tensor = clipped(small_net)
    other = net.op("Relu", net.conv(net.pixels, 8))
    summed = net.op("Add", tensor, spread(net, net.conv(other, 8), 3))
    data = net.data(net.conv(net.conv(summed, 4), 1, out="end"))
    images = pictures(6)
    graph = Graph.parse(data)
    scales = plan_scales(graph, channel_ranges(graph, graph.layers, images))
    assert not {group.key for group in channel_groups(graph) if group.bounds} & scales.keys()
    apply_scales(graph, scales)
    assert_outputs_equal(run, data, graph.serialized(), images, ["end"])


def test_a_clip_that_keeps_zero_out_fixes_its_group(small_net: Any) -> None:
    keys = []
    for low, high in ((0.0, 6.0), (0.5, 6.0), (-6.0, -0.5)):
        net, tensor = clipped(small_net, low, high)
        graph = Graph.parse(net.data(net.conv(net.conv(tensor, 4), 1)))
        keys.append([group.key for group in channel_groups(graph) if group.bounds])
    assert len(keys[0]) == 1 and keys[1:] == [[], []]


def test_silent_channels_are_not_enlarged_without_end(small_net: Any, pictures: Any) -> None:
    """What no good image wakes up may speak on a bad one; enlarged ten thousand times it would saturate at once."""
    net = small_net(seed=9)
    made = spread(net, net.conv(net.pixels, 8, out="made"), 2)
    bias = net.nodes[-1].input[2]
    net.constants[bias] = net.constants[bias] - np.where(np.arange(8) == 3, 50, 0).astype(np.float32)
    tensor = net.op("Relu", made)
    graph = Graph.parse(net.data(net.conv(net.conv(tensor, 4), 1)))
    ranges = channel_ranges(graph, graph.layers, pictures(4))
    assert ranges[tensor].reach[3] == 0
    scale = plan_scales(graph, ranges)["made"]
    speaks = ranges[tensor].reach > 0
    assert speaks.sum() >= 3 and scale.max() > 2
    assert scale[speaks].min() < scale[3] < scale[speaks].max()


def fake_quantized(value: np.ndarray, reach: np.ndarray | float) -> np.ndarray:
    step = np.maximum(reach, 1e-30) / 127
    return np.asarray(np.clip(np.rint(value / step), -127, 127) * step)


def measured_noise(data: bytes, graph: Graph, layer: Convolution, images: np.ndarray, run: Any, convolve: Any) -> float:
    """Noise of a layer with int8 inputs and weights, as a share of the power of its outputs; float64 but for inputs."""
    weight = graph.constant(layer.weight)
    reach = np.abs(weight).reshape(len(weight), -1).max(axis=1)[:, None, None, None]
    sources = run(data, images, [layer.source])[0].astype(np.float64)
    greatest = float(np.abs(sources).max())
    noise = signal = 0.0
    for source in sources:
        exact = convolve(source, weight, np.zeros(len(weight)), layer)
        rounded = convolve(
            fake_quantized(source, greatest), fake_quantized(weight, reach), np.zeros(len(weight)), layer
        )
        noise, signal = noise + ((rounded - exact) ** 2).sum(), signal + (exact**2).sum()
    return float(noise / signal)


def noise_ratio(
    small_net: Any, run: Any, pictures: Any, convolve: Any, seed: int, decades: float, groups: int
) -> float:
    """Measured noise of one layer with equalized channels over that without."""
    net = small_net((12, 12), seed=seed)
    tensor = net.op("Relu", spread(net, net.conv(net.pixels, 16, 3, pads=1), decades))
    # Networks are trained to hear small channels too: the reader's weights are larger for these, to some degree.
    data = net.data(net.conv(net.conv(tensor, 16, 3, pads=1, groups=groups, out="read"), 1))
    reach = run(data, pictures(4, (12, 12), seed), [tensor])[0].max(axis=(0, 2, 3))
    reader = next(node for node in net.nodes if node.output[0] == "read").input[1]
    heard = np.where(reach > 1e-3 * reach.max(), reach + 1e-9, 1) ** -net.rng.uniform(0, 1)
    factors = np.repeat(heard.reshape(groups, -1), 16 // groups, axis=0)[:, :, None, None]
    net.constants[reader] = (net.constants[reader] * factors).astype(np.float32)
    data = net.data("read", net.nodes[-1].output[0])
    images = pictures(4, (12, 12), seed)
    before, after = Graph.parse(data), Graph.parse(data)
    layer = next(each for each in before.convolutions if each.output == "read")
    ranges = channel_ranges(after, [layer], images)
    apply_scales(after, plan_scales(after, ranges))
    noises = [measured_noise(graph.serialized(), graph, layer, images, run, convolve) for graph in (before, after)]
    return noises[1] / noises[0]


@pytest.mark.parametrize(("decades", "groups", "wanted"), [(2, 1, 0.5), (2, 16, 0.3), (1, 1, 0.8), (0, 1, 1.05)])
def test_measured_noise_falls_and_never_grows_much(
    small_net: Any, run: Any, pictures: Any, convolve: Any, decades: float, groups: int, wanted: float
) -> None:
    """Over 20 draws of channels whose sizes go over `decades`: half of them below `wanted`, none above 1.25."""
    ratios = [noise_ratio(small_net, run, pictures, convolve, seed, decades, groups) for seed in range(20)]
    assert max(ratios) < 1.25
    assert np.median(ratios) < wanted


def test_ranges_of_zeros_give_no_factors(small_net: Any) -> None:
    graph = Graph.parse(residual(small_net))
    zero = {layer.source: ChannelRange(*[np.zeros(4)] * 3) for layer in graph.layers}
    assert plan_scales(graph, zero | {"pixels": ChannelRange(*[np.zeros(3)] * 3)}) == {}


def test_mobilenet_computes_the_same(mobilenet_float: bytes, run: Any, pictures: Any) -> None:
    graph = Graph.parse(mobilenet_float)
    images = pictures(4, (64, 64))
    ranges = channel_ranges(graph, graph.layers, images)
    scales = plan_scales(graph, ranges)
    assert len(scales) >= 4
    last = graph.convolutions[-1].output
    apply_scales(graph, scales)
    was, now = (run(each, images, [last])[0] for each in (mobilenet_float, graph.serialized()))
    np.testing.assert_allclose(now, was, atol=2e-5 * np.abs(was).max())
