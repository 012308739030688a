"""What is written into a picture is read from it, and from what the model sees of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.instruments.soak.fingerprint import LANE_BITS, NUMBER_BITS, Fingerprint, read, stamp

FINGERPRINTS = st.builds(Fingerprint, st.integers(0, 2**LANE_BITS - 1), st.integers(0, 2**NUMBER_BITS - 1))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(fingerprint=FINGERPRINTS, height=st.integers(64, 300), width=st.integers(64, 300))
def test_a_picture_tells_its_number(fingerprint: Fingerprint, height: int, width: int) -> None:
    image = noise(height, width)
    assert read(image) is None
    stamp(image, fingerprint)
    assert read(image) == fingerprint


@settings(max_examples=20, derandomize=True, deadline=None)
@given(fingerprint=FINGERPRINTS)
@pytest.mark.parametrize(
    "spec",
    [
        PreprocessSpec(64, 64, resize_mode="stretch"),
        PreprocessSpec(64, 96, resize_mode="letterbox"),
        PreprocessSpec(224, 224, resize_mode="shorter_side_crop", resize=256),
        PreprocessSpec(288, 288, resize_mode="shorter_side_crop", resize=329),
    ],
    ids=str,
)
def test_it_survives_what_the_model_is_shown(spec: PreprocessSpec, fingerprint: Fingerprint) -> None:
    scale = max(1.0, 256 / min(spec.size_hw))
    image = noise(round(spec.height * scale), round(spec.width * scale))
    stamp(image, fingerprint)
    seen = Preprocessor(spec)(image)
    assert read(seen.image_hwc, seen.geometry) == fingerprint


def test_pictures_that_follow_each_other_differ_in_brightness() -> None:
    levels = [Fingerprint(lane, number).level for lane in range(2) for number in range(60)]
    assert len(set(levels[:60])) == 60
    assert all(one != other for one, other in zip(levels[:60], levels[60:], strict=True))
