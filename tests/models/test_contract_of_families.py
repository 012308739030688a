"""The contract around networks of every kind: in torch, ONNX Runtime and OpenVINO the same, and in NumPy by hand."""

from __future__ import annotations

from dataclasses import replace
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
from edge_ad.errors import ConfigError, EngineError
from edge_ad.export.onnx_graph import OnnxGraph, graph_from_module
from edge_ad.export.parity import probe_images
from edge_ad.image.geometry import place
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.padding import frame_score, without_padding
from edge_ad.image.scores import score_of
from edge_ad.models.contract import Answer, ContractModule
from edge_ad.openvino_core import openvino_core
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import ResizeSmoothPlan

SIZE_HW, PATCH_HW = (32, 48), (8, 12)
PREPROCESS = PreprocessSpec(*SIZE_HW, resize_mode="stretch")
RELATIVE = 2e-5
BOX = PostprocessSpec(activation="none", smoothing="box", size=5)
SPECS = {
    "box, highest": BOX,
    "box, mean of the highest": replace(BOX, score="top_mean", top_pixels=40),
    "box, more pixels than there are": replace(BOX, score="top_mean", top_pixels=10**6),
    "none, patches": PostprocessSpec(activation="none", smoothing="none", score="patch_max"),
    "nearest, mirror": PostprocessSpec(activation="none", resize="nearest", border="reflect101"),
    "probabilities, box": PostprocessSpec(smoothing="box", size=21),
}


class Answers(nn.Module):
    """Patches in the tens, most of them negative."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.answer = nn.Conv2d(3, 1, 4, stride=4)
        self.answer.weight.data = torch.randn(self.answer.weight.shape, generator=generator)
        self.answer.bias.data = torch.tensor([-20.0])  # type: ignore[union-attr]

    def forward(self, image: torch.Tensor) -> Any:
        return self.answer(image).squeeze(1)


def module(spec: PostprocessSpec) -> ContractModule:
    return ContractModule(Answers(), PREPROCESS, spec).eval()


def of_torch(spec: PostprocessSpec, images: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [output.numpy() for output in module(spec)(torch.from_numpy(images))]


def of_openvino(graph: OnnxGraph, images: np.ndarray) -> list[np.ndarray]:
    from io import BytesIO

    core = openvino_core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(BytesIO(graph.data)), "CPU", exact)
    found = compiled(images)
    return [found[output] for output in compiled.outputs]


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("name", SPECS)
def test_every_engine_gives_the_same(name: str, batch: int | None) -> None:
    spec, images = SPECS[name], probe_images(SIZE_HW, 2)
    graph = graph_from_module(module(spec), SIZE_HW, batch=batch, opset=17)
    checked_graph(graph.data, GraphContract(graph.image, graph.outputs, graph.opset, COMMON))
    wanted = of_torch(spec, images)
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    for found in (session.run(None, {"image": images}), of_openvino(graph, images)):
        for one, other in zip(found, wanted, strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=0, atol=RELATIVE * np.abs(other).max())


@pytest.mark.parametrize("name", SPECS)
def test_maps_and_scores_are_those_of_the_shared_operators(name: str) -> None:
    """What the graph computes, and what judges and self-tests compute, is one thing."""
    spec, images = SPECS[name], probe_images(SIZE_HW, 2)
    patch_map, anomaly_map, score = of_torch(spec, images)
    normalised = (images / 255 - np.array(PREPROCESS.mean)) / np.array(PREPROCESS.std)
    with torch.no_grad():
        answers = Answers()(torch.from_numpy(normalised.astype(np.float32)).permute(0, 3, 1, 2)).numpy()
    patches = answers if spec.activation == "none" else 1 / (1 + np.exp(-answers))
    np.testing.assert_allclose(patch_map, patches, rtol=1e-4, atol=1e-5)
    assert spec.activation == "sigmoid" or patch_map.min() < -20
    smooth = ResizeSmooth(PATCH_HW, SIZE_HW, spec)(patch_map)
    np.testing.assert_allclose(anomaly_map, smooth, rtol=0, atol=RELATIVE * np.abs(smooth).max())
    np.testing.assert_allclose(score, score_of(patch_map, anomaly_map, spec), rtol=1e-5)


@pytest.mark.parametrize("frame_hw", [(40, 160), (160, 40), (32, 48)])
@pytest.mark.parametrize("name", SPECS)
def test_padding_counts_nowhere(name: str, frame_hw: tuple[int, int]) -> None:
    """A hot patch in the padding of a letterbox is none, whatever the smoothing and the score."""
    spec = SPECS[name]
    geometry = place(PreprocessSpec(64, 64, resize_mode="letterbox"), frame_hw)
    x_min, y_min, x_max, y_max = geometry.content_box
    rows, columns = slice(y_min // 8, -(-y_max // 8)), slice(x_min // 8, -(-x_max // 8))
    quiet = np.full((8, 8), 0.25, np.float32)
    quiet[rows, columns] += np.random.default_rng(0).random((8, 8), np.float32)[rows, columns] / 4
    loud = np.full((8, 8), 9.0, np.float32)
    loud[rows, columns] = quiet[rows, columns]
    smooth = ResizeSmooth((8, 8), (64, 64), spec)
    found = []
    for patch_map in (quiet, loud):
        patches, pixels = without_padding(patch_map, smooth(patch_map), geometry, spec)
        found.append(frame_score(patches, pixels, 99.0, geometry, spec))
    assert not geometry.is_filled
    assert found[0] == found[1] and 0 < found[0] <= 0.5
    continued = np.pad(quiet[rows, columns], [(rows.start, 8 - rows.stop), (columns.start, 8 - columns.stop)], "edge")
    inside = smooth(continued)[y_min:y_max, x_min:x_max]
    wanted = score_of(continued[None, rows, columns], inside[None], spec)
    assert wanted is not None and found[0] == wanted[0]


def test_a_score_of_the_graph_is_left_to_it() -> None:
    spec = PostprocessSpec(score="family", score_range=(0.0, 100.0), frame_map="anomaly_map")
    geometry = place(PreprocessSpec(64, 64, resize_mode="letterbox"), (20, 64))
    patch_map, anomaly_map = np.zeros((8, 8), np.float32), np.random.default_rng(0).random((64, 64), np.float32)
    same = without_padding(patch_map, anomaly_map, geometry, spec)
    assert same[0] is patch_map and same[1] is anomaly_map
    assert frame_score(patch_map, anomaly_map, 41.5, geometry, spec) == 41.5


@pytest.mark.parametrize(
    "spec",
    [
        PostprocessSpec(score="top_mean", top_pixels=9),
        PostprocessSpec(score="family", score_range=(0.0, 1.0)),
        PostprocessSpec(score="reweighted", score_range=(0.0, 1.0)),
    ],
    ids=lambda spec: spec.score,
)
@pytest.mark.parametrize("grid", ["on_model_grid", "on_frame"])
def test_the_kernel_refuses_scores_that_it_does_not_know(spec: PostprocessSpec, grid: str) -> None:
    geometry = place(PreprocessSpec(64, 64, resize_mode="stretch"), (90, 70))
    with pytest.raises(EngineError, match=f"score '{spec.score}' is none of its own"):
        getattr(ResizeSmoothPlan, grid)(geometry, (8, 8), spec)
    getattr(ResizeSmoothPlan, grid)(geometry, (8, 8), PostprocessSpec(smoothing="box", size=21))  # control


def test_the_kernel_refuses_maps_that_are_no_smoothing() -> None:
    """It would make another anomaly map than the graph, and judge by it."""
    geometry = place(PreprocessSpec(64, 64, resize_mode="stretch"), (90, 70))
    with pytest.raises(EngineError, match="anomaly map is no smoothing of its patch map"):
        ResizeSmoothPlan.on_model_grid(geometry, (8, 8), PostprocessSpec(frame_map="anomaly_map"))


class Told(nn.Module):
    """A head that answers as told."""

    def __init__(self, **own: tuple[int, ...]) -> None:
        super().__init__()
        self._own = own

    def forward(self, image: torch.Tensor) -> Answer:
        return Answer(image.mean(1), **{name: image.new_ones(shape) for name, shape in self._own.items()})


OWN_SCORE = PostprocessSpec(score="family", score_range=(0.0, 1.0))
OWN_MAP = PostprocessSpec(frame_map="anomaly_map")


@pytest.mark.parametrize(
    ("spec", "own", "told"),
    [
        (OWN_SCORE, {}, "score: 'family' has to give one of its own"),
        (PostprocessSpec(), {"score": (1,)}, "score: 'map_max' is taken from a map, the network must not give one"),
        (OWN_MAP, {}, "frame_map: with 'anomaly_map' the network has to give an anomaly map"),
        (PostprocessSpec(), {"anomaly_map": (1, 64, 64)}, "frame_map: with 'patch_map' the network must not give"),
        (OWN_MAP, {"anomaly_map": (1, 8, 64)}, r"anomaly_map: wanted \(64, 64\), the network gives \(8, 64\)"),
    ],
)
def test_a_head_answers_what_its_spec_says(spec: PostprocessSpec, own: dict[str, tuple[int, ...]], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ContractModule(Told(**own), PreprocessSpec(64, 64), spec)


def test_maps_and_scores_of_a_head_are_passed_on() -> None:
    spec = replace(OWN_SCORE, frame_map="anomaly_map")
    module = ContractModule(Told(anomaly_map=(2, 64, 64), score=(2,)), PreprocessSpec(64, 64), spec)
    images = probe_images((64, 64), 2)
    patch_map, anomaly_map, score = module(torch.from_numpy(images))
    assert patch_map.shape == (2, 64, 64) and (anomaly_map == 1).all() and score.tolist() == [1.0, 1.0]
