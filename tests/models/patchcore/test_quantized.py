"""The search in int8: the same in both engines, close to float, and no shorter for what no good picture showed."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_ad.bundle.graph.check import checked_graph
from edge_ad.bundle.graph.contract import GraphContract
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.calibration.quantize import qdq
from edge_ad.calibration.quantize.calibrate import Calibration, calibrate
from edge_ad.calibration.quantize.lint import check_qdq
from edge_ad.export.onnx_graph import OnnxGraph, graph_from_module
from edge_ad.export.parity import probe_images
from edge_ad.models.contract import ContractModule
from edge_ad.models.patchcore.family import FAMILY
from edge_ad.models.patchcore.fold import FoldedPatchCore
from edge_ad.models.patchcore.network import PatchCore
from edge_ad.models.patchcore.specs import OUTPUT, SCORES
from edge_ad.openvino_core import openvino_core

Make = Callable[..., PatchCore]
SIZE_HW = (64, 64)
PREPROCESS = PreprocessSpec(*SIZE_HW, resize_mode="stretch")
Calibrated = tuple[OnnxGraph, Calibration]


@pytest.fixture(scope="module", params=["map_max", "reweighted"])
def calibrated(make: Make, request: pytest.FixtureRequest) -> Calibrated:
    """A float graph, and what calibration on dull pictures gives."""
    spec = OUTPUT.with_score(request.param, SCORES)
    network = make(60, distance="root")
    module = ContractModule(FoldedPatchCore(network, SIZE_HW, spec), PREPROCESS, spec).eval()
    graph = graph_from_module(module, SIZE_HW, batch=None, opset=17)
    return graph, calibrate(graph.data, lambda _: iter(dull(6)), "min-max")[0]


def dull(count: int, seed: int = 1) -> np.ndarray:
    """Of little contrast: (count, 64, 64, 3) uint8."""
    images = probe_images(SIZE_HW, count + 1, seed)[1:].astype(np.float64)
    return (128 + 0.1 * (images - 128)).astype(np.uint8)


def of_onnxruntime(data: bytes, images: np.ndarray) -> list[Any]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"image": images}))


def of_openvino(data: bytes, images: np.ndarray) -> list[Any]:
    core = openvino_core()
    told = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(BytesIO(data)), "CPU", told)
    found = compiled(images)
    return [found[output] for output in compiled.outputs]


def search_of(calibration: Calibration) -> list[str]:
    return [name for name in calibration.layers if "search/blocks" in name]


def test_the_search_is_a_layer(calibrated: Calibrated) -> None:
    graph, calibration = calibrated
    searches = search_of(calibration)
    assert len(searches) == 2, "one for each tap, with a range of its own"
    data = calibration.build()
    check_qdq(data)
    checked_graph(data, GraphContract(graph.image, graph.outputs, graph.opset, FAMILY.operators))
    nodes = {node.name: node for node in onnx.load_model_from_string(data).graph.node}
    made_by = {name: node.op_type for node in nodes.values() for name in node.output}
    assert all(made_by[name] == "DequantizeLinear" for search in searches for name in nodes[search].input[:2])
    floats = [node for node in nodes.values() if node.op_type in ("AveragePool", "Pow", "GatherElements", "ReduceMin")]
    assert floats and not any(made_by.get(node.input[0]) == "DequantizeLinear" for node in floats)
    assert not any("reweight" in name for name in calibration.layers)


def test_both_engines_give_the_same_and_nearly_the_float_answer(calibrated: Calibrated) -> None:
    graph, calibration = calibrated
    images = dull(3, seed=7)
    wanted = of_onnxruntime(graph.data, images)
    for floats in ((), search_of(calibration)):
        data = calibration.build(floats)
        one, other = of_onnxruntime(data, images), of_openvino(data, images)
        for float_value, value, same in zip(wanted, one, other, strict=True):
            largest = np.abs(float_value).max()
            assert np.abs(value - same).max() <= 0.01 * largest
            assert np.abs(value - float_value).max() <= 0.05 * largest


def test_a_distance_does_not_end_where_the_good_pictures_do(
    calibrated: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, calibration = calibrated
    x = np.arange(64)
    checks = np.where(np.add.outer(x // 2, x // 2) % 2, 0, 255).astype(np.uint8)
    garish = np.repeat(checks[None, :, :, None], 3, axis=3)
    kept = [name for name in calibration.layers if name not in search_of(calibration)]
    (wanted,) = of_onnxruntime(graph.data, garish)[2]
    (found,) = of_onnxruntime(calibration.build(kept), garish)[2]
    assert found >= 0.995 * wanted
    monkeypatch.setattr(qdq, "FLOAT_READERS", frozenset({"Conv"}))
    (ended,) = of_onnxruntime(calibration.build(kept), garish)[2]
    assert ended < 0.96 * wanted, "with a square of what is rounded it would"
