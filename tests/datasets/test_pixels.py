"""Pictures, masks and masks in the model's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_ad.bundle.specs import PreprocessSpec, ResizeMode
from edge_ad.datasets import Sample, model_mask, read_foreground, read_image, read_mask
from edge_ad.errors import ImageError
from edge_ad.image.preprocess import Preprocessor


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return save(tmp_path / "p.png", np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))


def test_a_picture_is_read_as_the_runtime_reads_it(picture: Path) -> None:
    with Image.open(picture) as image:
        np.testing.assert_array_equal(read_image(Sample(picture, "good")), np.asarray(image.convert("RGB")))
    with pytest.raises(ImageError, match=r"gone\.png: the file is gone"):
        read_image(Sample(picture.with_name("gone.png"), "good"))


def test_without_a_mask_nothing_is_anomalous(picture: Path) -> None:
    for defect in ("good", "scratch"):
        mask = read_mask(Sample(picture, defect), (20, 30))
        assert mask.dtype == np.bool_ and mask.shape == (20, 30) and not mask.any()


@pytest.mark.parametrize(
    "kind", ["bool", "uint8", "few levels", "uint16", "int32", "float32", "rgb", "palette", "alpha"]
)
def test_any_level_above_zero_is_anomalous(tmp_path: Path, picture: Path, kind: str) -> None:
    """VisA numbers its defects 1, 2, ...; a 16-bit 1 must not be scaled away; a palette's colour counts."""
    want = np.random.default_rng(1).random((20, 30)) < 0.3
    levels = want.astype(np.uint8)
    if kind == "palette":
        image = Image.fromarray(levels)
        image.putpalette([0, 0, 0, 0, 0, 9])
    elif kind == "alpha":
        image = Image.fromarray(np.stack([levels, levels, levels, np.zeros_like(levels)], axis=2))
    elif kind == "rgb":
        image = Image.fromarray(np.stack([0 * levels, 0 * levels, levels], axis=2))
    else:
        types = {"bool": want, "uint8": levels * np.uint8(255), "few levels": levels}
        image = Image.fromarray(types[kind] if kind in types else want.astype(kind))
    path = tmp_path / f"m.{'tif' if kind in ('int32', 'float32') else 'png'}"
    image.save(path)
    np.testing.assert_array_equal(read_mask(Sample(picture, "scratch", path), (20, 30)), want)


def test_in_jpeg_the_ringing_around_a_defect_is_not_anomalous(tmp_path: Path) -> None:
    want = np.zeros((64, 64), np.bool_)
    want[13:37, 21:45] = True
    path = save(tmp_path / "m.jpg", want.astype(np.uint8) * np.uint8(255), quality=70)
    with Image.open(path) as image:
        assert (np.asarray(image)[~want] > 0).sum() > 50
    np.testing.assert_array_equal(read_mask(Sample(path, "a", path), (64, 64)), want)


def test_a_mask_of_another_size_names_both_files_and_sizes(tmp_path: Path, picture: Path) -> None:
    path = save(tmp_path / "m.png", np.zeros((30, 20), np.uint8))
    with pytest.raises(ImageError, match=r"mask .*m\.png is 20×30, its picture .*p\.png is 30×20 pixels"):
        read_mask(Sample(picture, "a", path), (20, 30))
    with pytest.raises(ImageError, match=r"foreground mask .*m\.png is 20×30"):
        read_foreground(Sample(picture, "good", foreground=path), (20, 30))


def test_an_unreadable_mask_is_named(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"m\.png: not a picture"):
        read_mask(Sample(picture, "a", tmp_path / "m.png"), (20, 30))


def test_a_foreground_is_read_like_a_mask(tmp_path: Path, picture: Path) -> None:
    assert read_foreground(Sample(picture, "good"), (20, 30)) is None
    want = np.random.default_rng(2).random((20, 30)) < 0.5
    path = save(tmp_path / "f.png", want.astype(np.uint8))
    read = read_foreground(Sample(picture, "good", foreground=path), (20, 30))
    np.testing.assert_array_equal(read, want)


MODES: tuple[ResizeMode, ...] = ("shorter_side_crop", "stretch", "letterbox")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frame_hw", [(40, 70), (64, 64), (300, 200)])
def test_the_models_mask_is_the_resized_mask_at_one_half(mode: ResizeMode, frame_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    mask = Image.fromarray(rng.random((5, 5)) < 0.5).resize(frame_hw[::-1], Image.Resampling.NEAREST)
    spec = PreprocessSpec(48, 64, mode, 64 if mode == "shorter_side_crop" else None, pad_rgb=(255, 255, 255))
    got = model_mask(np.asarray(mask), spec)
    assert got.shape == (48, 64) and got.dtype == np.bool_
    levels = Preprocessor(spec)(np.asarray(mask.convert("L").convert("RGB")))
    x_min, y_min, x_max, y_max = levels.geometry.content_box
    content = slice(y_min, y_max), slice(x_min, x_max)
    np.testing.assert_array_equal(got[content], levels.image_hwc[content][:, :, 0] >= 128)
    outside = np.ones_like(got)
    outside[content] = False
    assert not got[outside].any()
    assert outside.any() == (mode == "letterbox")


@settings(max_examples=40, deadline=None)
@given(
    frame=st.tuples(st.integers(20, 120), st.integers(20, 120)),
    box=st.tuples(st.floats(0.1, 0.45), st.floats(0.55, 0.9), st.floats(0.1, 0.45), st.floats(0.55, 0.9)),
)
def test_a_rectangle_keeps_its_edges_to_a_pixel(frame: tuple[int, int], box: tuple[float, float, float, float]) -> None:
    """Stretched, pixel (y, x) of the model is anomalous when its centre lies in the rectangle, but for one pixel."""
    (rows, columns), (top, bottom, left, right) = frame, box
    top, bottom, left, right = round(top * rows), round(bottom * rows), round(left * columns), round(right * columns)
    mask = np.zeros(frame, np.bool_)
    mask[top:bottom, left:right] = True
    got = model_mask(mask, PreprocessSpec(32, 32, "stretch"))
    y, x = (np.arange(32) + 0.5) * rows / 32, (np.arange(32) + 0.5) * columns / 32
    step = max(frame) / 32 + 1
    inner = ((y > top + step) & (y < bottom - step))[:, None] & ((x > left + step) & (x < right - step))[None, :]
    outer = ((y > top - step) & (y < bottom + step))[:, None] & ((x > left - step) & (x < right + step))[None, :]
    assert got[inner].all()
    assert not got[~outer].any()
