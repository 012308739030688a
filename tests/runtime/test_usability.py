"""Frames that show nothing are refused; frames that show little are judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle import Bundle, write_bundle
from edge_ad.runtime.detector import open_detector
from edge_ad.runtime.usability import unusable_reason
from edge_ad.specs import PostprocessSpec, PreprocessSpec, ResizeMode, TensorSpec, Thresholds

FRAME_HW = (90, 160)


def _texture(low: int, high: int) -> np.ndarray:
    """A part with structure: stripes and a disc between two grey levels, a little noise on top."""
    y, x = np.mgrid[: FRAME_HW[0], : FRAME_HW[1]]
    pattern = 0.5 + 0.3 * np.sin(x / 7) + 0.2 * (np.hypot(y - 40, x - 80) < 30)
    noise = np.random.default_rng(0).normal(0, 1, (*FRAME_HW, 3))
    return np.clip(low + (high - low) * pattern[..., None] + noise, 0, 255).astype(np.uint8)


def _flat(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((*FRAME_HW, 3), (red, green, blue), np.uint8)


def _covered_lens() -> np.ndarray:
    return np.random.default_rng(0).poisson(2.0, (*FRAME_HW, 3)).astype(np.uint8)


def _one_dead_pixel() -> np.ndarray:
    image = _flat(0, 0, 0)
    image[30:33, 60:63] = 255
    return image


UNUSABLE: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "black": (lambda: _flat(0, 0, 0), "black"),
    "covered lens": (_covered_lens, "black"),
    "black with a hot pixel": (_one_dead_pixel, "black"),
    "white": (lambda: _flat(255, 255, 255), "saturated"),
    "overexposed": (lambda: 255 - _covered_lens(), "saturated"),
    "grey": (lambda: _flat(128, 128, 128), "one colour"),
    "green frame of a broken stream": (lambda: _flat(0, 135, 0), "one colour"),
    "blue screen": (lambda: _flat(0, 0, 255), "one colour"),
}
USABLE: dict[str, Callable[[], np.ndarray]] = {
    "dark part": lambda: _texture(4, 40),
    "bright part": lambda: _texture(215, 254),
    "ordinary part": lambda: _texture(60, 190),
    "faint texture": lambda: _texture(126, 131),
    "backlight: half white, half black": lambda: np.where(_texture(0, 255) > 128, 255, 0).astype(np.uint8),
    "red part": lambda: _texture(20, 200) * np.array([1, 0, 0], np.uint8),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_nothing_to_see(name: str) -> None:
    make, reason = UNUSABLE[name]
    assert reason in str(unusable_reason(make()))


@pytest.mark.parametrize("name", USABLE)
def test_something_to_see(name: str) -> None:
    assert unusable_reason(USABLE[name]()) is None


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
    """Padding has another colour than a white or grey frame, and must not make it look like a picture."""
    with open_detector(bundles[mode].path, engine="fake") as detector:
        for name, (make, _) in UNUSABLE.items():
            if name == "black with a hot pixel":  # whether it is averaged away depends on the mode
                continue
            verdict = detector.judge(make())
            assert (verdict.status, verdict.verdict, verdict.score) == ("unusable", None, None), name
        for name, make_usable in USABLE.items():
            assert detector.judge(make_usable()).status == "ok", name
