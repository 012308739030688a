"""Filters of other detectors: what OpenCV and Pillow give of the whole frame, cropped or padded as the spec says."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_ad.bundle.specs import Filter, PreprocessSpec, ResizeMode
from edge_ad.image.geometry import place
from edge_ad.image.preprocess import Preprocessor, chosen_resizer
from edge_ad.image.resize.whole import WholeFrameResizer

FRAME = np.random.default_rng(0).integers(0, 256, (75, 110, 3), np.uint8)
PADDING = (9, 8, 7)


def opencv(interpolation: int) -> Any:
    return lambda image, hw: cv2.resize(image, (hw[1], hw[0]), interpolation=interpolation)


ORACLES: dict[Filter, Any] = {
    "opencv_bilinear": opencv(cv2.INTER_LINEAR),
    "opencv_area": opencv(cv2.INTER_AREA),
    "pillow_bicubic": lambda image, hw: np.asarray(
        Image.fromarray(image).resize((hw[1], hw[0]), Image.Resampling.BICUBIC)
    ),
    "pillow_bilinear": lambda image, hw: np.asarray(
        Image.fromarray(image).resize((hw[1], hw[0]), Image.Resampling.BILINEAR)
    ),
}
OTHERS: list[Filter] = ["opencv_bilinear", "opencv_area", "pillow_bicubic"]


def expected(spec: PreprocessSpec, frame: np.ndarray) -> np.ndarray:
    """By hand: the sizes are those that the resize modes are documented to have."""
    (height, width), (rows, columns) = frame.shape[:2], spec.size_hw
    oracle = ORACLES[spec.filter]
    if spec.resize_mode == "stretch":
        return np.asarray(oracle(frame, (rows, columns)))
    if spec.resize_mode == "shorter_side_crop":
        short = spec.resize or min(rows, columns)
        size = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    else:
        scale = min(rows / height, columns / width)
        size = (round(height * scale), round(width * scale))
    whole = oracle(frame, size)
    canvas = np.empty((rows, columns, 3), np.uint8)
    canvas[:] = PADDING
    # torchvision rounds what a crop takes away on either side; padding begins with the smaller half.
    top, left = (
        round((have - want) / 2) if have >= want else -((want - have) // 2)
        for have, want in zip(size, (rows, columns), strict=True)
    )
    for_y = slice(max(0, -top), max(0, -top) + min(rows, size[0]))
    for_x = slice(max(0, -left), max(0, -left) + min(columns, size[1]))
    canvas[for_y, for_x] = whole[max(0, top) : max(0, top) + rows, max(0, left) : max(0, left) + columns]
    return canvas


MODES: list[tuple[ResizeMode, tuple[int, int], int | None]] = [
    ("stretch", (32, 48), None),
    ("stretch", (160, 150), None),  # enlarged
    ("shorter_side_crop", (40, 40), 50),
    ("shorter_side_crop", (64, 40), 48),  # a crop that is larger than the frame on one side
    ("letterbox", (64, 64), None),
    ("letterbox", (40, 90), None),
]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("mode", "size", "resize"), MODES)
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_filters(name: Filter, mode: ResizeMode, size: tuple[int, int], resize: int | None, order: Any) -> None:
    spec = PreprocessSpec(*size, resize_mode=mode, resize=resize, filter=name, pad_rgb=PADDING)
    frame = FRAME if order == "rgb" else FRAME[:, :, ::-1]
    got = Preprocessor(spec)(frame, order).image_hwc
    assert got.flags["C_CONTIGUOUS"] and got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected(spec, FRAME))


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("mode", ["stretch", "letterbox", "shorter_side_crop"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_part_of_the_frame(name: Filter, mode: ResizeMode, order: Any) -> None:
    """A region of interest is resized as if it were the frame; nothing beside it shines in."""
    spec = PreprocessSpec(32, 32, resize_mode=mode, filter=name)
    roi = (20, 5, 90, 70)
    part = np.ascontiguousarray(FRAME[5:70, 20:90])
    geometry = place(spec, part.shape[:2])
    x_min, y_min, x_max, y_max = geometry.content_box
    outs = []
    for frame, placed in ((part, geometry), (FRAME, geometry.within(FRAME.shape[:2], roi))):
        out = np.zeros((y_max - y_min, x_max - x_min, 3), np.uint8)
        for work in WholeFrameResizer(name).parts(frame[..., :: 1 if order == "rgb" else -1], order, placed, out, 1):
            work()
        outs.append(out)
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(outs[0], Preprocessor(spec)(part).image_hwc[y_min:y_max, x_min:x_max])


def test_filters_differ() -> None:
    """Control: on this frame no filter passes for another one."""
    found = [
        Preprocessor(PreprocessSpec(32, 32, resize_mode="stretch", filter=name))(FRAME).image_hwc for name in ORACLES
    ]
    for index, one in enumerate(found):
        assert all(np.abs(one.astype(int) - other).max() > 10 for other in found[:index])


def test_a_frame_of_the_models_size_is_left_as_it_is() -> None:
    for name in ORACLES:
        spec = PreprocessSpec(75, 110, resize_mode="stretch", filter=name)
        np.testing.assert_array_equal(Preprocessor(spec)(FRAME).image_hwc, FRAME)


def test_what_resizes_is_told_by_name() -> None:
    assert [chosen_resizer(name).name for name in OTHERS] == ["OpenCV, bilinear", "OpenCV, area", "Pillow, bicubic"]
