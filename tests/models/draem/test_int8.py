"""DRAEM in int8: every convolution but the last, proven by the gate, on pictures of a network that was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle.bundle import Bundle
from edge_ad.calibration.quantize import quantized
from edge_ad.calibration.quantize.calibrate import Calibration, calibrate
from edge_ad.cli.main import main
from edge_ad.export.parity import probe_images
from edge_ad.openvino_core import openvino_core

CONVOLUTIONS = 51  # 23 of the reconstruction, 28 of the segmentation; six of these read two tensors at once


@pytest.fixture(scope="module")
def exported(train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has seen enough to tell the blots from the waves. Do not change it."""
    folder = tmp_path_factory.mktemp("exported")
    train(folder / "run", imgsz="64x64", epochs=12, base_width=8, base_channels=8, select="last", eval_every=0)
    assert main(["export", str(folder / "run"), "-o", str(folder / "float.edgead")]) == 0
    return folder / "float.edgead"


def maps_on_openvino(data: bytes) -> np.ndarray:
    core = openvino_core()
    network = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array([network([image[None]])["patch_map"][0] for image in probe_images((64, 64), count=8)])


def test_it_passes_the_gate_without_a_layer_in_float(
    exported: Path,
    parts: Path,
    tmp_path: Path,
    engine_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantized, "_speed_up", lambda *_: 2.0)  # small models on busy machines vary
    output = tmp_path / "int8.edgead"
    images = ["--data", str(parts / "train" / "good"), "--val", str(parts)]
    caches = ["--calibration-cache", str(tmp_path / "calibrations"), "--engine-cache", str(engine_cache)]
    assert main(["calibrate", str(exported), *images, *caches, "-o", str(output)]) == 0
    record = Bundle.read(output).manifest.quantization["int8"]
    assert (record.gate, record.float_layers) == ("passed", ())
    assert record.layers == CONVOLUTIONS - 1 + 6
    assert record.map_correlation is not None and record.map_correlation > 0.98


def test_the_maps_on_openvino_are_those_of_the_float_model(tiny_draem: Path) -> None:
    """Of drawn weights, which make more of every error than a training does; and the comparison sees a wrong range."""
    bundle = Bundle.read(tiny_draem)
    graph = bundle.read_graph("fp32")
    wanted = maps_on_openvino(graph)

    def correlation(data: bytes) -> float:
        return float(np.corrcoef(maps_on_openvino(data).ravel(), wanted.ravel())[0, 1])

    assert wanted.std() > 0.05
    assert correlation(bundle.read_graph("int8")) > 0.98  # measured 0.993
    images = list(probe_images((64, 64), count=3))
    calibration, _ = calibrate(graph, lambda _: images, "min-max")
    first = next(layer for layer in calibration.layers if "encoder_segment/block1/block1.0" in layer)
    source = next(layer.source for layer in calibration.graph.layers if layer.name == first)
    ranges = {**calibration.ranges, source: calibration.ranges[source] / 4}
    assert correlation(Calibration(calibration.graph, ranges, calibration.weights).build()) < 0.95
