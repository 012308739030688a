"""A detector refuses frames that show nothing, whatever colour surrounds them on its canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from edge_ad.bundle.bundle import Bundle, write_bundle
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, ResizeMode, TensorSpec, Thresholds, UsabilityLimits
from edge_ad.image.sharpness import sharpness
from edge_ad.runtime.judge.loader import open_detector

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


def _checkered(seed: int = 0) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(60, 200, (30, 54))
    return np.repeat(np.kron(blocks, np.ones((3, 3)))[:90, :160, None], 3, axis=2).astype(np.uint8)


def test_a_blurred_frame_is_unusable_where_the_bundle_knows_the_lines_sharpness(bundles: dict[str, Bundle]) -> None:
    blurred = gaussian_filter(_checkered(), (4, 4, 0))
    with open_detector(bundles["stretch"], engine="fake") as detector:
        assert detector.judge(blurred).status == "ok"
        prepared = [detector.prepare(image).model_input.image_hwc for image in (_checkered(), blurred)]
    values = [sharpness(image) for image in prepared]
    assert values[0] is not None
    assert values[1] is not None
    limit = values[0] / 2
    knowing = bundles["stretch"].with_usability(UsabilityLimits(30, limit))
    with open_detector(knowing, engine="fake") as detector:
        assert detector.judge(_checkered()).status == "ok"
        verdict = detector.judge(blurred)
    assert (verdict.status, verdict.verdict, verdict.score) == ("unusable", None, None)
    assert verdict.reason == (
        f"the frame is far blurrier than the line's good frames: sharpness {values[1]:.2g}, limit {limit:.2g};"
        " check focus, motion and lens"
    )


def test_limits_that_refuse_everything_do_not_keep_the_engine_from_warming_up(bundles: dict[str, Bundle]) -> None:
    hopeless = bundles["stretch"].with_usability(UsabilityLimits(30, 1e6))
    with open_detector(hopeless, engine="fake") as detector:
        assert detector.judge(_checkered()).status == "unusable"


def test_black_frames_of_a_dark_field_line_are_judged(bundles: dict[str, Bundle]) -> None:
    dark = bundles["letterbox"].with_usability(UsabilityLimits(30, None, black_below=0, one_colour=True))
    with open_detector(dark, engine="fake") as detector:
        assert detector.judge(np.zeros((*FRAME_HW, 3), np.uint8)).status == "ok"
        assert detector.judge(np.full((*FRAME_HW, 3), 255, np.uint8)).status == "unusable"
