"""The export form of EfficientAD against the published one, and what int8 finds in its graph."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import largest
from torch.nn.functional import interpolate, pad

from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.calibration.quantize.graph import Graph
from edge_ad.export.onnx_graph import graph_from_module
from edge_ad.export.parity import check_parity
from edge_ad.models import model_family
from edge_ad.models.contract import fast_module, published_module
from edge_ad.models.efficientad.config import WIDTHS, EfficientAdConfig
from edge_ad.models.efficientad.fold import FoldedEfficientAd, enlarging
from edge_ad.models.efficientad.network import EfficientAd, decoder_sides
from edge_ad.models.efficientad.specs import INPUT, OUTPUT
from edge_ad.models.family import LoadedNetwork

SIZES = ("small", "medium")
PADDINGS = ("after", "before", "none")
TOLERANCE = 2e-6


def image(size_hw: tuple[int, int], count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, *size_hw, generator=torch.Generator().manual_seed(5))


def plain_answer(network: EfficientAd, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch map and anomaly map as the code that trained the network has them, in float64."""
    network = copy.deepcopy(network).double()
    images = images.double()
    taught = (network.teacher(images) - network.mean[:, None, None]) / network.std[:, None, None]
    local, whole = network.student(images).chunk(2, dim=1)
    maps = [(taught - local).square().mean(1), (network.autoencoder(images) - whole).square().mean(1)]
    scale = network.quantiles

    def combined(st: torch.Tensor, ae: torch.Tensor) -> torch.Tensor:
        return 0.05 * (st - scale[0]) / (scale[1] - scale[0]) + 0.05 * (ae - scale[2]) / (scale[3] - scale[2])

    def enlarged(cells: torch.Tensor) -> torch.Tensor:
        cells = cells if network.map_padding == "none" else pad(cells, (4, 4, 4, 4))
        return interpolate(cells[:, None], size=images.shape[2:], mode="bilinear")[:, 0]

    patches = combined(*maps)
    return patches, combined(*map(enlarged, maps)) if network.map_padding == "before" else enlarged(patches)


@pytest.mark.parametrize(
    ("size", "map_padding", "size_hw"),
    [(size, padding, (256, 256)) for size in SIZES for padding in PADDINGS] + [("small", "before", (256, 324))],
)
def test_both_forms_are_what_the_code_that_trained_it_says(
    make: Any, size: str, map_padding: str, size_hw: tuple[int, int]
) -> None:
    network, images = make(size, map_padding), image(size_hw)
    wanted = plain_answer(network, images)
    for form in (network, FoldedEfficientAd(network, size_hw)):
        answer = form(images)
        assert answer.score is None
        for got, values in zip(answer[:2], wanted, strict=True):
            assert largest(got, values) <= TOLERANCE * float(values.abs().max())


def test_the_border_tells_the_two_orders_apart(make: Any) -> None:
    """Padded before it is scaled, the border is what 0 is scaled to."""
    images = image((256, 256))
    after, before = (FoldedEfficientAd(make(map_padding=one), (256, 256))(images) for one in ("after", "before"))
    assert torch.equal(after.patches, before.patches)
    corner = -0.05 * 0.4 / 1.6 - 0.05 * 0.1 / 0.7
    assert after.anomaly_map[0, 0, 0] == 0 and float(before.anomaly_map[0, 0, 0]) == pytest.approx(corner, abs=1e-6)
    middle = slice(40, -40)
    assert largest(after.anomaly_map[:, middle, middle], before.anomaly_map[:, middle, middle]) <= 1e-6


@pytest.mark.parametrize("buffer", ["mean", "std", "quantiles"])
def test_every_statistic_matters(make: Any, buffer: str) -> None:
    """Control: a fold that forgets one of them does not pass."""
    network, images = make(), image((256, 256))
    before = FoldedEfficientAd(network, (256, 256))(images).patches
    getattr(network, buffer)[0] += 0.1
    assert largest(FoldedEfficientAd(network, (256, 256))(images).patches, before) > 1e-3


@pytest.mark.parametrize("side", [256, 260, 512])
@pytest.mark.parametrize("map_padding", PADDINGS)
def test_padding_and_resize_are_one_product(side: int, map_padding: Any) -> None:
    cells = torch.rand(side // 4 - 8, generator=torch.Generator().manual_seed(1)).double()
    padded = cells if map_padding == "none" else pad(cells, (4, 4))
    wanted = interpolate(padded[None, None], size=side, mode="linear")[0, 0]
    assert largest(enlarging(side, map_padding).double() @ cells, wanted) <= 1e-6


def test_the_decoder_grows_as_published() -> None:
    assert decoder_sides(256) == (3, 8, 15, 32, 63, 127, 56)


@pytest.mark.parametrize("size", SIZES)
def test_the_exported_graph(make: Any, size: str) -> None:
    """Standard operators alone; all layers with work in them may become int8, the squares and what follows may not."""
    network, family = make(size, "before"), model_family("efficientad")
    loaded = LoadedNetwork(network, {}, "")
    fast, published = (form(family, loaded, INPUT, OUTPUT) for form in (fast_module, published_module))
    graph = graph_from_module(fast, (256, 256), batch=None, opset=17)
    checked_graph(
        graph.data, GraphContract(graph.image, graph.outputs, graph.opset, model_family("efficientad").operators)
    )
    parity = check_parity(graph, published, relative=True)
    assert max(parity.patch_map, parity.anomaly_map, parity.pred_score) <= 1e-5

    parsed = Graph.parse(graph.data)
    operators = Counter(node.op_type for node in parsed.model.graph.node)
    layers = 2 * (4 if size == "small" else 6)
    assert operators["Conv"] == layers + 1 + 14 + 2, "the student's last layer is two"
    assert operators["AveragePool"] == 4 and operators["Resize"] == 7 and operators["Sub"] == 3
    plain = {"Conv", "Relu", "AveragePool", "Resize", "Concat", "Sub", "Mul", "Add", "MatMul", "ReduceMax", "Cast"}
    of_sizes = {"Shape", "Slice", "Gather", "Squeeze", "Transpose"}
    assert set(operators) <= plain | of_sizes
    left_float = {layer.name for layer in parsed.convolutions} - {layer.name for layer in parsed.layers}
    assert len(left_float) == 2, "the means over the channels"
    squares = [node for node in parsed.model.graph.node if node.op_type == "Mul" and node.input[0] == node.input[1]]
    assert len(squares) == 2
    readers = {reader.name for square in squares for reader in parsed.consumers[square.output[0]]}
    assert readers == left_float


@pytest.mark.parametrize("size_hw", [(252, 256), (256, 258), (64, 64), (0, 256)])
def test_sizes_that_do_not_work(size_hw: tuple[int, int]) -> None:
    (fault,) = model_family("efficientad").size_faults(size_hw)
    assert fault == f"imgsz: efficientad wants multiples of 4, 256 or more, got {size_hw[0]}x{size_hw[1]}"
    assert model_family("efficientad").size_faults((256, 260)) == []


def test_the_published_sizes() -> None:
    """Weights and multiply-accumulates by hand, at 256x256."""
    with torch.device("meta"):
        networks = {size: EfficientAd(EfficientAdConfig(size, width)) for size, width in WIDTHS.items()}
        assert networks["medium"].student(torch.zeros(1, 3, 256, 256)).shape == (1, 768, 56, 56)
        assert networks["small"].autoencoder(torch.zeros(1, 3, 256, 256)).shape == (1, 384, 56, 56)
    kernels = np.array([3 * 16 * 128, 128 * 16 * 256, 256 * 9 * 256, 256 * 16 * 384])
    count = sum(value.numel() for value in networks["small"].teacher.parameters())
    assert count == kernels.sum() + 128 + 256 + 256 + 384
    work = (np.array([253, 123, 59, 56]) ** 2 * kernels).sum()
    assert work == pytest.approx(15.3e9, rel=0.01)
