"""A camera's region of interest: judged as the cropped picture would be, spoken of in pixels of the whole frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, Thresholds
from edge_ad.errors import ImageError
from edge_ad.image.frame import Box, ImageArray
from edge_ad.image.operators import resize_smooth_matrix
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import ResizeSmoothPlan
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.sinks.coverage import CoverageWarning

MODES = ("stretch", "letterbox", "shorter_side_crop")
FRAME_HW = (120, 170)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory, fake_bundle: Callable[..., Bundle]) -> Any:
    folder, made = tmp_path_factory.mktemp("bundles"), {}
    for mode in MODES:
        preprocess = PreprocessSpec(32, 32, resize_mode=mode, resize=36 if mode == "shorter_side_crop" else None)
        bundle = fake_bundle(folder / f"{mode}.edgead", preprocess=preprocess, thresholds=Thresholds(0.5))
        made[mode] = open_detector(bundle, engine="fake").__enter__()
    yield made
    for detector in made.values():
        detector.__exit__(None, None, None)


def judge(detector: Detector, image: ImageArray, roi: Box | None) -> Verdict:
    verdict = detector.judge(image, roi=roi)
    assert verdict.status == "ok"
    return verdict


def picture(seed: int) -> ImageArray:
    """Grey noise, and a bright rectangle somewhere."""
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 90, (*FRAME_HW, 3), dtype=np.uint8)
    top, left = int(rng.integers(0, 90)), int(rng.integers(0, 130))
    image[top : top + 30, left : left + 40] = 250
    return image


def shifted(box: Box, roi: Box) -> Box:
    return box[0] + roi[0], box[1] + roi[1], box[2] + roi[0], box[3] + roi[1]


SPANS = st.tuples(
    st.integers(0, FRAME_HW[1] - 12), st.integers(0, FRAME_HW[0] - 12), st.integers(12, 170), st.integers(12, 120)
).map(lambda v: (v[0], v[1], min(FRAME_HW[1], v[0] + v[2]), min(FRAME_HW[0], v[1] + v[3])))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(mode=st.sampled_from(MODES), roi=SPANS, seed=st.integers(0, 99))
def test_the_verdict_is_that_of_the_cropped_picture_moved_to_its_place(
    detectors: dict[str, Detector], mode: str, roi: Box, seed: int
) -> None:
    image, detector = picture(seed), detectors[mode]
    x_min, y_min, x_max, y_max = roi
    alone = judge(detector, np.ascontiguousarray(image[y_min:y_max, x_min:x_max]), None)
    part = judge(detector, image, roi)
    assert (part.score, part.verdict, part.threshold) == (alone.score, alone.verdict, alone.threshold)
    assert alone.inspected_box is not None and part.inspected_box == shifted(alone.inspected_box, roi)
    assert [region.box_xyxy for region in part.regions] == [shifted(one.box_xyxy, roi) for one in alone.regions]
    assert [region.peak_xy for region in part.regions] == [
        (one.peak_xy[0] + x_min, one.peak_xy[1] + y_min) for one in alone.regions
    ]
    assert [region.area_px for region in part.regions] == [one.area_px for one in alone.regions]
    for name in ("mask_frame", "anomaly_map_frame"):
        whole = getattr(part, name)
        assert whole.shape == FRAME_HW
        assert np.array_equal(whole[y_min:y_max, x_min:x_max], getattr(alone, name))
        outside = whole.copy()
        outside[y_min:y_max, x_min:x_max] = 0
        assert not outside.any()


@pytest.mark.parametrize("roi", [(30, 20, 130, 100), (0, 0, 61, 120), (101, 7, 170, 53)])
@pytest.mark.parametrize("mode", MODES)
def test_the_map_is_where_float64_arithmetic_puts_it(detectors: dict[str, Detector], mode: str, roi: Box) -> None:
    """Each frame pixel looks up its place on the model's map: resampled from the region of interest, edge continued."""
    verdict = judge(detectors[mode], picture(5), roi)
    assert verdict.maps is not None
    rows_columns = [resize_smooth_matrix(8, 32, PostprocessSpec()).astype(np.float64)] * 2
    model_map = rows_columns[0] @ verdict.maps.patch_map.astype(np.float64) @ rows_columns[1].T
    height, width = roi[3] - roi[1], roi[2] - roi[0]
    if mode == "stretch":
        rows, columns, top, left = 32, 32, 0, 0
    elif mode == "letterbox":
        scale = min(32 / height, 32 / width)
        rows, columns = round(height * scale), round(width * scale)
        top, left = -((32 - rows) // 2), -((32 - columns) // 2)
    else:
        rows, columns = (36, int(36 * width / height)) if height <= width else (int(36 * height / width), 36)
        top, left = round((rows - 32) / 2), round((columns - 32) / 2)
    assert verdict.inspected_box is not None
    x_min, y_min, x_max, y_max = verdict.inspected_box

    def sampled(first: int, last: int, origin: int, scale: float, offset: int) -> Any:
        at = np.clip((np.arange(first, last) - origin + 0.5) * scale - offset - 0.5, 0, 31)
        low = np.minimum(np.floor(at).astype(int), 30)
        return low, at - low

    row, down = sampled(y_min, y_max, roi[1], rows / height, top)
    column, right = sampled(x_min, x_max, roi[0], columns / width, left)
    above = model_map[row][:, column] * (1 - right) + model_map[row][:, column + 1] * right
    below = model_map[row + 1][:, column] * (1 - right) + model_map[row + 1][:, column + 1] * right
    oracle = above * (1 - down)[:, None] + below * down[:, None]
    assert verdict.anomaly_map_frame[y_min:y_max, x_min:x_max] == pytest.approx(oracle, abs=2e-6)


def test_the_kernel_for_frames_knows_of_the_region(detectors: dict[str, Detector]) -> None:
    verdict = judge(detectors["stretch"], picture(5), (30, 20, 130, 100))
    alone = judge(detectors["stretch"], np.ascontiguousarray(picture(5)[20:100, 30:130]), None)
    assert verdict.maps is not None and alone.maps is not None
    plan, other = (
        ResizeSmoothPlan.on_frame(maps.geometry, (8, 8), maps.postprocess) for maps in (verdict.maps, alone.maps)
    )
    assert plan.map_hw == other.map_hw == (80, 100)
    assert np.array_equal(plan.tables.data, other.tables.data)


@pytest.mark.parametrize(
    "roi", [(0, 0, 171, 120), (0, 0, 170, 121), (-1, 0, 50, 50), (50, 10, 50, 60), (300, 0, 400, 9)]
)
def test_a_region_that_the_frame_does_not_hold_is_an_error(detectors: dict[str, Detector], roi: Box) -> None:
    with pytest.raises(ImageError, match="outside of the 170x120 frame"):
        detectors["stretch"].prepare(picture(0), roi=roi)


def test_a_black_region_of_a_bright_frame_is_unusable(detectors: dict[str, Detector]) -> None:
    image = picture(0)
    image[:60, :60] = 0
    assert detectors["stretch"].prepare(image).reason is None
    prepared = detectors["stretch"].prepare(image, roi=(0, 0, 60, 60))
    assert prepared.reason is not None and "black" in prepared.reason
    assert detectors["stretch"].unusable(prepared).inspected_box == (0, 0, 60, 60)


def test_only_what_nobody_asked_to_leave_out_is_warned_about() -> None:
    from datetime import datetime, timezone

    from edge_ad.image.frame import Frame

    said: list[str] = []
    spec = PreprocessSpec(32, 32, resize=32)
    rois: dict[str, Box | None] = {"square": (10, 10, 110, 110), "wide": (0, 0, 150, 50), "outside": (0, 0, 500, 500)}
    with CoverageWarning(spec, said.append, rois) as sink:
        for name in ("square", "wide", "outside", "wide"):
            frame = Frame(0, name, datetime.now(timezone.utc), 0, picture(0))
            sink.write(frame, Verdict("skipped"), {})
    (warning,) = said
    assert "wide: 67% of the 150x50 region of interest" in warning
    assert "x 50..100, y 0..50" in warning
