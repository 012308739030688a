"""Pictures judged in tiles inside of the graph, against the network that sees all of them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.graph.operators import COMMON
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.bundle.tiles import TileGrid
from edge_ad.errors import ConfigError
from edge_ad.export.onnx_graph import OnnxGraph, graph_from_module
from edge_ad.export.parity import probe_images
from edge_ad.image.tiles import joined_map, shared_cells
from edge_ad.models.contract import Answer, ContractModule
from edge_ad.models.efficientad.config import BORDER, EfficientAdConfig
from edge_ad.models.efficientad.network import pdn
from edge_ad.models.tiling import Tiling
from edge_ad.openvino_core import openvino_core

GRIDS = [(1, 3, 64, 96, 32), (3, 2, 96, 64, 32), (2, 3, 128, 128, 96), (1, 1, 64, 64, 32)]
SPEC = PostprocessSpec(activation="none")
RELATIVE = 2e-5


class Local(nn.Module):
    """Patches of 8 pixels that look 11 pixels around them, past the edge of the picture at zeros.

    Args:
        reach: patches that it looks at in each direction.
    """

    def __init__(self, reach: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 10, 8, padding=1), nn.Conv2d(6, 1, 2 * reach + 1, padding=reach)

    def forward(self, image: torch.Tensor) -> Any:
        return self.second(torch.relu(self.first(image))).squeeze(1)


class Told(Local):
    """The same with an anomaly map and a score of its own."""

    def forward(self, image: torch.Tensor) -> Answer:
        patches = super().forward(image)
        return Answer(patches, image[:, 0] * 2 + image[:, 1], patches.mean((1, 2)))


def spec_of(size_hw: tuple[int, int]) -> PreprocessSpec:
    return PreprocessSpec(*size_hw, resize_mode="stretch")


def images(grid: TileGrid) -> np.ndarray[Any, Any]:
    return probe_images(grid.canvas_hw, count=3, seed=4)


def exported(module: nn.Module, grid: TileGrid, batch: int | None = None) -> OnnxGraph:
    graph = graph_from_module(module, grid.canvas_hw, batch=batch, opset=17)
    checked_graph(graph.data, GraphContract(graph.image, graph.outputs, graph.opset, COMMON))
    return graph


@pytest.mark.parametrize("numbers", GRIDS)
def test_no_seam_is_in_a_map_whose_patches_look_less_far_than_half_of_the_strip(numbers: tuple[int, ...]) -> None:
    grid, head = TileGrid(*numbers), Local().double()
    tiling = Tiling(grid, (grid.height // 8, grid.width // 8))
    picture = torch.rand(2, *grid.canvas_hw, 3, dtype=torch.float64)
    wanted = head(picture.permute(0, 3, 1, 2))
    found, _, _ = tiling.joined(head(tiling.cut(picture).permute(0, 3, 1, 2)), None, None)
    assert tiling.patch_hw == tuple(wanted.shape[1:])
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


def test_one_that_looks_farther_has_seams() -> None:
    """Negative control."""
    grid, head = TileGrid(1, 2, 64, 64, 32), Local(reach=3).double()
    tiling = Tiling(grid, (8, 8))
    picture = torch.rand(1, *grid.canvas_hw, 3, dtype=torch.float64)
    off = tiling.joined(head(tiling.cut(picture).permute(0, 3, 1, 2)), None, None)[0] - head(
        picture.permute(0, 3, 1, 2)
    )
    columns = off.detach().abs().amax((0, 1))
    assert float(columns[:3].max()) < 1e-12 < 1e-3 < float(columns[5:7].max())


@pytest.mark.parametrize("numbers", GRIDS)
def test_the_graph_in_tiles_is_that_of_the_whole_picture(numbers: tuple[int, ...]) -> None:
    grid, head = TileGrid(*numbers), Local()
    whole = ContractModule(head, spec_of(grid.canvas_hw), SPEC).eval()
    graph = exported(ContractModule(head, spec_of(grid.tile_hw), SPEC, grid).eval(), grid)
    assert graph.image.shape == (None, *grid.canvas_hw, 3)
    with torch.no_grad():
        wanted = [tensor.numpy() for tensor in whole(torch.from_numpy(images(grid)))]
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    core = openvino_core()
    compiled = core.compile_model(core.read_model(graph.data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 3):
        batch = images(grid)[:count]
        ours = session.run(None, {"image": batch})
        theirs = [compiled(batch)[output] for output in compiled.outputs]
        for found in (ours, theirs):
            for ours_, right in zip(found, wanted, strict=True):
                assert ours_.shape == right[:count].shape
                assert np.abs(ours_ - right[:count]).max() <= RELATIVE * np.abs(right).max()


@pytest.mark.parametrize("batch", [None, 2])
def test_maps_and_scores_of_its_own_are_joined_too(batch: int | None) -> None:
    grid, head = TileGrid(2, 3, 64, 96, 32), Told()
    spec = PostprocessSpec(activation="none", frame_map="anomaly_map", score="family", score_range=(None, None))
    graph = exported(ContractModule(head, spec_of(grid.tile_hw), spec, grid).eval(), grid, batch)
    given = images(grid)[:2]
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    patch_map, anomaly_map, score = session.run(None, {"image": given})
    normal = (given / 255 - np.array(spec_of((1, 1)).mean)) / np.array(spec_of((1, 1)).std)
    assert np.allclose(anomaly_map, 2 * normal[..., 0] + normal[..., 1], atol=1e-4)
    tiles = np.stack(
        [normal[:, top : top + 64, left : left + 96].transpose(0, 3, 1, 2) for top, left in grid.origins], axis=1
    ).astype(np.float32)
    with torch.no_grad():
        answers = [head(torch.from_numpy(one)) for one in tiles]
    for number, answer in enumerate(answers):
        assert np.allclose(score[number], float(answer.score.max()), atol=1e-5)
        joined = joined_map(answer.patches.numpy(), grid, shared_cells(grid, (8, 12)))
        assert np.allclose(patch_map[number], joined, atol=1e-5)


def test_tiles_of_a_picture_are_consecutive_and_row_by_row() -> None:
    grid = TileGrid(2, 2, 64, 64, 32)
    picture = torch.rand(2, *grid.canvas_hw, 3)
    cut = Tiling(grid, (8, 8)).cut(picture)
    for number in range(8):
        top, left = grid.origins[number % 4]
        assert torch.equal(cut[number], picture[number // 4, top : top + 64, left : left + 64])


def test_networks_that_lose_their_border_are_joined_cell_by_cell() -> None:
    """EfficientAD's teacher is without padding: in tiles it says the very same of every cell."""
    torch.manual_seed(1)
    teacher = pdn(EfficientAdConfig("small", 4, 2), 2).eval().double()
    grid = TileGrid(1, 2, 256, 256, 64)
    tiling = Tiling(grid, (56, 56), BORDER)
    picture = torch.rand(1, *grid.canvas_hw, 3, dtype=torch.float64)
    with torch.no_grad():
        wanted = teacher(picture.permute(0, 3, 1, 2))[:, 0]
        found, _, _ = tiling.joined(teacher(tiling.cut(picture).permute(0, 3, 1, 2))[:, 0], None, None)
    assert found.shape == wanted.shape and torch.allclose(found, wanted, rtol=0, atol=1e-12)


def test_patches_that_lie_on_no_common_grid() -> None:
    with pytest.raises(ConfigError, match="tile_overlap"):
        Tiling(TileGrid(1, 2, 64, 64, 32), (9, 9))
