"""Overlays of what is inspected: heat ends where a polygon ends, also in a frame whose part has moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.inspection import Inspection
from edge_ad.bundle.specs import PreprocessSpec, Thresholds
from edge_ad.image.boxes import cropped
from edge_ad.image.frame import Frame
from edge_ad.image.inspected import Inspector
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.sinks.pictures import draw_overlay

LEFT = ((0.0, 0.0), (32.0, 0.0), (32.0, 64.0), (0.0, 64.0))


def test_what_is_not_inspected_is_not_coloured(fake_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    frame = Frame(0, "camera", datetime.now(timezone.utc), 0, image)
    bundle = fake_bundle(tmp_path / "b.edgead", thresholds=Thresholds(0.3))
    with open_detector(bundle, engine="fake") as detector:
        prepared = detector.prepare(image, inspector=Inspector(Inspection(polygons=(LEFT,))))
        verdict = replace(detector.conclude(prepared, detector.infer([prepared])), regions=())
        control = replace(detector.judge(image), regions=())
    inner = np.s_[20:60, 36:60]
    bgr = image[..., ::-1]
    picture, whole = draw_overlay(frame, verdict), draw_overlay(frame, control)
    np.testing.assert_array_equal(picture[inner], bgr[inner])
    assert (whole[inner] != bgr[inner]).mean() > 0.5
    assert (picture[20:60, 4:28] != bgr[20:60, 4:28]).mean() > 0.5


@pytest.mark.parametrize("shift", [(-9, 5), (30, -30), (0, 0)])
def test_a_part_beyond_the_frame_repeats_its_edge(shift: tuple[int, int]) -> None:
    """What the model is shown is NumPy's edge padding, and the geometry says what of it lies in the frame."""
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    (dx, dy), (height, width) = shift, image.shape[:2]
    box = dx, dy, width + dx, height + dy
    padded = np.pad(image, ((40, 40), (40, 40), (0, 0)), mode="edge")
    np.testing.assert_array_equal(cropped(image, box), padded[40 + dy : 40 + dy + height, 40 + dx : 40 + dx + width])
    made = Preprocessor(PreprocessSpec(32, 32, resize_mode="stretch"), threads=1)(cropped(image, box))
    geometry = made.geometry.within((height, width), box)
    assert geometry.is_inside == (shift == (0, 0))
    assert geometry.inspected_box == (max(0, dx), max(0, dy), min(width, width + dx), min(height, height + dy))
