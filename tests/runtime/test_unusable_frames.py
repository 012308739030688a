"""A detector refuses frames that show nothing, whatever colour surrounds them on its canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_ad.bundle import Bundle, write_bundle
from edge_ad.runtime.detector import open_detector
from edge_ad.specs import PostprocessSpec, PreprocessSpec, ResizeMode, TensorSpec, Thresholds

FRAME_HW = (90, 160)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """One bundle for each way of fitting a frame; padding in grey, as detectors like YOLO have it."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {}
    modes: tuple[tuple[ResizeMode, dict[str, Any]], ...] = (
        ("shorter_side_crop", {"resize": 48}),  # smaller than the crop: padded
        ("stretch", {}),
        ("letterbox", {}),
    )
    for mode, more in modes:
        fields: dict[str, Any] = {
            "model": {"family": "none", "config": {}},
            "preprocess": PreprocessSpec(64, 64, mode, pad_rgb=(114, 114, 114), **more),
            "postprocess": PostprocessSpec(),
            "input": TensorSpec("image", (None, 64, 64, 3), "uint8"),
            "outputs": (
                TensorSpec("patch_map", (None, 16, 16), "float32"),
                TensorSpec("anomaly_map", (None, 64, 64), "float32"),
                TensorSpec("pred_score", (None,), "float32"),
            ),
            "opset": 17,
            "models": {"fp32": "model.onnx"},
            "thresholds": Thresholds(0.9),
        }
        made[mode] = write_bundle(folder / mode, fields, {"model.onnx": b"never read by the fake engine"})
    return made


@pytest.mark.parametrize("mode", ["shorter_side_crop", "stretch", "letterbox"])
def test_a_detector_sees_through_the_padding(bundles: dict[str, Bundle], mode: str) -> None:
    stripes = np.zeros((*FRAME_HW, 3), np.uint8)
    stripes[:, ::20] = stripes[:, 1::20] = 90
    with open_detector(bundles[mode].path, engine="fake") as detector:
        for level in (0, 128, 255):
            verdict = detector.judge(np.full((*FRAME_HW, 3), level, np.uint8))
            assert (verdict.status, verdict.verdict, verdict.score) == ("unusable", None, None), level
            assert verdict.reason is not None and "the frame" in verdict.reason
        assert detector.judge(stripes).status == "ok"
