"""What is kept of activations, against float64 NumPy with loops over windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_ad.calibration.quantize import observe as observing
from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.observe import (
    BINS,
    channel_ranges,
    histograms_and_moments,
    observe,
    of_any_picture,
)
from edge_ad.errors import ExportError

GEOMETRIES = {
    "1x1": {"kernel": 1},
    "3x3": {"kernel": 3},
    "padded": {"kernel": 3, "pads": 1},
    "strided": {"kernel": 3, "pads": 1, "strides": 2},
    "dilated": {"kernel": 3, "pads": 2, "dilations": 2},
    "grouped": {"kernel": 3, "pads": 1, "groups": 2},
    "depthwise": {"kernel": 3, "pads": 1, "strides": 2, "groups": 6},
    "all": {"kernel": 3, "pads": 2, "strides": 2, "dilations": 2, "groups": 3},
}


def layered(small_net: Any, batch: int | None = None, **geometry: Any) -> Any:
    """Pixels → 6 channels of both signs → the layer that is looked at → a head; images 12×12."""
    net = small_net((12, 12), seed=3, batch=batch)
    source = net.op("LeakyRelu", net.conv(net.pixels, 6), out="source", alpha=0.3)
    return net.data(net.conv(net.conv(source, 6, **geometry, out="looked_at"), 1, out="end"))


@pytest.mark.parametrize("batch", [None, 3])
def test_ranges_of_channels(small_net: Any, run: Any, pictures: Any, batch: int | None) -> None:
    data = layered(small_net, batch, kernel=3)
    images = pictures(5, (12, 12))
    graph = Graph.parse(data)
    seen = channel_ranges(graph, graph.layers, iter(images))
    assert set(seen) == {"pixels", "source"}
    for name, found in seen.items():
        repeated = [np.repeat(image[None], batch or 1, axis=0) for image in images]
        value = np.concatenate([run(data, image, [name])[0][:1] for image in repeated]).astype(np.float64)
        by_channel = value.transpose(1, 0, 2, 3).reshape(value.shape[1], -1)
        np.testing.assert_array_equal(found.low, by_channel.min(axis=1))
        np.testing.assert_array_equal(found.high, by_channel.max(axis=1))
        np.testing.assert_array_equal(found.reach, np.abs(by_channel).max(axis=1))
        np.testing.assert_allclose(found.power, (by_channel**2).mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_moments_of_the_inputs(
    small_net: Any, run: Any, pictures: Any, im2col: Any, convolve: Any, geometry: dict[str, int]
) -> None:
    """All positions of such small maps are looked at: the moments are those of the whole. Tolerance: float32 sums."""
    data = layered(small_net, **geometry)
    images = pictures(4, (12, 12))
    graph = Graph.parse(data)
    layers = [layer for layer in graph.layers if layer.output == "looked_at"]
    kernel = (geometry["kernel"],) * 2
    _, moments = histograms_and_moments(graph, layers, {"source": 1.0}, images, seed=0)
    source = run(data, images, ["source"])[0]
    patches = np.concatenate([im2col(value, layers[0], kernel) for value in source], axis=2)
    found = moments[layers[0].name]
    assert found.second is not None
    np.testing.assert_allclose(found.mean, patches.mean(axis=2), atol=1e-6)
    second = np.einsum("gip,gjp->gij", patches, patches) / patches.shape[2]
    np.testing.assert_allclose(found.second, second, atol=2e-6 * np.abs(second).max())
    # The oracle's windows are those of the operator: what it computes from them is what the graph computes.
    weight, bias = graph.constant(layers[0].weight), graph.constant(layers[0].bias or "")
    wanted = run(data, images[:1], ["looked_at"])[0][0].reshape(6, -1)
    np.testing.assert_allclose(convolve(source[0], weight, bias, layers[0]), wanted, atol=1e-5)


def test_some_positions_of_a_large_map_are_looked_at(small_net: Any, pictures: Any, im2col: Any, run: Any) -> None:
    """48×48 positions: 256 of them in each image stand for all; the seed says which."""
    net = small_net((48, 48), seed=3)
    data = net.data(net.conv(net.conv(net.pixels, 4, 3, pads=1), 1))
    graph = Graph.parse(data)
    images = pictures(6, (48, 48))
    reaches = {"pixels": 1.0}
    means = [
        histograms_and_moments(graph, graph.layers, reaches, images, seed)[1][graph.layers[0].name].mean
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.array_equal(means[0], means[2])
    value = run(data, images, ["pixels"])[0]
    every = np.mean([im2col(v, graph.layers[0], (3, 3)).mean(axis=2) for v in value], axis=0)
    # Independent draws would have a standard error of spread / sqrt(6 · 256).
    spread = np.concatenate([im2col(v, graph.layers[0], (3, 3)) for v in value], axis=2).std(axis=2)
    assert (np.abs(means[0] - every) < 5 * spread / np.sqrt(6 * 256)).all()


def test_histogram_counts_every_value_once(small_net: Any, run: Any, pictures: Any) -> None:
    data = layered(small_net, kernel=3)
    graph = Graph.parse(data)
    images = pictures(5, (12, 12))
    value = np.abs(run(data, images, ["source"])[0]).astype(np.float64)
    reach = float(value.max())
    counts = histograms_and_moments(graph, [], {"source": reach}, images, seed=0)[0]["source"]
    assert counts.shape == (BINS,) and counts.sum() == value.size and counts[-1] >= 1
    wanted, _ = np.histogram(value, BINS, (0, reach))
    # A value on an edge may fall to either side in float32: sums up to any bin differ by few.
    assert np.abs(np.cumsum(counts) - np.cumsum(wanted)).max() <= 2


def test_histogram_of_zeros(small_net: Any) -> None:
    data = layered(small_net, kernel=3)
    graph = Graph.parse(data)
    black = np.zeros((2, 12, 12, 3), np.uint8)
    counts = histograms_and_moments(graph, [], {"pixels": 0.0}, black, seed=0)[0]["pixels"]
    assert counts[0] == counts.sum() == 2 * 3 * 12 * 12


def test_second_moments_that_are_too_large_are_not_kept(
    small_net: Any, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph.parse(layered(small_net, kernel=3))  # 6 channels under a 3×3 kernel: 54 inputs
    reaches = {"pixels": 1.0, "source": 1.0}
    for most, kept in ((54, True), (53, False)):
        monkeypatch.setattr(observing, "MAX_COLUMNS", most)
        _, moments = histograms_and_moments(graph, graph.layers, reaches, pictures(2, (12, 12)), seed=0)
        first, looked_at = (moments[layer.name] for layer in graph.layers)
        assert first.second is not None and first.second.shape == (1, 3, 3)
        assert (looked_at.second is not None) == kept
        assert looked_at.mean.shape == (1, 54)


def test_values_that_are_not_finite_are_refused(small_net: Any, pictures: Any) -> None:
    net = small_net()
    weight = np.ones((2, 3, 1, 1))
    weight[1] = np.inf
    layer = net.conv(net.conv(net.pixels, 2, weight=weight, out="broken"), 2)
    graph = Graph.parse(net.data(net.conv(layer, 1)))
    with pytest.raises(ExportError, match=r"not finite in broken"):
        channel_ranges(graph, graph.layers, pictures(1))
    list(observe(graph, ["pixels"], pictures(1)))


def test_outputs_of_the_graph_can_be_looked_at(small_net: Any, pictures: Any) -> None:
    graph = Graph.parse(layered(small_net, kernel=3))
    seen = list(observe(graph, ["end", "source"], pictures(2, (12, 12))))
    assert [sorted(values) for values in seen] == [["end", "source"]] * 2


def test_a_graph_that_cannot_be_run_is_one_line(small_net: Any, pictures: Any) -> None:
    net = small_net()
    broken = net.op("Conv", net.pixels, net.constant(np.ones((2, 5, 1, 1))), channels=2)
    graph = Graph.parse(net.data(net.conv(broken, 1)))
    with pytest.raises(ExportError, match="cannot be run for calibration") as exc:
        list(observe(graph, ["pixels"], pictures(1)))
    assert "\n" not in str(exc.value)


def test_no_image_is_refused(small_net: Any) -> None:
    graph = Graph.parse(layered(small_net, kernel=3))
    with pytest.raises(ExportError, match="no image"):
        channel_ranges(graph, graph.layers, [])


def test_the_picture_reaches_as_far_as_black_and_white(small_net: Any, pictures: Any) -> None:
    """Dull pictures say little of what a defect looks like; what is computed from them by a layer keeps its range."""
    net = small_net()
    net.pixels = net.op("Sub", net.pixels, net.constant(np.float32([0.25, 0.5, 1]).reshape(3, 1, 1)), channels=3)
    features = net.conv(net.pixels, 4)
    shifted = net.op("Add", net.pixels, net.op("Relu", net.conv(net.pixels, 3)))
    graph = Graph.parse(net.data(net.conv(features, 1), net.conv(shifted, 1, out="other")))
    dull = pictures(3) // 8 + 100
    seen = channel_ranges(graph, graph.convolutions, dull)
    found = of_any_picture(graph, seen)
    assert seen.keys() == found.keys() == {net.pixels, features, shifted}
    np.testing.assert_allclose(found[net.pixels].low, [-0.25, -0.5, -1], atol=1e-6)
    np.testing.assert_allclose(found[net.pixels].high, [0.75, 0.5, 0], atol=1e-6)
    assert (seen[net.pixels].high - seen[net.pixels].low < 0.3).all(), "control: the pictures are dull"
    assert np.array_equal(found[net.pixels].power, seen[net.pixels].power)
    for name in (features, shifted):
        assert found[name] is seen[name]
