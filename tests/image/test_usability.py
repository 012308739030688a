"""Frames that show nothing are refused; frames that show little are judged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.preprocess import Preprocessor
from edge_ad.image.usability import unusable_input, unusable_reason

FRAME_HW = (90, 160)
PAD_RGB = (114, 114, 114)  # grey, as detectors like YOLO have it
SPECS = {
    "shorter_side_crop": PreprocessSpec(64, 64, "shorter_side_crop", resize=48, pad_rgb=PAD_RGB),  # padded on all sides
    "stretch": PreprocessSpec(64, 64, "stretch", pad_rgb=PAD_RGB),
    "letterbox": PreprocessSpec(64, 64, "letterbox", pad_rgb=PAD_RGB),
}


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


@pytest.mark.parametrize("mode", SPECS)
def test_padding_does_not_count(mode: str) -> None:
    """Padding has another colour than a white or grey frame, and must not make it look like a picture."""
    preprocess = Preprocessor(SPECS[mode], threads=1)
    for name, (make, reason) in UNUSABLE.items():
        if name == "black with a hot pixel":  # whether it is averaged away depends on the mode
            continue
        assert reason in str(unusable_input(preprocess(make()))), name
    for name, make_usable in USABLE.items():
        assert unusable_input(preprocess(make_usable())) is None, name


def test_with_its_padding_a_white_frame_would_be_taken_for_a_picture() -> None:
    padded = Preprocessor(SPECS["letterbox"], threads=1)(_flat(255, 255, 255))
    assert unusable_reason(padded.image_hwc) is None
    assert unusable_input(padded) is not None
