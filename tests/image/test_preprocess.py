"""Preprocessing is the training transform, compiled or not: torchvision's Resize and CenterCrop on a Pillow image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from edge_ad.bundle.specs import PreprocessSpec, ResizeMode
from edge_ad.errors import ImageError
from edge_ad.image.preprocess import Preprocessor, chosen_resizer

MAX_LEVELS = 1  # from the whole-picture resize of whatever Pillow is installed, which may take the rows first

FRAMES = {
    "full HD": (1080, 1920),
    "PAL": (576, 768),
    "portrait": (1280, 720),
    "odd": (487, 911),
    "prime": (331, 337),
    "square at model size": (288, 288),
    "height at model size": (288, 400),
    "upscaled": (60, 90),
    "tiny": (3, 5),
    "one pixel": (1, 1),
    "panorama": (120, 1900),
    "8 megapixels": (2448, 3264),
}


@pytest.fixture(autouse=True, params=["compiled", "Pillow"])
def resizes_with(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with the compiled resize, and as on a machine that has none."""
    if request.param == "compiled":
        request.getfixturevalue("compiled")
    else:
        monkeypatch.setattr("edge_ad.image.preprocess.native_resizer", lambda: None)
    assert chosen_resizer().name == request.param
    return str(request.param)


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """White noise, which shows every wrong weight; a smooth picture hides them."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _resized(image_hwc: np.ndarray, width: int, height: int) -> Image.Image:
    """Pillow's antialiased bilinear, columns before rows: what every Pillow until 12 does."""
    picture = Image.fromarray(image_hwc)
    narrow = picture.resize((width, picture.height), Image.Resampling.BILINEAR)
    return narrow.resize((width, height), Image.Resampling.BILINEAR)


def _trained(image_hwc: np.ndarray, resize: int, crop: tuple[int, int]) -> np.ndarray:
    """Resize(resize) and CenterCrop(crop) of torchvision; sizes and crop are torchvision's own."""
    width, height = transforms.Resize(resize)(Image.fromarray(image_hwc)).size
    return np.asarray(transforms.CenterCrop(crop)(_resized(image_hwc, width, height)))


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("threads", [1, 3])
def test_crop_is_the_training_transform(name: str, threads: int) -> None:
    image = _noise(*FRAMES[name])
    got = Preprocessor(PreprocessSpec(288, 288, resize=288), threads=threads)(image)
    assert got.image_hwc.dtype == np.uint8
    assert got.image_hwc.flags.c_contiguous
    np.testing.assert_array_equal(got.image_hwc, _trained(image, 288, (288, 288)))


@pytest.mark.parametrize("name", FRAMES)
def test_crop_is_within_a_level_of_torchvision_with_the_installed_pillow(name: str) -> None:
    image = _noise(*FRAMES[name])
    transform = transforms.Compose([transforms.Resize(288), transforms.CenterCrop(288)])
    got = Preprocessor(PreprocessSpec(288, 288, resize=288))(image).image_hwc
    difference = np.abs(got.astype(np.int16) - np.asarray(transform(Image.fromarray(image))))
    assert difference.max() <= MAX_LEVELS


@pytest.mark.parametrize("frame_hw", [(1080, 1920), (576, 768), (100, 71), (40, 40)])
@pytest.mark.parametrize(("resize", "crop"), [(329, (288, 288)), (200, (288, 288)), (256, (224, 320)), (97, (31, 63))])
def test_crop_with_other_sizes_and_padding(
    frame_hw: tuple[int, int], resize: int, crop: tuple[int, int], resizes_with: str
) -> None:
    """Resize 200 and crop 288 pads with black as CenterCrop does; 256 and (224, 320) pads or crops one side."""
    image = _noise(*frame_hw)
    got = Preprocessor(PreprocessSpec(*crop, resize=resize))(image).image_hwc
    difference = np.abs(got.astype(np.int16) - _trained(image, resize, crop))
    if image.size < 1_000_000 or resizes_with == "compiled":
        assert difference.max() == 0
    else:  # where exact edges would cost too much, single-precision ones tip a rounding here and there
        assert difference.max() <= MAX_LEVELS
        assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("frame_hw", [(5, 20_011), (20_011, 5), (64, 40_001)])
def test_of_a_long_thin_picture_only_the_crop_is_resized(
    frame_hw: tuple[int, int], resizes_with: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line-scan pictures: resizing all of it before the crop would take gigabytes."""
    made_pixels = []
    resize = Image.Image.resize

    def watched(self: Image.Image, size: tuple[int, int], *args: Any, **options: Any) -> Image.Image:
        made_pixels.append(size[0] * size[1])
        return resize(self, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    image = _noise(*frame_hw)
    got = Preprocessor(PreprocessSpec(288, 288, resize=288))(image)
    assert bool(made_pixels) == (resizes_with == "Pillow")
    assert max(made_pixels, default=0) <= 1_000_000
    x_min, y_min, x_max, y_max = got.geometry.inspected_box
    assert max(x_max - x_min, y_max - y_min) <= 66
    # What lies around the part that is seen is not read: the result stays when it changes.
    cut_x, cut_y = max(0, x_min - 80), max(0, y_min - 80)
    hidden = np.full_like(image, 77)
    hidden[cut_y : y_max + 80, cut_x : x_max + 80] = image[cut_y : y_max + 80, cut_x : x_max + 80]
    np.testing.assert_array_equal(Preprocessor(PreprocessSpec(288, 288, resize=288))(hidden).image_hwc, got.image_hwc)


@pytest.mark.parametrize("order", ["RGB", "gbr", None])
def test_a_channel_order_that_is_none_is_refused(order: Any) -> None:
    with pytest.raises(ImageError, match="color_order"):
        Preprocessor(PreprocessSpec(8, 8, resize=8))(_noise(8, 8), order)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    frame=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    resize=st.integers(4, 150),
    crop=st.tuples(st.integers(4, 160), st.integers(4, 160)),
)
def test_crop_at_any_size(frame: tuple[int, int], resize: int, crop: tuple[int, int]) -> None:
    image = _noise(*frame)
    got = Preprocessor(PreprocessSpec(*crop, resize=resize))(image).image_hwc
    np.testing.assert_array_equal(got, _trained(image, resize, crop))


def test_a_resize_without_antialias_would_be_seen() -> None:
    """Control: OpenCV's bilinear, the usual shortcut, is dozens of levels away on the same picture."""
    import cv2

    image = _noise(1080, 1080)
    shortcut = cv2.resize(image, (288, 288), interpolation=cv2.INTER_LINEAR)
    assert np.abs(shortcut.astype(np.int16) - _trained(image, 288, (288, 288))).max() > 50


@pytest.mark.parametrize("mode", ["shorter_side_crop", "stretch", "letterbox"])
@pytest.mark.parametrize("frame_hw", [(1080, 1920), (2001, 1501)])
def test_the_number_of_strips_does_not_show(mode: ResizeMode, frame_hw: tuple[int, int]) -> None:
    image = _noise(*frame_hw)
    spec = PreprocessSpec(288, 256, resize_mode=mode)
    alone = Preprocessor(spec, threads=1)(image).image_hwc
    for threads in (2, 5, 16):
        many = Preprocessor(spec, threads=threads)
        np.testing.assert_array_equal(many(image).image_hwc, alone)
        many.close()
        np.testing.assert_array_equal(many(image).image_hwc, alone)  # and it starts again after close
        many.close()


@pytest.mark.parametrize("frame_hw", [(720, 1280), (288, 288), (20, 31)])
def test_bgr_frames_give_the_same_rgb_input(frame_hw: tuple[int, int]) -> None:
    image = _noise(*frame_hw)
    preprocess = Preprocessor(PreprocessSpec(288, 288, resize=288))
    rgb = preprocess(image).image_hwc
    np.testing.assert_array_equal(preprocess(np.ascontiguousarray(image[:, :, ::-1]), "bgr").image_hwc, rgb)
    assert (preprocess(image, "bgr").image_hwc != rgb).any()  # control: the order is looked at


@pytest.mark.parametrize("frame_hw", [(1080, 1920), (333, 97), (7, 9), (96, 160), (96, 400)])
def test_stretch_is_pillow_resize(frame_hw: tuple[int, int]) -> None:
    image = _noise(*frame_hw)
    got = Preprocessor(PreprocessSpec(96, 160, resize_mode="stretch"))(image).image_hwc
    np.testing.assert_array_equal(got, np.asarray(_resized(image, 160, 96)))
    whole = np.asarray(Image.fromarray(image).resize((160, 96), Image.Resampling.BILINEAR))
    assert np.abs(got.astype(np.int16) - whole).max() <= MAX_LEVELS


@pytest.mark.parametrize("frame_hw", [(1080, 1920), (640, 360), (10, 30), (64, 64), (1, 500)])
def test_letterbox_pads_around_the_whole_frame(frame_hw: tuple[int, int]) -> None:
    image = _noise(*frame_hw)
    got = Preprocessor(PreprocessSpec(64, 64, resize_mode="letterbox", pad_rgb=(10, 20, 30)))(image)
    x_min, y_min, x_max, y_max = got.geometry.content_box
    expected = np.asarray(_resized(image, x_max - x_min, y_max - y_min))
    np.testing.assert_array_equal(got.image_hwc[y_min:y_max, x_min:x_max], expected)
    padding = np.ones((64, 64), bool)
    padding[y_min:y_max, x_min:x_max] = False
    assert (got.image_hwc[padding] == (10, 20, 30)).all()
    assert got.geometry.covers_region


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flipped": lambda image: image[::-1, ::-1],
    "every other pixel": lambda image: image[::2, ::2],
    "part of a wider frame": lambda image: image[10:, 20:-7],
    "reversed channels": lambda image: image[:, :, ::-1],
    "Fortran order": np.asfortranarray,
    "first three of four channels": lambda image: np.dstack([image, image[:, :, :1]])[:, :, :3],
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("frame_hw", [(900, 1300), (128, 128)])
def test_views_count_as_what_they_show(name: str, frame_hw: tuple[int, int]) -> None:
    view = VIEWS[name](_noise(*frame_hw))
    preprocess = Preprocessor(PreprocessSpec(64, 64, resize=64), threads=2)
    np.testing.assert_array_equal(preprocess(view).image_hwc, preprocess(np.ascontiguousarray(view)).image_hwc)


@pytest.mark.parametrize("frame_hw", [(200, 300), (64, 64)])
def test_a_read_only_frame_is_read_and_not_handed_out(frame_hw: tuple[int, int]) -> None:
    image = _noise(*frame_hw)
    image.setflags(write=False)
    before = image.copy()
    got = Preprocessor(PreprocessSpec(64, 64, resize=64))(image).image_hwc
    assert got.flags.writeable
    got[:] = 0
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    "image",
    [
        None,
        "frame.png",
        [[0, 0, 0]],
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((4, 4, 3), bool),
    ],
    ids=lambda image: f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else repr(image),
)
def test_what_is_no_image_is_refused_with_what_was_wanted(image: Any) -> None:
    with pytest.raises(ImageError, match=r"wanted .*\(H, W, 3\) uint8"):
        Preprocessor(PreprocessSpec(8, 8, resize=8))(image)
